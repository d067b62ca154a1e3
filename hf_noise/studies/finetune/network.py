"""The network of a fine-tuning: an encoder with a new head, all of it trained or behind an adapter of LoRA."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from hf_noise.hub.adapter import needs_peft
from hf_noise.objectives.coteaching import begin_anew
from hf_noise.studies.reading import reading

__all__ = ["adapted", "new_modules", "pretrained", "tokenizer_of"]

#: What is drawn anew inside a base model: it sums a text up for the head, and encoders may come without it.
_OF_HEAD = ("pooler",)
#: What peft saves whole of every classifier, and would list twice.
_OF_PEFT = ("classifier", "score")


def tokenizer_of(name: str) -> Any:
    """The tokenizer of a model, which can pad."""
    with reading("the tokenizer of", name):
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(f"the tokenizer of {name} has no token for padding, and none for the end; give it one")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def pretrained(name: str, classes: list[str], tokenizer: Any) -> tuple[PreTrainedModel, list[str]]:
    """An encoder with a new head for these classes, and the names of all modules that are new.

    A head that was trained before is drawn anew, all of it, whatever classes it was for: its classes are not these, or
    not in this order. Safetensors only; no code of its repository is run.

    Raises:
        OSError: it cannot be read.
        ValueError: it lacks weights of the encoder itself, which would be random.
    """
    labels = {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
    with reading("the model", name):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            name, **labels, use_safetensors=True, trust_remote_code=False, output_loading_info=True,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    base = f"{model.base_model_prefix}."
    missing = {*info["missing_keys"], *(key if isinstance(key, str) else key[0] for key in info["mismatched_keys"])}
    lacks = sorted(key for key in missing if key.startswith(base) and not any(f".{one}." in key for one in _OF_HEAD))
    if lacks:
        raise ValueError(f"the model {name} lacks {len(lacks)} tensor(s) of its encoder, such as {lacks[0]}, which "
                         "would be random; give a whole one")  # fmt: skip
    for token in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if getattr(model.config, token, None) is None:  # by the first of them some models find a text's last token
            setattr(model.config, token, getattr(tokenizer, token))
    new = new_modules(model, missing)
    with torch.no_grad():
        for name in new:
            part = getattr(model, name, None)  # of a head; parts of the encoder have a dot
            if isinstance(part, torch.nn.Module) and {f"{name}.{key}" for key, _ in part.named_parameters()} - missing:
                begin_anew(part, model)
    return model, new


def new_modules(model: PreTrainedModel, missing: set[str]) -> list[str]:
    """Names of the modules that hold weights which were not loaded; of heads, the whole head."""
    prefix = f"{model.base_model_prefix}."
    found = {key.rpartition(".")[0] if key.startswith(prefix) else key.partition(".")[0] for key in missing}
    # A model whose head was fine-tuned before has nothing missing; its head is trained all the same.
    found |= {name.partition(".")[0] for name, _ in model.named_parameters() if not name.startswith(prefix)}
    return sorted(found)


def adapted(model: PreTrainedModel, new: list[str], settings: Any) -> Any:
    """The model behind an adapter of LoRA, with the modules that are new trained beside it.

    Raises ValueError: it has no module of a name that is to get an adapter.
    """
    peft = needs_peft("--method lora")
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    targets = settings.lora_targets or KNOWN.get(model.config.model_type) or "all-linear"
    names = [name for name, _ in model.named_modules()]
    for target in targets if isinstance(targets, list) else []:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            last = sorted({name.rpartition(".")[2] for name in names if "layer" in name} - {""})
            raise ValueError(f"--lora_targets {target}: {type(model).__name__} has no module of this name; it has "
                             f"{', '.join([name for name in last if not name.isdecimal()][:12])}")  # fmt: skip
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=settings.lora_r, lora_alpha=settings.lora_alpha, lora_dropout=settings.lora_dropout,
        target_modules=targets, modules_to_save=[name for name in new if name not in _OF_PEFT],
    )  # fmt: skip
    return peft.get_peft_model(model, config)
