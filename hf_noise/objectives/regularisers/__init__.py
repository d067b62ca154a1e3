"""Regularisers of fine-tuning in a run, and what they read of the network; loaded when one is used."""
