"""What the demo shows: finished lines, and one live line that is rewritten on a terminal."""

import shutil
import sys
import time
from typing import Final

import click

QUIET_S: Final = 5.0


class Screen:
    """Lines on stdout. Where stdout is no terminal the live line appears every few seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._live = False
        self._shown = ""
        self._shown_at = 0.0

    def line(self, words: str = "", **style: bool | str) -> None:
        """Print a finished line."""
        self._clear()
        click.echo(click.style(words, **style) if style else words)  # type: ignore[arg-type]
        sys.stdout.flush()

    def live(self, words: str) -> None:
        """Show the state of the moment."""
        now = time.monotonic()
        if self._terminal:
            width = shutil.get_terminal_size().columns
            sys.stdout.write(f"\r\x1b[K{words[: width - 1]}")
            sys.stdout.flush()
            self._live = True
        elif words != self._shown and now - self._shown_at >= QUIET_S:
            click.echo(words)
            sys.stdout.flush()
            self._shown, self._shown_at = words, now

    def _clear(self) -> None:
        if self._live:
            sys.stdout.write("\r\x1b[K")
            self._live = False
