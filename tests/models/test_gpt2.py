"""GPT-2 by name: the published sizes, freshly initialised."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import GPT2LMHeadModel

from hf_noise.models.gpt2 import SIZES, gpt2


@pytest.mark.parametrize(("size", "millions"), [("gpt2", 124), ("gpt2-medium", 355), ("gpt2-large", 774)])
def test_published_sizes(size, millions):
    with torch.device("meta"):  # shapes alone, no memory
        model = gpt2(size, vocab_size=50257, block_size=1024, end_of_text=50256)
    assert model.num_parameters() == pytest.approx(millions * 1e6, rel=0.005)


def test_settings_of_the_network():
    torch.manual_seed(0)
    model = gpt2("nano", vocab_size=300, block_size=32, end_of_text=7)
    config = model.config
    assert (config.n_positions, config.vocab_size, config.eos_token_id, config.bos_token_id) == (32, 300, 7, 7)
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0, 0, 0)
    assert config._attn_implementation == "sdpa"
    assert model.lm_head.weight is model.transformer.wte.weight
    assert gpt2("nano", vocab_size=300, block_size=32, end_of_text=0, dropout=0.2).config.resid_pdrop == 0.2


def test_initialisation_is_gpt2s_and_follows_the_seed():
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(gpt2("nano", vocab_size=300, block_size=32, end_of_text=0))
    first, same, other = (model.transformer.h[0].mlp for model in models)
    assert torch.equal(first.c_fc.weight, same.c_fc.weight)
    assert not torch.equal(first.c_fc.weight, other.c_fc.weight)
    # Normal(0, 0.02); projections into the residual stream of 2 blocks are smaller by sqrt(2 * 2).
    assert first.c_fc.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert first.c_proj.weight.std().item() == pytest.approx(0.02 / math.sqrt(4), rel=0.02)


def test_every_size_has_whole_heads():
    assert all(size.width % size.heads == 0 for size in SIZES.values())


def test_an_untrained_model_knows_nothing():
    torch.manual_seed(0)
    model: GPT2LMHeadModel = gpt2("nano", vocab_size=300, block_size=32, end_of_text=0).eval()
    tokens = torch.arange(64).view(2, 32)
    with torch.no_grad():
        assert model(input_ids=tokens, labels=tokens).loss.item() == pytest.approx(math.log(300), abs=0.1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": "gpt3"}, "one of 'nano', 'mini', 'gpt2', 'gpt2-medium', 'gpt2-large', got 'gpt3'"),
        ({"vocab_size": 0}, r"vocab_size must be a whole number in \[1, 2097152\], got 0"),
        ({"block_size": 2.5}, r"block_size must be a whole number in \[1, 1048576\], got 2.5"),
        ({"end_of_text": 300}, r"end_of_text must be a whole number in \[0, 299\], got 300"),
        ({"dropout": math.nan}, r"dropout must lie in \[0, 1\), got nan"),
        ({"dropout": False}, r"dropout must be a number in \[0, 1\), got False"),
    ],
)
def test_what_cannot_be_made_is_refused(changed, message):
    with pytest.raises((ValueError, TypeError), match=message):
        gpt2(**({"size": "nano", "vocab_size": 300, "block_size": 32, "end_of_text": 0} | changed))
