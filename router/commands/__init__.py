"""The `smpbus` command: its subcommands, and how each of their failures ends.

Every failure is one sentence on stderr that begins with `ОШИБКА: ` and one exit status of
sysexits.h; `smpbus --help` lists them.
"""

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final

if os.path.basename(sys.argv[0]) == "smpbus":  # Ctrl-C before there is anybody to catch it
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import click

from proto.exits import EX_INTERRUPTED, EX_IOERR, EX_NOPERM, EX_USAGE, StartError
from proto.visible import visible
from proto.wording import LANGUAGES, set_language, text
from router.commands.group import CommandGroup, HelpFormatter

# name -> "module:object", imported only when the command is used.
COMMANDS: Final = {
    "router": "router.commands.daemon:router",
    "status": "router.commands.state:status",
    "queues": "router.commands.state:queues",
    "sessions": "router.commands.state:sessions",
    "partners": "router.commands.partners:partners",
    "trace": "router.commands.timeline:trace",
    "tail": "router.commands.follower:tail",
    "send": "router.commands.sender:send",
    "dead": "router.commands.letters:dead",
    "hold": "router.commands.holding:hold",
    "release": "router.commands.holding:release",
    "retry": "router.commands.holding:retry",
    "access": "router.commands.accesses:access",
    "check": "router.commands.balance:check",
    "route": "router.commands.route:route",
    "reload": "router.commands.state:reload",
    "config": "router.commands.configuration:config",
    "keys": "router.commands.keyfile:keys",
    "schema": "router.commands.schema:schema",
    "explain": "router.commands.code:explain",
    "completion": "router.commands.completion:completion",
    "version": "router.commands.release:version",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    # Whatever a command writes (journals, state, registers) may hold patients' data.
    os.umask(0o077)
    # And so may a core file; the units say so, too, what starts it otherwise may not.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _mend_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    _choose_language(arguments)
    click.Context.formatter_class = HelpFormatter
    try:
        if argv is None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return _ended(lambda: _make_group().main(arguments, "smpbus", standalone_mode=False))
    except KeyboardInterrupt:
        return EX_INTERRUPTED


def _make_group() -> CommandGroup:
    language = click.Option(
        ["--lang"], type=click.Choice(LANGUAGES), expose_value=False, help=text("help.opt_lang")
    )
    return CommandGroup(
        "smpbus",
        params=[language],
        help=text("help.smpbus"),
        commands_at=COMMANDS,
        entry_points="smpbus.commands",
    )


def _mend_streams() -> None:
    """Let no journal or socket get the number of a closed stdout, and no letter end a command."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _choose_language(arguments: list[str]) -> None:
    """Find --lang before any command is imported: help texts are read at import."""
    for index, argument in enumerate(arguments):
        value = argument.removeprefix("--lang=")
        if argument == "--lang":
            value = arguments[index + 1] if index + 1 < len(arguments) else ""
        if value in LANGUAGES and argument.startswith("--lang"):
            set_language(value)


def _ended(run: Callable[[], object]) -> int:
    try:
        result = run()
        if sys.stdout is not None:
            sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.Abort:
        return EX_INTERRUPTED
    except BrokenPipeError:  # `smpbus queues | head -1`
        _abandon_stdout()
        return 0
    except PermissionError as error:
        return _fail(text("cli.forbidden", path=error.filename or "?"), EX_NOPERM)
    except OSError as error:
        _abandon_stdout()
        where = error.filename or "stdout"
        return _fail(text("cli.io_failed", path=where, reason=error.strerror), EX_IOERR)
    except StartError as error:
        return _fail(error.sentence, error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EX_USAGE
    except click.UsageError as error:
        help_of = error.ctx.command_path if error.ctx else "smpbus"
        return _fail(text("cli.usage", what=_usage(error), command=help_of), EX_USAGE)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)


def _abandon_stdout() -> None:
    """What is still to be written there can go nowhere."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: click.UsageError) -> str:
    match error:
        case click.NoSuchOption():
            return text("cli.no_such_option", name=error.option_name)
        case click.exceptions.NoSuchCommand():
            return text("cli.no_such_command", name=error.command_name)
        case click.MissingParameter():
            return text("cli.missing", name=_name_of(error))
        case click.BadParameter():
            return text("cli.bad_value", name=_name_of(error), reason=error.message.rstrip("."))
    return error.format_message().rstrip(".")


def _name_of(error: click.BadParameter) -> str:
    if error.param is None:
        return ""
    return error.param.get_error_hint(error.ctx).strip("'")


def _fail(sentence: str, exit_code: int) -> int:
    lines = [visible(line) for line in text("log.error", sentence=sentence).split("\n")]
    with contextlib.suppress(OSError):  # nobody reads: the exit status is all there is to say
        click.echo("\n".join(lines), err=True)
    return exit_code
