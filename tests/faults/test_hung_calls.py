"""What a connector calls may hang: nothing else does, and SIGTERM is obeyed."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from connectors.runtime.bus.ending import SPARE_S
from connectors.runtime.bus.settings import ConnectorSettings
from connectors.runtime.outside import Hung, Outside, hanging
from proto import catalogue
from proto.message import Message
from tests.integration.bus import SMPBUS, RouterProcess
from tests.ports import free_port
from tests.until import until, wait_for

ROOT = Path(__file__).parents[2]
STOP_S = 5.0
SLACK_S = 3.0  # of a busy machine
WAIT_S = 20.0
HANGING = "tests.faults.hanging:HangingConnector"
ROUTES = (
    "[destinations.remd.backoff]\nfirst_ms = 100\nlongest_ms = 200\n"
    "[destinations.hanging.backoff]\nfirst_ms = 100\nlongest_ms = 200\n"
    '[[routes]]\ntype = "call.card.v1"\nto = ["remd"]\n'
    '[[routes]]\ntype = "document.*"\nto = ["remd"]\n'
    '[[routes]]\ntype = "test.*"\nto = ["hanging"]\n'
)
PERMISSIONS = (
    '[peers.producer]\npublish = ["call.*", "test.*"]\n[peers.hanging]\nconsume = ["hanging"]\n'
    '[peers.remd]\nconsume = ["remd"]\npublish = ["document.*"]\n'
)


class Process:
    """A connector's process, its log, and how it ends."""

    def __init__(self, router: RouterProcess, name: str, kind: str, table: str) -> None:
        partner = f'[connectors.{name}.partner]\nurl = "http://127.0.0.1:{free_port()}"\n'
        listen = f'open = true\nlisten = "127.0.0.1:{free_port()}"\n'
        with router.config.open("a") as config:
            config.write(f"[connectors.{name}]\n{listen}{table}{partner}")
        self.log = router.folder / f"{name}.log"
        command = [SMPBUS, "connector", name, "--config", str(router.config), "--kind", kind]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "SMPBUS_LANG": "en"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def wait_for(self, word: str) -> None:
        """Wait for a line of the log."""
        wait_for(lambda: word in self.log.read_text(), f"{word!r} in {self.log}")

    def stop(self) -> tuple[int, float]:
        """SIGTERM; return the exit status and the seconds it took."""
        began = time.monotonic()
        self.process.terminate()
        return self.process.wait(30), time.monotonic() - began


@contextmanager
def at_work(router: RouterProcess, name: str, kind: str = "", table: str = "") -> Iterator[Process]:
    process = Process(router, name, kind or name, table)
    try:
        process.wait_for("connector")
        yield process
    finally:
        process.process.kill()
        process.process.wait(10)


def house() -> RouterProcess:
    return RouterProcess(
        peers=("producer", "hanging", "remd"), routes=ROUTES, permissions=PERMISSIONS
    )


def publish(router: RouterProcess, *bodies: bytes) -> None:
    with router.blocking("producer") as bus:
        for body in bodies:
            bus.publish(bus.message("test.message.v1", body))


@pytest.mark.fault("A12")
@pytest.mark.parametrize("where", ["thread", "loop", "pool"])
def test_sigterm_is_obeyed_whatever_hangs(where: str) -> None:
    """Seen: with a call that hangs SIGTERM was not obeyed in 25 s; the process ends within its
    bound, whether a thread of ours hangs, the loop itself, or a thread of a library."""
    shown = {"partner": {"url": "http://unused"}, "listen": "127.0.0.1:1"}
    assert msgspec.convert(shown, ConnectorSettings).stop_s + SPARE_S <= STOP_S
    table = "stop_s = 0.5\n"
    with house() as router, at_work(router, "hanging", HANGING, table) as it:
        publish(router, where.encode())
        router.wait_until("status", lambda now: now["counters"]["delivered"] >= 1)
        status, seconds = it.stop()
        assert status == 0, it.log.read_text()
        assert seconds < 0.5 + SPARE_S + SLACK_S
        assert "Traceback" not in it.log.read_text()


