"""Generated images, measured."""
