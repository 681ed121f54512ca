"""How one person is searched for in stored data: by words that identify them, in whatever context.

`Wanted` is a list of alternatives; each is a list of words that must all be there; each word is a
list of ways to write it. These words are all that is known of the person, and they go into the
search and nowhere else: not into a log, an answer or a record.
"""

import re
from typing import Annotated, Final

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=2, max_length=100)]
Part = Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=8)]
Wanted = Annotated[
    tuple[Annotated[tuple[Part, ...], msgspec.Meta(min_length=1, max_length=4)], ...],
    msgspec.Meta(min_length=1, max_length=8),
]
_ESCAPED: Final = re.compile(r"\\u([0-9a-f]{4})")


def by_enp(enp: str) -> tuple[Part, ...]:
    """Return how a policy's number is looked for."""
    return ((enp,),)


def by_snils(snils: str) -> tuple[Part, ...]:
    """Return how a SNILS is looked for: with and without its strokes."""
    digits = "".join(one for one in snils if one.isdigit())
    parted = f"{digits[:3]}-{digits[3:6]}-{digits[6:9]}"
    return ((digits, f"{parted} {digits[9:]}", f"{parted}-{digits[9:]}"),)


def by_name(family: str, given: str, born: str) -> tuple[Part, ...]:
    """Return how a name with a birth date (YYYY-MM-DD) is looked for."""
    year, month, day = born.split("-")
    return (family,), (given,), (born, f"{year}{month}{day}", f"{day}.{month}.{year}")


class Search:
    """A compiled search."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = [[_pattern(part) for part in parts] for parts in wanted]

    def finds(self, data: bytes | str) -> bool:
        """Whether one of the alternatives is in some bytes (UTF-8, JSON escapes too) or a text."""
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        text = text.casefold()
        if "\\u" in text:
            text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text).casefold()
        return any(all(word.search(text) for word in words) for words in self._wanted)


def _pattern(part: tuple[str, ...]) -> re.Pattern[str]:
    """A word stands alone: of digits no longer number, of letters no longer word."""
    ways = []
    for one in part:
        around = "[0-9]" if one[:1].isdigit() else r"\w"
        ways.append(f"(?<!{around}){re.escape(one.casefold())}(?!{around})")
    return re.compile("|".join(ways))
