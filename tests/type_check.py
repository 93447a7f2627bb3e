"""The check of annotations that the import hook in conftest.py puts on every function."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""A float may be given as an int, as type checkers have it."""
