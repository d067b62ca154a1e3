"""Generated images, measured."""

COMMAND = "evaluate-generation"
