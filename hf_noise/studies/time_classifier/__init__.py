"""Classifiers of noisy images at every noise level, for TDSM."""

COMMAND = "time-classifier"
DEMO_MINUTES = 1
