"""How far the gradients of clean and of corrupt examples agree, and what a larger batch makes of it."""

COMMAND = "gradient-coherence"
DEMO_MINUTES = 3
IS_ALONE = True
