"""Noisy data sets, written out."""
