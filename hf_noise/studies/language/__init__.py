"""GPT-2 under token noise."""
