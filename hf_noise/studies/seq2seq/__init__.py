"""Encoder-decoders on pairs whose targets a teacher wrote."""
