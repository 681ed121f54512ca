"""`smpbus version`: what is installed here."""

import platform
from importlib.metadata import version as installed

import click

from proto.wording import text
from router.commands.option import echo_json, lang, machine


@click.command(help=text("help.version"))
@lang
@machine
def version(as_json: bool) -> None:
    """Print the versions of smpbus and of what it stands on."""
    import apsw
    import zmq

    from proto.frames import PROTOCOL_VERSION

    versions = {
        "version": installed("smpbus"),
        "protocol": PROTOCOL_VERSION,
        "python": platform.python_version(),
        "libzmq": zmq.zmq_version(),
        "sqlite": apsw.sqlite_lib_version(),
    }
    if as_json:
        return echo_json(versions)
    for name, value in versions.items():
        click.echo(f"{'smpbus' if name == 'version' else name} {value}")
