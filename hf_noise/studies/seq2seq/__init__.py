"""Encoder-decoders on pairs whose targets a teacher wrote."""

COMMAND = "seq2seq-noise"
DEMO_MINUTES = 21
