"""What most commands share: --config, --lang and --json, the loaded settings, the ops socket."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from proto.exits import EX_CONFIG, EX_NOPERM, EX_REFUSED, EX_TEMPFAIL, EX_UNAVAILABLE
from proto.ops import (
    FORBIDDEN,
    NO_ANSWER,
    NOT_PERMITTED,
    UNREACHABLE,
    OpsError,
    check_reachable,
    ops_request,
)
from proto.visible import visible_in, visible_json
from proto.wording import LANGUAGES, text
from router.config import LoadedSettings, load

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Failure(click.ClickException):
    """A command failed: one sentence, and the exit status."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code  # type: ignore[misc]


def common(function: Decorated) -> Decorated:
    """Add --config and --lang."""
    config = click.option(
        "--config",
        "path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=text("help.opt_config"),
    )
    return config(lang(function))


def lang(function: Decorated) -> Decorated:
    """Add --lang, which `main` has acted upon before anything was imported."""
    return click.option(
        "--lang", type=click.Choice(LANGUAGES), expose_value=False, help=text("help.opt_lang")
    )(function)


def machine(function: Decorated) -> Decorated:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help=text("help.opt_json"))(function)


def echo_json(value: object) -> None:
    """Print a value for a machine, one document."""
    click.echo(visible_json(json.dumps(value, ensure_ascii=False, indent=2)))


def ask(path: Path | None, command: str, **args: Any) -> dict[str, Any]:
    """Ask the router of this configuration. Raises ConfigError or Failure.

    For a person, what would steer the terminal is written out; for a machine all is as it is.
    """
    loaded = load(path, whole=False)
    try:
        answer = ops_request(loaded.settings.ops.listen, command, **args)
    except OpsError as error:
        raise failure_of(error, loaded, "ops.listen", loaded.settings.ops.listen) from None
    context = click.get_current_context(silent=True)
    is_for_machine = context is not None and context.params.get("as_json")
    return answer if is_for_machine else dict(visible_in(answer))


def reach(loaded: LoadedSettings, key: str, address: str) -> None:
    """Raise Failure when nobody listens at an address of the configuration."""
    try:
        check_reachable(address)
    except OpsError as error:
        raise failure_of(error, loaded, key, address) from None


def failure_of(error: OpsError, loaded: LoadedSettings, key: str, address: str) -> Failure:
    """Return the sentence and the exit status for an ops error."""
    statuses = {
        UNREACHABLE: ("cli.unreachable", EX_UNAVAILABLE),
        NO_ANSWER: ("cli.no_answer", EX_TEMPFAIL),
        NOT_PERMITTED: ("cli.not_permitted", EX_NOPERM),
        FORBIDDEN: ("cli.operator_refused", EX_NOPERM),
        "config": ("cli.negative", EX_CONFIG),
    }
    what, status = statuses.get(error.code, ("cli.negative", EX_REFUSED))
    where = loaded.where(key)
    sentence = text(what, address=address, where=where, reason=error.sentence, code=error.code)
    return Failure(sentence, status)
