"""Masked language models that are pre-trained on text among which whole documents are noise."""

COMMAND = "bert-noise"
DEMO_MINUTES = 5
