"""Fine-tuned text classifiers under wrong labels."""
