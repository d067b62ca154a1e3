"""A report of all records: how much noise costs which family of models, the papers' tables, the claims that held."""

IS_ALONE = True
