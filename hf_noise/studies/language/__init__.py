"""GPT-2 under token noise."""

COMMAND = "gpt2-noise"
DEMO_MINUTES = 12
