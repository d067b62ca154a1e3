"""The encoder-decoder from scratch: paper A's shape, what it does with padding and positions, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from hf_noise.models.seq2seq import encoder_decoder

TINY = {"pad_token": 0, "eos_token": 1, "layers": 1, "d_model": 16, "heads": 2, "feed_forward": 32}


def test_the_papers_shape():
    with torch.device("meta"):
        model = encoder_decoder(32000, pad_token=0, eos_token=1)
    # Embeddings once; layers of 4 projections, 2 feed-forward and 2 norms; decoder layers attend twice.
    attention, feed_forward, norm = 4 * (512 * 512 + 512), 2 * 512 * 2048 + 2048 + 512, 2 * 512
    encoder, decoder = attention + feed_forward + 2 * norm, 2 * attention + feed_forward + 3 * norm
    assert sum(p.numel() for p in model.parameters()) == 32000 * 512 + 6 * (encoder + decoder) + 2 * norm
    config = model.config
    assert config.dropout == 0.1 and config.attention_dropout == 0
    assert config.encoder_layerdrop == config.decoder_layerdrop == 0
    assert config.max_position_embeddings == 2048 and config.decoder_start_token_id == config.eos_token_id == 1


def test_padding_changes_nothing_and_it_comes_back_as_saved(tmp_path):
    torch.manual_seed(0)
    model = encoder_decoder(40, **TINY).eval()
    source, target = torch.tensor([[5, 6, 7, 1]]), torch.tensor([[1, 9, 8]])
    logits = model(input_ids=source, decoder_input_ids=target).logits
    padded = torch.tensor([[5, 6, 7, 1, 0, 0]])
    with_padding = model(input_ids=padded, attention_mask=(padded != 0).long(), decoder_input_ids=target).logits
    torch.testing.assert_close(with_padding, logits)
    model.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert torch.equal(again(input_ids=source, decoder_input_ids=target).logits, logits)
    written = again.generate(source, max_new_tokens=4)
    assert written[0, 0] == 1 and written.shape[1] <= 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pad_token": 1}, "pad_token and eos_token are both 1"),
        ({"eos_token": 40}, r"eos_token must be a whole number in \[0, 39\], got 40"),
        ({"heads": 3}, "d_model must be a multiple of 2 \\* heads and at least 4, got d_model=16 and heads=3"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"positions": 0}, "positions must be a whole number in"),
    ],
)
def test_what_is_no_model_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        encoder_decoder(40, **(TINY | changes))
