"""How the loss of trained models scatters between macro-batches."""

COMMAND = "loss-stability"
DEMO_MINUTES = 7
