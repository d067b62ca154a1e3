"""How far the gradients of clean and of corrupt examples agree, and what a larger batch makes of it."""
