"""Tiny networks for the tests of features, with a tokenizer that knows single words."""

from __future__ import annotations

import json

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

WORDS = ["[UNK]", "[PAD]", "<eos>", *["a", "b", "c", "d", "e", "f", "this", "movie", "is"]]


def tokenizer(**special):
    known = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    known.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=known, unk_token="[UNK]", model_max_length=16, **special)


def gpt2(folder):
    """A causal model whose tokenizer has no token to pad with."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(WORDS), n_positions=16, n_embd=8, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer(eos_token="<eos>").save_pretrained(folder)
    return str(folder)


def bert(folder):
    """An encoder that was saved as a masked language model: without the pooler that `AutoModel` has."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=12, pad_token_id=1,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer(pad_token="[PAD]").save_pretrained(folder)
    return str(folder)


def behind_padding(folder, kind):
    """An encoder of the kind "roberta" or "mpnet", which has 10 positions for texts in a table of 12."""
    torch.manual_seed(0)
    config = {"roberta": RobertaConfig, "mpnet": MPNetConfig}[kind](
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=12, pad_token_id=1,
    )  # fmt: skip
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer(pad_token="[PAD]").save_pretrained(folder)
    return str(folder)


def adapter(folder, base):
    """An adapter of peft that names the folder of its base model."""
    import peft

    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["c_attn"], init_lora_weights=False)
    peft.get_peft_model(AutoModel.from_pretrained(base), config).save_pretrained(folder)
    tokenizer(eos_token="<eos>").save_pretrained(folder)
    return str(folder)


def timm_network(folder):
    """A network of timm's as it is on the Hub: config.json and model.safetensors under timm's own names."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3)
    folder.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    told = {key: model.pretrained_cfg[key] for key in ("input_size", "interpolation", "crop_pct", "mean", "std",
            "pool_size", "first_conv", "classifier")}  # fmt: skip
    config = {"architecture": "test_resnet", "num_classes": 3, "num_features": model.num_features,
              "pretrained_cfg": told | {"fixed_input_size": False, "num_classes": 3}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)
