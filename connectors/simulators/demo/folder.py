"""The demo's folder: its own configuration, keys, journal and logs; nothing outside is touched.

Only a folder that carries the marker is ever emptied. The marker remembers the ports and is
locked while a demo runs there.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import msgspec

from connectors.simulators.ats import SECRET as AMI_SECRET
from connectors.simulators.ats import USER as AMI_USER
from connectors.simulators.demo.callers import make_callers
from connectors.simulators.demo.signing import SIGNING_CERTIFICATE, SIGNING_KEY, make_signer
from proto.configuration.shipped import shipped_folder
from proto.exits import EX_CANTCREAT, EX_TEMPFAIL, StartError
from proto.keys import KeyPair
from proto.wording import language, text

MARKER: Final = ".smpbus-demo"
PARTNERS: Final = ("sys112", "smp", "ats", "rmis", "remd", "vimis", "tfoms", "rmr")
LISTENERS: Final = ("sys112", "smp", "rmis", "remd", "vimis", "tfoms", "rmr")
PORTS: Final = ("pages", "ami", *LISTENERS, *(f"sim-{name}" for name in PARTNERS))
PEERS: Final = ("router", *PARTNERS, "admin")
TARIFF: Final = '\n[[tariffs]]\nsince = 2026-01-01\nsum = "3512.40"\n'
OID: Final = "1.2.643.5.1.13.13.12.2.99.9999"  # of nobody
# A path of a Unix socket ends at 107 bytes; supervisor adds ".PID" to its own while it starts.
_SOCKET_BYTES_MAX: Final = 107 - len("/supervisor.sock.4194304")


class Memory(msgspec.Struct):
    """What the marker remembers from one run to the next."""

    ports: dict[str, int] = {}
    runs: int = 0


@dataclass
class DemoFolder:
    """An opened demo folder; `run` holds the sockets and may lie elsewhere."""

    path: Path
    run: Path
    memory: Memory
    _marker: IO[str]

    @property
    def config(self) -> Path:
        """The folder of smpbus.toml."""
        return self.path / "config"

    @property
    def settings(self) -> Path:
        """smpbus.toml itself."""
        return self.config / "smpbus.toml"

    @property
    def tables(self) -> Path:
        """The tables of registers, with a tariff for the demo."""
        return self.config / "tfoms.toml"

    @property
    def logs(self) -> Path:
        """A log file per program."""
        return self.path / "logs"

    @property
    def ops(self) -> str:
        """The address of the router's ops socket."""
        return f"ipc://{self.run}/ops.sock"

    @property
    def ami(self) -> str:
        """The address of the simulated exchange."""
        return f"tcp://127.0.0.1:{self.memory.ports['ami']}"

    def url(self, name: str) -> str:
        """Return the base URL of what listens on the port called `name`."""
        return f"http://127.0.0.1:{self.memory.ports[name]}"

    def empty(self) -> None:
        """Remove everything but the marker, and count runs from the first again."""
        self.memory.runs = 0
        for entry in self.path.iterdir():
            if entry.name == MARKER:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def prepare(self) -> None:
        """Write configuration and keys; keys and ports that are there already are kept."""
        for folder in (self.config, self.path / "keys", self.path / "store", self.logs):
            folder.mkdir(mode=0o700, exist_ok=True)
        _make_run(self.run)
        self.memory.ports = free_ports(self.memory.ports)
        self.memory.runs += 1
        self._marker.seek(0)
        self._marker.truncate()
        self._marker.write(msgspec.json.encode(self.memory).decode() + "\n")
        self._marker.flush()
        for name in PEERS:
            if not (self.path / "keys" / f"{name}.key").exists():
                KeyPair.new().save(self.path / "keys", name)
        if not (self.path / "keys" / SIGNING_KEY).exists():
            make_signer(self.path / "keys")
        for name in ("routes.toml", "permissions.toml"):
            shutil.copyfile(shipped_folder() / name, self.config / name)
        tables = (shipped_folder() / "tfoms.toml").read_text(encoding="utf-8")
        self.tables.write_text(tables + TARIFF, encoding="utf-8")
        self.settings.write_text(self._smpbus_toml(), encoding="utf-8")
        password = self.config / "ats.password"
        password.touch(mode=0o600)
        password.write_text(f"{AMI_USER}:{AMI_SECRET}\n", encoding="utf-8")

    def close(self) -> None:
        """Let go of the folder; sockets outside of it are removed."""
        if self.run.parent != self.path:
            shutil.rmtree(self.run, ignore_errors=True)
        self._marker.close()

    def _document(self, name: str) -> str:
        """Return the table of whoever makes documents."""
        return f"""
[connectors.{name}.document]
organisation = {_organisation()}
archive_file = {_quoted(self.path / f"{name}.db")}

[connectors.{name}.document.signer]
key_file = {_quoted(self.path / "keys" / SIGNING_KEY)}
certificate_file = {_quoted(self.path / "keys" / SIGNING_CERTIFICATE)}
"""

    def _smpbus_toml(self) -> str:
        return f"""# {text("demo.settings_head")}

[bus]
listen = [{_quoted(f"ipc://{self.run}/bus.sock")}]
keys_dir = {_quoted(self.path / "keys")}
ipc_mode = "0600"

[ops]
listen = {_quoted(self.ops)}
events = {_quoted(f"ipc://{self.run}/events.sock")}
http = "127.0.0.1:{self.memory.ports["pages"]}"

[store]
folder = {_quoted(self.path / "store")}

[log]
language = "{language()}"

{self._calls()}{self._federal()}{self._registers()}{make_callers(self.path, LISTENERS)}"""

    def _calls(self) -> str:
        """Return the tables of those who bring, lead and take a call."""
        return f"""
[connectors.sys112]
listen = "127.0.0.1:{self.memory.ports["sys112"]}"
state_file = {_quoted(self.path / "sys112.db")}

[connectors.sys112.partner]
url = "{self.url("sim-sys112")}"
system = {_quoted(text("demo.system_sys112"))}

[connectors.smp]
listen = "127.0.0.1:{self.memory.ports["smp"]}"

[connectors.smp.partner]
url = "{self.url("sim-smp")}"
system = {_quoted(text("demo.system_smp"))}

[connectors.ats]
live_calls_file = {_quoted(self.path / "ats.calls")}
statistics_s = 10.0

[connectors.ats.partner]
url = "{self.ami}"
system = {_quoted(text("demo.system_ats"))}
credentials_file = {_quoted(self.config / "ats.password")}

[connectors.rmis]
listen = "127.0.0.1:{self.memory.ports["rmis"]}"
state_file = {_quoted(self.path / "rmis.db")}
poll_s = 1.0

[connectors.rmis.partner]
url = "{self.url("sim-rmis")}"
system = {_quoted(text("demo.system_rmis"))}
"""

    def _federal(self) -> str:
        """Return the tables of those who register documents."""
        return f"""
[connectors.remd]
listen = "127.0.0.1:{self.memory.ports["remd"]}"
reply_to = "{self.url("remd")}/remd"
client = "demo"

[connectors.remd.partner]
url = "{self.url("sim-remd")}/emdr"
system = {_quoted(text("demo.system_remd"))}
{self._document("remd")}
[connectors.vimis]
listen = "127.0.0.1:{self.memory.ports["vimis"]}"

[connectors.vimis.partner]
url = "{self.url("sim-vimis")}/receiver"
system = {_quoted(text("demo.system_vimis"))}
{self._document("vimis")}"""

    def _registers(self) -> str:
        """Return the tables of those who know policies and workers."""
        return f"""
[connectors.tfoms]
listen = "127.0.0.1:{self.memory.ports["tfoms"]}"
store_file = {_quoted(self.path / "cards.db")}

[connectors.tfoms.partner]
url = "{self.url("sim-tfoms")}"
system = {_quoted(text("demo.system_tfoms"))}

[connectors.rmr]
listen = "127.0.0.1:{self.memory.ports["rmr"]}"
state_file = {_quoted(self.path / "rmr.db")}

[connectors.rmr.partner]
url = "{self.url("sim-rmr")}"
system = {_quoted(text("demo.system_rmr"))}
"""


