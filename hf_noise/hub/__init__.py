"""Record -> card, push to the Hub with one atomic commit, and the noise read back from whatever was published."""
