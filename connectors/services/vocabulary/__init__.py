"""The partners' vocabularies: tables of config/ that a person reads and changes, and their loader.

`statuses.toml` has the chain of a call's statuses, `code_systems.toml` the code lists that two
partners number differently. Add a partner: one more column in every row.
"""

from connectors.services.vocabulary.table import NO_WORD, Table, load_codes, load_statuses

__all__ = ["NO_WORD", "Table", "load_codes", "load_statuses"]
