"""Image classifiers under label noise."""
