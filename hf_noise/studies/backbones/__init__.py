"""What noise documents in pre-training leave in the features of a language model, as heads on them tell."""

COMMAND = "noisy-backbones"
