"""BERT by name: the published sizes, freshly initialised."""

from __future__ import annotations

import math

import pytest
import torch

from hf_noise.models.bert import SIZES, bert


@pytest.mark.parametrize(
    ("size", "millions"), [("nano", 4.4), ("mini", 11.2), ("bert-base", 109.5), ("bert-large", 335)]
)
def test_published_sizes(size, millions):
    with torch.device("meta"):  # shapes alone, no memory
        model = bert(size, vocab_size=30522, block_size=512, pad_token=0)
    assert model.num_parameters() == pytest.approx(millions * 1e6, rel=0.01)


def test_settings_of_the_network():
    torch.manual_seed(0)
    model = bert("nano", vocab_size=300, block_size=32, pad_token=7)
    config = model.config
    assert (config.max_position_embeddings, config.vocab_size, config.pad_token_id) == (32, 300, 7)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob, config.is_decoder) == (0.1, 0.1, False)
    assert config._attn_implementation == "sdpa"
    embeddings = model.bert.embeddings.word_embeddings
    assert model.cls.predictions.decoder.weight is embeddings.weight and not embeddings.weight[7].any()
    plain = bert("nano", vocab_size=300, block_size=32, dropout=0.0)
    assert plain.config.hidden_dropout_prob == 0 and plain.bert.embeddings.word_embeddings.weight[0].any()


def test_it_reads_what_stands_behind_and_knows_nothing_yet():
    torch.manual_seed(0)
    model = bert("nano", vocab_size=300, block_size=32, dropout=0.0).eval()
    tokens = torch.arange(64).view(2, 32)
    with torch.no_grad():
        first = model(input_ids=tokens).logits
        tokens[:, -1] = 299
        changed = model(input_ids=tokens).logits
        assert model(input_ids=tokens, labels=tokens).loss.item() == pytest.approx(math.log(300), abs=0.1)
    assert (first[:, 0] - changed[:, 0]).abs().max() > 1e-5


def test_initialisation_follows_the_seed():
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(bert("nano", vocab_size=300, block_size=32).bert.encoder.layer[0].intermediate.dense.weight)
    first, same, other = models
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert first.std().item() == pytest.approx(0.02, rel=0.02)


def test_every_size_has_whole_heads():
    assert all(size.width % size.heads == 0 for size in SIZES.values())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": "bert"}, "the BERT size must be one of 'nano', 'mini', 'bert-base', 'bert-large', got 'bert'"),
        ({"vocab_size": 0}, r"vocab_size must be a whole number in \[1, 2097152\], got 0"),
        ({"block_size": 2.5}, r"block_size must be a whole number in \[1, 1048576\], got 2.5"),
        ({"pad_token": 300}, r"pad_token must be a whole number in \[0, 299\], got 300"),
        ({"dropout": math.nan}, r"dropout must lie in \[0, 1\), got nan"),
        ({"dropout": False}, r"dropout must be a number in \[0, 1\), got False"),
    ],
)
def test_what_cannot_be_made_is_refused(changed, message):
    with pytest.raises((ValueError, TypeError), match=message):
        bert(**({"size": "nano", "vocab_size": 300, "block_size": 32} | changed))
