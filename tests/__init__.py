"""The tests, in groups of the names of the code's rooms."""

from beartype import BeartypeConf, beartype

# How the package's types are checked while the tests run: with integers where floats are asked for (PEP 484's tower).
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
