"""Who may look and who may change at the operator's socket: by what the kernel says of him."""

import asyncio
import grp
import json
import os
import pwd
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import zmq

from proto.ops import FORBIDDEN, OpsError, ops_request
from router.commands.option import failure_of
from router.config import ConfigError, load
from router.settings import OpsSettings
from router.shell import operators
from router.shell.operators import CHANGES, LOOKS, Operators, look_up
from router.shell.ops import OpsError as Refused
from tests.integration.bus import SMPBUS, RouterProcess

LOOKING, CHANGING, STRANGER = "bin", "games", "daemon"  # users of every Debian that run nothing
ARGUMENTS: dict[str, dict[str, object]] = {
    "hold": {"destination": "sink", "reason": "test"},
    "release": {"destination": "sink"},
    "try_now": {"destination": "sink"},
    "replay": {"reason": "test"},
    "drop": {"reason": "test"},
    "trace": {"subject": "call-1"},
}


def ask_as(user: str, router: RouterProcess, *commands: str) -> dict[str, str]:
    """Ask as another user of this machine; return the code that each command was answered with."""
    account = pwd.getpwnam(user)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
        codes = {name: code_of(router, name) for name in commands}
        os.write(writing, json.dumps(codes).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        answer = told.read()
    os.waitpid(child, 0)
    return dict(json.loads(answer))


def code_of(router: RouterProcess, command: str) -> str:
    try:
        ops_request(router.ops, command, 20.0, **ARGUMENTS.get(command, {}))
    except OpsError as error:
        return error.code
    return "ok"


def operated(ops: str) -> RouterProcess:
    """Return a router whose socket every user may open."""
    router = RouterProcess()
    router.folder.chmod(0o711)
    text = router.config.read_text(encoding="utf-8")
    router.config.write_text(text.replace("[ops]\n", f'[ops]\nipc_mode = "0666"\n{ops}\n'))
    return router


@pytest.mark.fault("S13")
def test_a_user_may_look_or_change_as_the_settings_say() -> None:
    """Whoever could open the socket could drop dead letters and hold queues back: now a user that
    is not named gets nothing at all, one that may look changes nothing, and each is told so."""
    group = grp.getgrgid(pwd.getpwnam(CHANGING).pw_gid).gr_name
    ops = f'look = ["{LOOKING}"]\nchange = ["@{group}"]'
    with operated(ops) as router:
        own = {name: code_of(router, name) for name in sorted(LOOKS | CHANGES)}
        assert set(own.values()) == {"ok"}
        if os.geteuid() != 0:
            return  # only root can be somebody else: the roles by themselves are tried below
        every = (*LOOKS, *CHANGES, "nothing")
        assert ask_as(STRANGER, router, *every) == dict.fromkeys(every, FORBIDDEN)
        assert ask_as("nobody", router, *every) == dict.fromkeys(every, FORBIDDEN)
        looked = ask_as(LOOKING, router, *every)
        assert looked.pop("nothing") == "unknown_command"
        assert looked == dict.fromkeys(LOOKS, "ok") | dict.fromkeys(CHANGES, FORBIDDEN)
        changed = ask_as(CHANGING, router, *every)
        assert changed.pop("nothing") == "unknown_command"
        assert changed == dict.fromkeys(LOOKS | CHANGES, "ok")
        log = router.log.read_text(encoding="utf-8")
        assert f"команда drop: {CHANGING} (uid {pwd.getpwnam(CHANGING).pw_uid})" in log
        assert log.count(f"отказано оператору {STRANGER}") == 1  # not a line for each

        # A role that is taken away is gone with the next reload.
        text = router.config.read_text(encoding="utf-8")
        router.config.write_text(text.replace(f'look = ["{LOOKING}"]', "look = []"))
        router.ask("reload")
        assert ask_as(LOOKING, router, "status") == {"status": FORBIDDEN}


@pytest.mark.fault("S13")
def test_the_command_line_says_no_permission() -> None:
    """One sentence and status 77, as where the file of the socket may not be opened."""
    with operated("look = []\nchange = []") as router:
        refused = OpsError(FORBIDDEN, "somebody (uid 7) may only look")
        ended = subprocess.run(
            [SMPBUS, "status", "--config", str(router.config)],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert ended.returncode == 0
        failure = failure_of(refused, load(router.config), "ops.listen", router.ops)
    assert failure.exit_code == 77
    assert "somebody (uid 7)" in failure.message


@pytest.mark.fault("S13")
def test_every_command_has_its_role() -> None:
    """One table: what is forgotten there may only be asked by those who may change."""
    with RouterProcess() as router:
        with pytest.raises(OpsError) as refused:
            router.ask("nothing")
        assert refused.value.code == "unknown_command"
        known = set(refused.value.sentence.rpartition(": ")[2].split(", "))
    assert known == LOOKS | CHANGES
    assert not LOOKS & CHANGES


def frame_of(address: object) -> zmq.Frame:
    """Return a frame of which libzmq tells this of its sender."""

    def get(name: str) -> object:
        assert name == "Peer-Address"
        if isinstance(address, Exception):
            raise address
        return address

    return cast("zmq.Frame", SimpleNamespace(get=get))


@pytest.mark.fault("S13")
def test_who_cannot_be_told_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Siblings: in a name space of users the kernel calls everybody from outside by one number, and
    of a port it tells no user; neither may be taken for somebody. A keeper of accounts that hangs
    gives no right either, and holds up nobody else."""
    settings = OpsSettings(look=("@nogroup", "nobody", "4294967294"), change=("nobody",))
    overflow = Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii").strip()

    async def refused(known: Operators, address: object) -> bool:
        try:
            await known.admit("status", frame_of(address))
        except Refused as error:
            return error.code == FORBIDDEN
        return False

    async def act() -> None:
        known = Operators(lambda: settings)
        try:
            for address in (
                "127.0.0.1", "::1", "", zmq.ZMQError(), f"localhost:{overflow}:{overflow}:1",
                "localhost:-1:0:1", "localhost:x:0:1",
            ):  # fmt: skip
                assert await refused(known, address), address
            assert not await refused(known, f"localhost:{os.geteuid()}:0:1")
        finally:
            known.close()

        monkeypatch.setattr(operators, "LOOK_UP_S", 0.05)

        def slowly(uid: int, gid: int) -> Any:
            time.sleep(1)
            return look_up(uid, gid)

        monkeypatch.setattr(operators, "look_up", slowly)
        slow = Operators(lambda: OpsSettings(look=(LOOKING,)))
        try:
            assert await refused(slow, f"localhost:{pwd.getpwnam(LOOKING).pw_uid}:2:1")
            assert not await refused(slow, "localhost:0:0:1")  # root needs no account
        finally:
            slow.close()

    asyncio.run(act())


@pytest.mark.fault("S13")
def test_who_asks_is_known_to_the_command() -> None:
    """What carries a command out knows whose it is, and not by the asker's word."""

    async def act() -> Any:
        known = Operators(OpsSettings)
        try:
            await known.admit("drop", frame_of("localhost:0:0:1"))
        finally:
            known.close()
        return operators.asking.get()

    assert asyncio.run(act()) == (0, "root")


@pytest.mark.fault("S13")
@pytest.mark.parametrize("entry", ["", "@", "a b", "*", "1000"])
def test_a_role_is_for_a_name(tmp_path: Path, entry: str) -> None:
    """A star or a number reads as everybody or anybody, and would be nobody."""
    for name in ("routes", "permissions"):
        (tmp_path / f"{name}.toml").write_text("", encoding="utf-8")
    (tmp_path / "smpbus.toml").write_text(f'[ops]\nchange = ["{entry}"]\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"ops\.change"):
        load(tmp_path, environ={})