@pytest.mark.fault("A12")
def test_a_call_that_hangs_is_given_up_told_and_nothing_else_waits() -> None:
    """Seen: the queue behind it stood for ever, without a line; what waits for it is retried, the
    rest of the queue goes on, and operators see it. A plug-in's exit() ends nothing."""
    with house() as router, at_work(router, "hanging", HANGING) as it:
        publish(router, b"thread", b"exit", *[b"quick"] * 5)
        router.wait_until("status", lambda now: now["counters"]["settled"] == 5)
        it.wait_for("device: no answer in 0.3 s")
        answer = router.wait_until(
            "partners",
            lambda now: any(row.get("hanging") for row in now["partners"]),
        )
        (row,) = [row for row in answer["partners"] if row["connector"] == "hanging"]
        assert row["hanging"]["device"] >= 1
        assert it.process.poll() is None
        assert it.log.read_text().count("device: no answer") == 1, "once, not at each try"


@pytest.mark.fault("A12")
def test_a_signer_that_hangs_holds_no_document_for_ever() -> None:
    """Seen: a hung signer stopped the documents' queue until a restart; its call is given up after
    `timeout_s`, said once, and the document is made when the signer is back."""
    table = (
        'client = "client-1"\nreply_to = "http://127.0.0.1/remd"\n'
        '[connectors.remd.document]\narchive_file = "documents.db"\n'
        'organisation = { oid = "1.2.643.5.1.13.13.12.2.99.9999", name = "СМП" }\n'
        "[connectors.remd.document.signer]\ntimeout_s = 0.4\n"
        'use = "tests.faults.hanging:HangingSigner"\nkey_file = "signer.key"\n'
    )
    with house() as router, at_work(router, "remd", table=table) as it:
        with router.blocking("producer") as bus:
            bus.publish(call_card())
        it.wait_for("signer: no answer in 0.4 s")
        trace = router.ask("trace", subject="112-1")
        assert "signer" in str(trace)
        (router.folder / "awake").touch()
        it.wait_for("signer answers again")
        it.wait_for("Unable to complete network request")  # signed: the register is asked


def call_card() -> Message:
    example = catalogue.entry("call.card.v1").example
    return Message.new("call.card.v1", "producer", example, subject="112-1")


@pytest.mark.fault("A12")
def test_calls_that_hang_take_no_more_than_their_places() -> None:
    """A sibling: each try left one more thread behind; those that hang are counted, whoever comes
    meanwhile waits no longer than his time, and all goes on when they return."""

    async def work() -> None:
        gate = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait() -> str:
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
            return "back"

        outside = Outside("device", 0.2, at_once=2)
        tries = [outside.call(wait) for _ in range(6)]
        assert all(
            isinstance(one, Hung) for one in await asyncio.gather(*tries, return_exceptions=True)
        )
        assert hanging() == {"device": 2}
        gate.set()
        await until(lambda: not outside.hanging, "the threads to end")
        assert await outside.call(lambda: "well") == "well"
        with pytest.raises(RuntimeError, match="SystemExit"):
            await outside.call(exit, 3)
        with pytest.raises(ZeroDivisionError):
            await outside.call(lambda: 1 / 0)

    asyncio.run(work())


@pytest.mark.fault("A12")
def test_no_connector_uses_the_pool_that_the_end_of_a_process_waits_for() -> None:
    """The kind: what is called in a thread goes through `connectors.runtime.outside`."""
    # zeep and pymemcache block: each has a pool of its own, and bounded calls.
    pools = {"connectors/runtime/markup/soapclient.py", "connectors/services/lookup/memcached.py"}
    commands = ("connectors/simulators/demo/", "connectors/simulators/drill/")
    found = [
        name
        for path in sorted((ROOT / "connectors").rglob("*.py"))
        if not (name := str(path.relative_to(ROOT))).startswith(commands) and name not in pools
        for word in ("to_thread(", "run_in_executor(", "ThreadPoolExecutor(", "subprocess.")
        if word in path.read_text(encoding="utf-8")
    ]
    assert found == []
