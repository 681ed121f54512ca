"""A table of words: a row for each meaning of the bus, a column for each partner's vocabulary.

Every row has every column, and every meaning has a row: what a partner has no word for is said so
by "-". A word "*" stands for whatever the column does not name elsewhere.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, get_args

from connectors.services.vocabulary.file import read_toml, shipped
from proto import schemas
from proto.exits import StartError
from proto.wording import text

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

    def __init__(self, file: Path, name: str, rows: Mapping[str, Mapping[str, str]]) -> None:
        """Raises StartError when a row has not the columns of the others."""
        self.file = file
        self.name = name
        self._rows = rows
        self.columns = frozenset().union(*rows.values())
        for meaning, row in rows.items():
            if missing := self.columns - set(row):
                raise self.wrong("no_column", meaning, ", ".join(sorted(missing)))

    @property
    def rows(self) -> tuple[str, ...]:
        """The meanings, in the order of the file."""
        return tuple(self._rows)

    def words(self, column: str) -> dict[str, str]:
        """Return the words of a column by meaning, without the meanings that it has none for.
        Raises StartError when there is no such column."""
        if column not in self.columns:
            raise self.wrong("no_column", "*", column)
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
                raise self.wrong("no_word", meaning, column, word=word)
        if whole and (missing := set(allowed) - set(words.values())):
            raise self.wrong("not_whole", "*", column, word=", ".join(sorted(missing)))

    def wrong(self, what: str, meaning: str, column: str, word: str = "") -> StartError:
        """Return the error that names the file and the key."""
        key = f"{self.name}.{meaning}"
        told = text(f"vocabulary.{what}", file=self.file, key=key, column=column, word=word)
        return StartError(told)


def load_statuses(file: Path | None = None) -> Table:
    """Return the chain of statuses. Raises StartError naming the file and the key."""
    return _load(file or shipped(STATUSES), {CHAIN: get_args(schemas.StatusCode)})[CHAIN]


def load_codes(file: Path | None = None) -> dict[str, Table]:
    """Return the tables of codes by name. Raises StartError naming the file and the key."""
    return _load(file or shipped(CODES), MEANINGS)


def _load(file: Path, wanted: Mapping[str, Collection[str]]) -> dict[str, Table]:
    tree = read_toml(file)
    for name, rows in tree.items():
        if not _is_table(rows):
            raise StartError(text("vocabulary.no_table", file=file, key=name))
    for name, meanings in wanted.items():
        if name not in tree:
            raise StartError(text("vocabulary.no_table", file=file, key=name))
        if odd := set(meanings) ^ set(tree[name]):
            key = f"{name}.{min(odd)}"
            what = "missing" if min(odd) in meanings else "invented"
            raise StartError(text(f"vocabulary.{what}", file=file, key=key))
    return {name: Table(file, name, rows) for name, rows in tree.items()}


def _is_table(rows: object) -> bool:
    return (
        isinstance(rows, dict)
        and bool(rows)
        and all(
            isinstance(row, dict) and all(isinstance(word, str) for word in row.values())
            for row in rows.values()
        )
    )
