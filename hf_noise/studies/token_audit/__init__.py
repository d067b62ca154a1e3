"""How many tokens of a user's own text are wrong, and which: an audit of any text by any causal language model."""

COMMAND = "audit-tokens"
DEMO_MINUTES = 1
IS_ALONE = True
