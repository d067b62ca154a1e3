"""Images drawn from a trained pipeline."""
