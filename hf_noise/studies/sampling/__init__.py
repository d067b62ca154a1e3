"""Images drawn from a trained pipeline."""

COMMAND = "sample-edm"
