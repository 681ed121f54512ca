"""`smpbus check`: do the books balance, on a running router or on a journal at rest."""

import os
from pathlib import Path
from typing import Any

import click

from proto.exits import EX_IOERR, EX_REFUSED, StartError
from proto.ops import OpsError, ops_request
from proto.wording import text
from router.commands.option import Failure, common, echo_json, failure_of, machine
from router.commands.table import print_table
from router.config import LoadedSettings, load
from router.shell.lock import lock_folder
from router.store.contract import StoreError
from router.store.sqlite import FILE, SqliteStore

COLUMNS = ("destination", "accepted", "settled", "dead", "dropped", "expired", "open", "left")


@click.command(help=text("help.check"))
@click.option("--at-rest", is_flag=True, help=text("help.opt_at_rest"))
@common
@machine
def check(path: Path | None, as_json: bool, at_rest: bool) -> int | None:
    """accepted = settled + dead + dropped + expired + open, at every destination."""
    loaded = load(path, whole=False)
    if at_rest:
        return _check_at_rest(loaded, as_json)
    try:
        result = ops_request(loaded.settings.ops.listen, "check")
    except OpsError as error:
        raise failure_of(error, loaded, "ops.listen", loaded.settings.ops.listen) from None
    if as_json:
        echo_json(result)
    else:
        _print(result)
    return EX_REFUSED if result["wrong"] else None


def _print(result: dict[str, Any]) -> None:
    rows = [[row[column] for column in COLUMNS] for row in result["destinations"]]
    print_table([text(f"cli.check_{column}") for column in COLUMNS], rows)
    wrong = ", ".join(result["wrong"])
    click.echo(text("cli.check_wrong", wrong=wrong) if wrong else text("cli.check_fine"), err=True)


def _check_at_rest(loaded: LoadedSettings, as_json: bool) -> int | None:
    folder = loaded.settings.store.folder
    if not (folder / FILE).exists():
        raise Failure(text("cli.check_no_journal", folder=folder), EX_REFUSED)
    try:
        descriptor = lock_folder(folder, loaded.path)
    except StartError as error:
        raise Failure(error.sentence, error.exit_code) from None
    try:
        wrong = _verify(folder)
    except StoreError as error:
        raise Failure(text("router.store_untrusted", reason=error), EX_IOERR) from None
    finally:
        os.close(descriptor)
    if as_json:
        echo_json({"wrong": wrong})
    else:
        for sentence in wrong:
            click.echo(text("log.error", sentence=sentence), err=True)
        if not wrong:
            click.echo(text("cli.check_fine"), err=True)
    return EX_REFUSED if wrong else None


def _verify(folder: Path) -> list[str]:
    store = SqliteStore(folder)
    store.open()
    try:
        return store.verify()
    finally:
        store.close()
