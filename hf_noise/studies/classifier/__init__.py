"""Image classifiers under label noise."""

COMMAND = "classifier-noise"
DEMO_MINUTES = 8
