"""One module for each study, of its name: `FAMILY` says what its cells are, and how tables read their records."""
