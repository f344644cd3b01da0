"""The catalogue: one file per family, one declaration per operator, and the table that lists them."""
