"""Record -> card, pushes to the Hub in one atomic commit each, and the noise read back from either."""
