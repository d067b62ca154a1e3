"""What theory says of noise, drawn and held against a pair of runs."""

COMMAND = "theory"
IS_ALONE = True
