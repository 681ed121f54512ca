"""The commands of the administrator's guide, as they stand there."""

import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "admin.ru.md"


def commands(heading: str) -> list[str]:
    """Return the blocks of commands under one heading of the guide (a part of its text), in order.

    Raises AssertionError when there is no such heading, or no commands under it.
    """
    parts = re.split(r"^#{2,3} ", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (part,) = [part for part in parts if heading in part.partition("\n")[0]]
    found = re.findall(r"^```sh\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL)
    assert found, heading
    return found
