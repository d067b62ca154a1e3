"""Diffusion models under label noise."""

COMMAND = "edm-noise"
DEMO_MINUTES = 11
