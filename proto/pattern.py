"""Regular expressions that must match a whole text, for msgspec and for the schemas shown to
others."""


def exactly(pattern: str) -> str:
    """Return the pattern of a text that is nothing but `pattern`.

    In Python `$` also stands before a last line feed; in the dialect of JSON Schema there is no
    `\\Z`. What this returns means the same in both. Digits are to be written [0-9]: `\\d` takes
    those of every script.
    """
    return rf"^(?:{pattern})$(?!\n)"
