"""A question in the one spelling under which its answer is kept: each spelling has its own key."""

from datetime import date


def spelt(part: str | int | date | None) -> str:
    """Return a part of a question: upper case, single spaces, Е for Ё; "" for what is absent."""
    return "" if part is None else " ".join(str(part).upper().replace("Ё", "Е").split())
