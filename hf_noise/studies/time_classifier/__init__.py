"""Classifiers of noisy images at every noise level, for TDSM."""
