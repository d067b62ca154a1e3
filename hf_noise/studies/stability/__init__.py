"""How the loss of trained models scatters between macro-batches."""
