"""A group of commands that imports a command only when it is used, and help in our own words."""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from proto.wording import language, text, texts

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class HelpFormatter(click.HelpFormatter):
    """click's help page with its few fixed words taken from the texts; at most 80 columns."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__(width=80)

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """See click.HelpFormatter."""
        super().write_usage(prog, args, prefix or f"{text('help.usage')} ")

    def write_heading(self, heading: str) -> None:
        """See click.HelpFormatter."""
        super().write_heading(_own_word(heading))

    def write_dl(self, rows: Any, col_max: int = 30, col_spacing: int = 2) -> None:
        """See click.HelpFormatter."""
        super().write_dl([(name, _own_word(what)) for name, what in rows], col_max, col_spacing)


def _own_word(words: str) -> str:
    own = {
        "Options": "help.options",
        "Commands": "help.commands",
        "Show this message and exit.": "help.opt_help",
    }
    return text(own[words]) if words in own else words


class CommandGroup(click.Group):
    """Commands by "module:object", and those that other packages bring by entry point."""

    def __init__(
        self,
        name: str,
        *,
        commands_at: Mapping[str, str],
        entry_points: str | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(name, no_args_is_help=True, **attributes)
        self._commands_at = commands_at
        self._entry_points = entry_points

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names: own ones in the order given, then what other packages bring."""
        brought = sorted(entry.name for entry in self._brought())
        return [*self._commands_at, *(name for name in brought if name not in self._commands_at)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name in self._commands_at:
            module, _, attribute = self._commands_at[cmd_name].partition(":")
            command = getattr(import_module(module), attribute)
        else:
            found = [entry for entry in self._brought() if entry.name == cmd_name]
            command = found[0].load() if found else None
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names with their summaries, importing none of them where a text is known."""
        known = texts(language())
        prefix = "" if self.name == "smpbus" else f"{self.name}_"
        rows = []
        for name in self.list_commands(ctx):
            summary = known.get(f"help.{prefix}{name}", "").strip().partition("\n")[0]
            rows.append((name, summary or self._summary(ctx, name)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _summary(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str(60) if command else ""

    def _brought(self) -> "Iterable[EntryPoint]":
        if not self._entry_points:
            return ()
        from importlib.metadata import entry_points  # a tenth of the start of most commands

        return entry_points(group=self._entry_points)
