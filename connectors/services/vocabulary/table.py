"""A table of words: a row for each meaning of the bus, a column for each partner's vocabulary.

Every row has every column, and every meaning has a row: what a partner has no word for is said so
by "-". A word "*" stands for whatever the column does not name elsewhere.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, NoReturn, get_args

from proto import schemas
from proto.configuration.layers import Layers
from proto.configuration.place import Place
from proto.configuration.typed import read_table

Rows = dict[str, dict[str, str]]

STATUSES: Final = "statuses.toml"
CODES: Final = "code_systems.toml"
NO_WORD: Final = "-"
ANY_OTHER: Final = "*"
CHAIN: Final = "chain"
# The meanings of each table of code_systems.toml that the bus has words of its own for; the rows of
# another table are what the file says.
MEANINGS: Final[dict[str, tuple[str, ...]]] = {
    "sex": get_args(schemas.Sex),
    "age_unit": ("years", "months", "days"),
    "contact_kind": get_args(schemas.ContactKind),
    "card_state": (*get_args(schemas.CardState), "cancelled"),
}


class Table:
    """One table: words by meaning and column."""

    def __init__(self, layers: Layers, name: str, rows: Rows) -> None:
        """Raises StartError when a row has not the columns of the others."""
        self._layers = layers
        self.name = name
        self._rows = rows
        self.columns = frozenset().union(*rows.values())
        for meaning, row in rows.items():
            if missing := self.columns - set(row):
                self.fail("no_column", meaning, ", ".join(sorted(missing)))

    @property
    def file(self) -> Path:
        """The file it stands in."""
        return self._layers.path

    @property
    def rows(self) -> tuple[str, ...]:
        """The meanings, in the order of the file."""
        return tuple(self._rows)

    def words(self, column: str) -> dict[str, str]:
        """Return the words of a column by meaning, without the meanings that it has none for.
        Raises StartError when there is no such column."""
        if column not in self.columns:
            self.fail("no_column", "*", column)
        words = {meaning: row[column] for meaning, row in self._rows.items()}
        return {meaning: word for meaning, word in words.items() if word != NO_WORD}

    def meanings(self, column: str) -> dict[str, str]:
        """Return the meanings of a column by word; of several meanings of a word the first."""
        found: dict[str, str] = {}
        for meaning, word in self.words(column).items():
            found.setdefault(word, meaning)
        return found

    def meaning(self, column: str, word: str) -> str | None:
        """Return what a word means, or what "*" does, or None."""
        found = self.meanings(column)
        return found.get(word, found.get(ANY_OTHER))

    def check(self, column: str, allowed: Collection[str], *, whole: bool = False) -> None:
        """Raises StartError for a word that the partner does not have; with `whole` also when one
        of its words is not in the column."""
        words = self.words(column)
        for meaning, word in words.items():
            if word not in allowed:
                self.fail("no_word", meaning, column, word)
        if whole and (missing := set(allowed) - set(words.values())):
            self.fail("not_whole", "*", column, ", ".join(sorted(missing)))

    def fail(self, what: str, meaning: str, column: str, word: str = "") -> NoReturn:
        """Raise the error that names the file, the line and the key."""
        place = self._layers.place(self.name, meaning, column)
        place.fail(f"vocabulary.{what}", column=column, word=word)


def load_statuses(file: Path | None = None) -> Table:
    """Return the chain of statuses. Raises StartError naming the file and the key."""
    return _load(STATUSES, file, {CHAIN: get_args(schemas.StatusCode)})[CHAIN]


def load_codes(file: Path | None = None) -> dict[str, Table]:
    """Return the tables of codes by name. Raises StartError naming the file and the key."""
    return _load(CODES, file, MEANINGS)


def _load(name: str, file: Path | None, wanted: Mapping[str, Collection[str]]) -> dict[str, Table]:
    tree, layers = read_table(dict[str, Rows], name, file)
    for table, meanings in wanted.items():
        if table not in tree:
            Place(table, layers.path).fail("vocabulary.no_table")
        for odd in sorted(set(meanings) ^ set(tree[table])):
            what = "missing" if odd in meanings else "invented"
            layers.place(table, odd).fail(f"vocabulary.{what}")
    return {table: Table(layers, table, rows) for table, rows in tree.items()}
