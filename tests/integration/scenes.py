"""What clients in other languages are driven through against a real router, the same for each.

A client is a script, tests/php/talk.php or tests/node/talk.mjs: it tells each step as a JSON line.
"""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proto import BusClient, KeyPair, Message, RequestFailed
from tests.integration.bus import RouterProcess

TESTS = Path(__file__).parents[1]
SCRIPTS = {"php": TESTS / "php" / "talk.php", "node": TESTS / "node" / "talk.mjs"}
MISSING = "is not installed: run make test, which installs what the tests need"
ROUTES = (
    "[destinations.inbox]\n[destinations.inbox.backoff]\nfirst_ms = 50\n"
    "[destinations.python]\n[destinations.nobody]\n[destinations.secret]\n"
    "[destinations.small]\nopen_max = 4\nemergency_percent = 0\nsender_percent = 100\n"
    '[[routes]]\ntype = "test.*"\nto = ["inbox"]\n'
    '[[routes]]\ntype = "small.*"\nto = ["small"]\nbody_bytes_max = 1000\n'
    '[[routes]]\ntype = "secret.*"\nto = ["secret"]\n'
)
PERMISSIONS = (
    '[peers.vendor]\npublish = ["test.*", "small.*"]\nconsume = ["inbox"{more}]\n'
    'serve = ["inbox"]\nask = ["python", "nobody"]\n'
    '[peers.python]\npublish = ["test.*", "secret.*"]\nconsume = ["python", "small"]\n'
    'serve = ["python"]\nask = ["inbox"]\n'
)
BUS = "session_timeout_ms = 1000\nframe_bytes_max = 2097152"
PATIENCE_S = 30.0


