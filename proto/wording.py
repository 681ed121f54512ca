"""What the duty administrator reads: texts by key, in Russian (default) or English.

The texts are `texts/ru.toml` and `texts/en.toml` beside this module: the same keys in both, one
table per part of smpbus; those of the client library are in `texts/client/`, since it is also
shipped alone. `text("cli.accepted", id="...")` fills the `{fields}` of one text.
"""

import os
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from .note import translated

LANGUAGES: Final = ("ru", "en")
FOLDER: Final = Path(__file__).parent / "texts"

_chosen: str | None = None


def set_language(language: str) -> None:
    """Choose "ru" or "en" for this process. Raises ValueError for any other."""
    global _chosen
    if language not in LANGUAGES:
        raise ValueError(f"no texts in {language!r}; there are: {', '.join(LANGUAGES)}")
    _chosen = language


def language() -> str:
    """Return the language in force: chosen, else $SMPBUS_LANG ("en", "en_US.UTF-8"), else "ru"."""
    if _chosen is not None:
        return _chosen
    wished = os.environ.get("SMPBUS_LANG", "")[:2].lower()
    return wished if wished in LANGUAGES else "ru"


def text(key: str, /, **fields: object) -> str:
    """Return the text of "section.key" with its fields filled in. Raises KeyError if there is none.

    A field that the text does not name is ignored; one that it names must be given.
    """
    return texts(language())[key].format_map(fields)


def in_words(note: str) -> str:
    """Return a note in the reader's language: of what is no code of ours the text as it is."""
    return translated(note, _words)


def _words(code: str, fields: Mapping[str, str]) -> str | None:
    try:
        return text(f"note.{code}", **fields)
    except KeyError:
        return None


@cache
def texts(language: str) -> dict[str, str]:
    """Return all texts of one language by "section.key"."""
    found: dict[str, str] = {}
    for file in FOLDER.glob(f"**/{language}.toml"):
        for section, entries in tomllib.loads(file.read_text(encoding="utf-8")).items():
            _collect(section, entries, found)
    return found


def _collect(prefix: str, entries: dict[str, object], found: dict[str, str]) -> None:
    for key, value in entries.items():
        if isinstance(value, dict):
            _collect(f"{prefix}.{key}", value, found)
        else:
            found[f"{prefix}.{key}"] = str(value)
