"""How much of a user's own labels is wrong, which rows, and what to train on: an audit of any data with labels."""

DEMO_MINUTES = 1
