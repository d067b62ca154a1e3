"""Fine-tuned text classifiers under wrong labels."""

COMMAND = "finetune-noise"
DEMO_MINUTES = 18
