"""Noisy data sets, written out."""

COMMAND = "publish-dataset"
IS_ALONE = True
