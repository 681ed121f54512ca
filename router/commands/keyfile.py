"""`smpbus keys`: make, list and revoke the keys by which peers are known. No secret is printed."""

import os
import time
from pathlib import Path
from typing import Final

import click

from proto.exits import EX_CANTCREAT, EX_DATAERR, EX_REFUSED, EX_TEMPFAIL
from proto.keys import KeyFileError, KeyPair, load_public
from proto.ops import UNREACHABLE, OpsError, ops_request
from proto.wording import text
from router.commands.group import CommandGroup
from router.commands.option import Failure, common, echo_json, machine
from router.commands.table import print_table
from router.config import load
from router.configcheck import is_name

CONFIRM_S: Final = 5  # the router looks at its keys once a second
LOOK_S: Final = 0.1
keys: Final = CommandGroup(
    "keys",
    help=text("help.keys"),
    commands_at={
        "new": "router.commands.keyfile:new",
        "list": "router.commands.keyfile:list_keys",
        "revoke": "router.commands.keyfile:revoke",
    },
)
_folder = click.option(
    "--dir", "folder", type=click.Path(path_type=Path), metavar="FOLDER", help=text("help.opt_dir")
)


@click.command(help=text("help.keys_new"))
@click.argument("name")
@_folder
@common
@machine
def new(name: str, folder: Path | None, path: Path | None, as_json: bool) -> None:
    """Write NAME.key and NAME.pub, refusing to replace a key that is in force."""
    if not is_name(name):
        raise Failure(text("cli.key_bad_name", name=name), EX_DATAERR)
    folder = _folder_of(folder, path)
    pair = KeyPair.new()
    try:
        _lay_revoked_aside(folder, name)
        secret = pair.save(folder, name)
    except FileExistsError as error:
        raise Failure(text("cli.key_exists", file=error.filename), EX_CANTCREAT) from None
    except OSError as error:
        raise _cannot(folder, error) from None
    if as_json:
        made = {"name": name, "key": str(secret), "pub": str(folder / f"{name}.pub")}
        return echo_json({**made, "public": pair.public.decode()})
    click.echo(text("cli.key_made", name=name), err=True)
    click.echo(text("cli.key_secret", file=secret), err=True)
    click.echo(text("cli.key_public", file=folder / f"{name}.pub"), err=True)
    click.echo(pair.public.decode())


@click.command("list", help=text("help.keys_list"))
@_folder
@common
@machine
def list_keys(folder: Path | None, path: Path | None, as_json: bool) -> None:
    """Show whose keys are in force and whose are revoked."""
    folder = _folder_of(folder, path)
    rows = [_row(file) for file in sorted(folder.glob("*")) if file.suffix in (".pub", ".revoked")]
    rows = [row for row in rows if not row["name"].endswith(".key")]
    if as_json:
        return echo_json({"folder": str(folder), "keys": rows})
    header = [text(f"cli.key_{word}") for word in ("name", "state", "pub")]
    print_table(
        header, [[row["name"], text(f"cli.key_{row['state']}"), row["public"]] for row in rows]
    )


@click.command(help=text("help.keys_revoke"))
@click.argument("name")
@_folder
@common
def revoke(name: str, folder: Path | None, path: Path | None) -> None:
    """Rename NAME.pub to NAME.revoked, and see that the router admits the key no more."""
    asked = folder is None or path is not None
    folder = _folder_of(folder, path)
    try:
        os.replace(folder / f"{name}.pub", folder / f"{name}.revoked")
    except FileNotFoundError:
        raise Failure(text("cli.key_unknown", name=name, folder=folder), EX_REFUSED) from None
    except OSError as error:
        raise _cannot(folder, error) from None
    for twin in _twins(folder, name):
        sentence = text("cli.key_twin", name=name, file=twin)
        click.echo(text("log.warning", sentence=sentence), err=True)
    if asked:
        _confirm(name, folder, path)
    else:
        click.echo(text("cli.key_not_asked", name=name), err=True)


def _confirm(name: str, folder: Path, path: Path | None) -> None:
    """Say what the router makes of it. Raises Failure when the key or its session is still there,
    or the router cannot be asked although it runs."""
    loaded = load(path, whole=False)
    if loaded.settings.bus.keys_dir.absolute() != folder:
        return click.echo(text("cli.key_not_asked", name=name), err=True)
    until = time.monotonic() + CONFIRM_S
    try:
        while not _is_gone(loaded.settings.ops.listen, name):
            if time.monotonic() > until:
                raise Failure(text("cli.key_still", name=name, seconds=CONFIRM_S), EX_TEMPFAIL)
            time.sleep(LOOK_S)
    except OpsError as error:
        if error.code == UNREACHABLE:
            return click.echo(text("cli.key_not_asked", name=name), err=True)
        sentence = text("cli.key_unconfirmed", name=name, reason=error.sentence)
        raise Failure(sentence, EX_TEMPFAIL) from None
    click.echo(text("cli.key_was_revoked", name=name), err=True)


def _is_gone(ops: str, name: str) -> bool:
    if name in ops_request(ops, "status").get("keys", {}).get("admitted", ()):
        return False
    return all(row["name"] != name for row in ops_request(ops, "sessions")["sessions"])


def _twins(folder: Path, name: str) -> list[Path]:
    """Return the files by which the key that was revoked still admits somebody."""
    gone = _row(folder / f"{name}.revoked")["public"]
    return [one for one in sorted(folder.glob("*.pub")) if gone and _row(one)["public"] == gone]


def _folder_of(folder: Path | None, path: Path | None) -> Path:
    return folder.absolute() if folder else load(path, whole=False).settings.bus.keys_dir


def _lay_revoked_aside(folder: Path, name: str) -> None:
    """Make room for a new pair when the old one is revoked; its secret is kept beside."""
    secret, public = folder / f"{name}.key", folder / f"{name}.pub"
    if secret.exists() and not public.exists() and (folder / f"{name}.revoked").exists():
        os.replace(secret, folder / f"{name}.key.revoked")
    elif public.exists():
        raise FileExistsError(0, "", str(public))


def _row(file: Path) -> dict[str, str]:
    try:
        public = load_public(file).decode()
    except KeyFileError:
        return {"name": file.stem, "state": "broken", "public": ""}
    state = "active" if file.suffix == ".pub" else "revoked"
    return {"name": file.stem, "state": state, "public": public}


def _cannot(folder: Path, error: OSError) -> Failure:
    return Failure(text("cli.key_cannot", folder=folder, reason=error.strerror), EX_CANTCREAT)