class Peer:
    """A client in another language at work: what it told, step by step, and leave to go on."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def told(self, what: str) -> dict[str, Any]:
        """The next step, which is to be this one; without its name."""
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE_S)
        step = json.loads(line) if line else {"what": f"its end: {await self._error()}"}
        assert step.pop("what") == what, step
        return dict(step)

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def ended(self) -> None:
        """Wait for its end, which is to be a good one."""
        said = await self._error()
        assert (await asyncio.wait_for(self._process.wait(), PATIENCE_S), said) == (0, "")

    async def _error(self) -> str:
        assert self._process.stderr is not None
        return (await asyncio.wait_for(self._process.stderr.read(), PATIENCE_S)).decode()


Scene = Callable[[Peer, BusClient], Awaitable[None]]


@contextmanager
def router_of(**options: Any) -> Iterator[RouterProcess]:
    permissions = PERMISSIONS.format(more="")
    with RouterProcess(
        peers=("vendor", "python"), routes=ROUTES, permissions=permissions, bus=BUS, **options
    ) as router:
        yield router


async def _play(router: RouterProcess, language: str, scenario: str, scene: Scene) -> None:
    program = shutil.which(language)
    assert program, f"{language} {MISSING}"
    process = await asyncio.create_subprocess_exec(
        program, str(SCRIPTS[language]), router.address, str(router.keys), scenario,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        async with router.client("python") as bus:
            peer = Peer(process)
            await scene(peer, bus)
            await peer.ended()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def play(router: RouterProcess, language: str, scenario: str, scene: Scene) -> None:
    """Run a scenario of the client against what Python does meanwhile."""
    asyncio.run(_play(router, language, scenario, scene))


async def one_more(question: Message) -> dict[str, int]:
    """Answer a question; what is no number makes it fail."""
    body: Any = question.json()
    return {"n": body["n"] + 1}


class Scenes:
    """What any client does; `language` says which one."""

    language: str

    def test_publishes_consumes_asks_answers_and_leaves(self) -> None:
        async def scene(peer: Peer, bus: BusClient) -> None:
            bus.serve("python", one_more)
            own = bus.message("test.message.v1", {"text": "от Python"}, id="python-1")
            assert (await peer.told("published")) == {
                "refused": [None, None, None, "not_permitted"]
            }
            assert (await peer.told("refused")) == {"code": "not_permitted", "later": None}
            await bus.publish(own)
            delivered = [await peer.told("delivered") for _ in range(5)]
            first = delivered[0]
            assert (first["id"], first["attempt"]) == ("vendor-0", 1)
            again = next(one for one in delivered[1:] if one["id"] == "vendor-0")
            assert again["attempt"] == 2
            assert again["key"] == first["key"], "the idempotency key is the same at every attempt"
            assert len({one["key"] for one in delivered}) == 4
            bodies = [one["body"] for one in delivered if one["source"] == "vendor"]
            assert bodies == [{"status": s} for s in ("принят", "принят", "назначен", "завершён")]
            assert {"text": "от Python"} in [one["body"] for one in delivered]
            assert (await peer.told("answered")) == {"body": {"n": 21}}
            assert (await peer.told("failed")) == {"code": "no_consumer"}
            assert (await peer.told("failed")) == {"code": "failed"}
            await peer.told("serving")
            reply = await bus.request(
                "inbox", bus.message("test.question.v1", {"n": 41}), timeout_s=10
            )
            assert json.loads(reply.body) == {"n": 42}
            with pytest.raises(RequestFailed) as caught:
                await bus.request("inbox", bus.message("test.question.v1", {"n": -1}), timeout_s=10)
            assert caught.value.code == "failed"
            assert "personal" not in caught.value.sentence
            await peer.told("bye")

        with router_of() as router:
            play(router, self.language, "talk", scene)
            status = router.wait_until("status", lambda s: not s["open"])
            (inbox,) = (row for row in status["queues"] if row["destination"] == "inbox")
            assert (inbox["settled"], inbox["dead"]) == (3, 1)
            assert status["counters"]["retried"] == 1
            trace = json.dumps(router.ask("trace", subject="112-4711"))
            assert all(note in trace for note in ("later", "of no use", "HTTP 200"))

    def test_what_is_refused_for_now_is_said_again_in_order(self) -> None:
        async def scene(peer: Peer, bus: BusClient) -> None:
            await peer.told("publishing")
            taken: list[int] = []
            async for delivery in bus.consume("small", credit=1):
                taken.append(json.loads(delivery.message.body)["n"])
                delivery.ack()
                if len(taken) == 6:
                    break
            assert taken == [0, 1, 2, 3, 4, 5]
            assert (await peer.told("published")) == {"refused": [None] * 6}
            assert (await peer.told("large")) == {"refused": ["body_too_large"] * 2}
            assert (await peer.told("frame")) == {"refused": "body_too_large"}

        with router_of() as router:
            play(router, self.language, "full", scene)
            assert router.ask("status")["counters"]["refused"] > 0

    def test_nothing_is_lost_or_doubled_when_the_router_dies(self) -> None:
        with router_of() as router:

            async def restart() -> None:
                router.kill()
                await asyncio.to_thread(router.start)

            async def scene(peer: Peer, bus: BusClient) -> None:
                for n in range(30):
                    assert (await peer.told("published")) == {"n": n}
                    if n == 9:
                        await restart()
                await peer.told("holding")
                await restart()
                peer.go_on()
                seen = (await peer.told("consumed"))["seen"]
                assert list(dict.fromkeys(seen)) == list(range(30)), "each, in order"

            play(router, self.language, "outage", scene)
            status = router.wait_until("status", lambda s: not s["open"])
            (inbox,) = (row for row in status["queues"] if row["destination"] == "inbox")
            assert inbox["settled"] == 30

    def test_slow_work_keeps_its_delivery(self) -> None:
        async def scene(peer: Peer, bus: BusClient) -> None:
            await bus.publish(bus.message("test.message.v1", {}))
            assert (await peer.told("holding")) == {"attempt": 1}
            await asyncio.sleep(1.5)  # longer than a session may be silent
            peer.go_on()
            await peer.told("done")

        with router_of() as router:
            play(router, self.language, "slow", scene)
            status = router.wait_until("status", lambda s: not s["open"])
            assert status["counters"]["retried"] == 0
            assert status["counters"]["delivered"] == 1

    def test_a_queue_that_is_not_given_is_waited_for(self) -> None:
        async def scene(peer: Peer, bus: BusClient) -> None:
            await bus.publish(bus.message("secret.message.v1", {"n": 1}))
            assert (await peer.told("error")) == {"code": "not_permitted", "verb": "CREDIT"}
            more = PERMISSIONS.format(more=', "secret"')
            (router.folder / "permissions.toml").write_text(more)
            await asyncio.to_thread(router.ask, "reload")
            assert (await peer.told("delivered")) == {"body": {"n": 1}}

        with router_of() as router:
            play(router, self.language, "unwelcome", scene)

    def test_an_unknown_key_is_told(self) -> None:
        async def scene(peer: Peer, bus: BusClient) -> None:
            assert (await peer.told("stranger"))["code"] in ("not_connected", "unknown_name")

        with router_of() as router:
            KeyPair.new().save(router.folder / "elsewhere", "vendor")
            play(router, self.language, "stranger", scene)
