"""Records of runs and what is rendered from them."""
