"""Diffusion models under label noise."""