def _organisation() -> str:
    return f'{{ oid = "{OID}", name = {_quoted(text("demo.station"))} }}'


def open_folder(path: Path) -> DemoFolder:
    """Open or make the demo folder and lock it. Raises StartError."""
    path = path.absolute()
    try:
        if path.exists() and not (path / MARKER).exists() and any(path.iterdir()):
            raise StartError(text("demo.foreign_folder", folder=path), EX_CANTCREAT)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        marker = (path / MARKER).open("a+", encoding="utf-8")
    except OSError as error:
        sentence = text("demo.no_folder", folder=path, reason=error.strerror)
        raise StartError(sentence, EX_CANTCREAT) from None
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        marker.close()
        raise StartError(text("demo.already_runs", folder=path), EX_TEMPFAIL) from None
    marker.seek(0)
    try:
        memory = msgspec.json.decode(marker.read() or "{}", type=Memory)
    except msgspec.DecodeError:
        memory = Memory()
    return DemoFolder(path, run_folder(path), memory, marker)


def run_folder(path: Path) -> Path:
    """Return where the sockets of a demo folder live: inside, or in /tmp when the path is long."""
    inside = path / "run"
    if len(os.fsencode(inside)) <= _SOCKET_BYTES_MAX:
        return inside
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    return Path(f"/tmp/smpbus-{os.getuid()}-{digest}")


def _make_run(run: Path) -> None:
    """Make the socket folder. In /tmp anybody may have made it before us: then refuse."""
    run.mkdir(mode=0o700, exist_ok=True)
    found = run.lstat()
    if run.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StartError(text("demo.foreign_run", folder=run), EX_CANTCREAT)


def free_ports(wished: dict[str, int]) -> dict[str, int]:
    """Return a free loopback port for each of PORTS, the wished one where it is free."""
    with ExitStack() as held:
        return {name: _free_port(wished.get(name, 0), held) for name in PORTS}


def _free_port(wished: int, held: ExitStack) -> int:
    for port in (wished, 0):
        channel = held.enter_context(socket.socket())
        # As the servers do: a port whose last connections still linger is free for them.
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            channel.bind(("127.0.0.1", port))
        except OSError:
            continue
        channel.listen()
        return int(channel.getsockname()[1])
    raise StartError(text("demo.no_port"), EX_TEMPFAIL)


def _quoted(value: object) -> str:
    return json.dumps(str(value), ensure_ascii=False)
