"""Language models that are pre-trained on text among which whole documents are noise."""

COMMAND = "gpt2-documents"
DEMO_MINUTES = 13
