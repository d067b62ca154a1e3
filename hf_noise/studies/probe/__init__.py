"""Heads on frozen features: what Local Gradient Matching is worth to them, and what it is worth under wrong labels."""

COMMAND = "lgm-probe"
