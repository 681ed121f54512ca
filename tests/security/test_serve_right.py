"""Who hears questions: whoever may answer them and says so, and nobody who only reads the queue."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from proto import Message, frames
from proto.client import BusClient
from proto.errors import RequestFailed
from router.config import load
from router.core.permission import Rights
from router.settings import Permission
from tests.faults.lives import Lives, message, settings
from tests.integration.bus import RouterProcess

QUESTIONS = 20
PERMISSIONS = (
    '[peers.asker]\nask = ["rmis", "sink"]\n'
    '[peers.rmis]\nconsume = ["rmis", "sink"]\n'
    '[peers.monitor]\nconsume = ["rmis", "sink"]\n'
)
ROUTES = '[destinations.rmis]\n[destinations.sink]\n[[routes]]\ntype = "test.*"\nto = ["sink"]\n'


def question(number: int) -> Message:
    return Message.new("person.search.v1", source="asker", body=b"%d" % number)


class Answering:
    """A client that answers as itself, and counts what it was asked."""

    def __init__(self, bus: BusClient) -> None:
        self.bus = bus
        self.asked = 0

    async def answer(self, message: Message) -> object:
        self.asked += 1
        return self.bus.name


async def ask_all(asker: BusClient, destination: str) -> set[bytes]:
    """Return what differing answers there are to a score of questions."""
    answers = [
        await asker.request(destination, question(number), timeout_s=10)
        for number in range(QUESTIONS)
    ]
    return {answer.body for answer in answers}


@pytest.mark.fault("S8")
def test_who_only_reads_a_queue_is_not_asked() -> None:
    """A monitor with `consume` on the hospitals' queue was asked every second question about a
    patient, and its invented answers were taken."""
    asyncio.run(_readers_and_servers())


async def _readers_and_servers() -> None:
    peers = ("asker", "rmis", "monitor")
    with RouterProcess(peers=peers, routes=ROUTES, permissions=PERMISSIONS) as router:
        async with (
            router.client("asker") as asker,
            router.client("rmis") as rmis,
            router.client("monitor") as monitor,
        ):
            honest, curious = Answering(rmis), Answering(monitor)
            monitor.serve("rmis", curious.answer)
            monitor.consume("sink")
            await until_served(router, "monitor", "rmis")
            with pytest.raises(RequestFailed, match="no right") as refused:
                await asker.request("rmis", question(0))
            assert refused.value.code == "no_consumer"
            rmis.serve("rmis", honest.answer)
            await until_served(router, "rmis", "rmis")
            assert await ask_all(asker, "rmis") == {b'"rmis"'}
            assert (honest.asked, curious.asked) == (QUESTIONS, 0)

            # A right that is given counts from the reload on, and one that is taken away.
            file = router.folder / "permissions.toml"
            file.write_text(PERMISSIONS + 'serve = ["rmis"]\n')
            router.ask("reload")
            assert await ask_all(asker, "rmis") == {b'"rmis"', b'"monitor"'}
            file.write_text(PERMISSIONS)
            router.ask("reload")
            assert await ask_all(asker, "rmis") == {b'"rmis"'}


async def until_served(router: RouterProcess, name: str, destination: str) -> None:
    """Wait until the router has heard that a session serves a destination."""

    def heard(status: dict[str, object]) -> bool:
        sessions = status["sessions"]
        assert isinstance(sessions, list)
        return any(one["name"] == name and destination in one["serves"] for one in sessions)

    await asyncio.to_thread(router.wait_until, "sessions", heard)


@pytest.mark.fault("S8")
def test_a_session_is_asked_after_it_has_said_that_it_serves() -> None:
    """Sibling: with one name two processes, one that works off the queue and one that answers: half
    of the questions went to the one that answers none."""
    asyncio.run(_one_name_twice())


async def _one_name_twice() -> None:
    permissions = PERMISSIONS + '[peers.worker]\nconsume = ["sink"]\nserve = ["sink"]\n'
    peers = ("asker", "rmis", "monitor", "worker")
    with RouterProcess(peers=peers, routes=ROUTES, permissions=permissions) as router:
        async with (
            router.client("asker") as asker,
            router.client("worker") as reading,
            router.client("worker") as serving,
        ):
            reading.consume("sink", credit=5)
            answering = Answering(serving)
            consumer = serving.consume("sink", credit=5)
            serving.serve("sink", answering.answer)  # said after the credit
            await until_served(router, "worker", "sink")
            assert await ask_all(asker, "sink") == {b'"worker"'}
            consumer.close()  # takes no more of the queue, and answers on
            assert await ask_all(asker, "sink") == {b'"worker"'}
            assert answering.asked == 2 * QUESTIONS


@pytest.mark.fault("S8")
def test_a_peer_of_before_is_asked_by_its_right(tmp_path: Path) -> None:
    """What a peer says that does not know of the word is its credit, as ever: with the right it is
    asked, while nobody says that it serves; a window alone gives no right."""
    may, monitor = Permission(consume=["sink"], serve=["sink"]), Permission(consume=["sink"])
    config = settings()
    people = {**config.permissions, "old": may, "new": may, "monitor": monitor}
    lives = Lives(tmp_path, replace(config, permissions=people))
    try:
        assert asked_of(lives, monitor=None) == set()
        assert asked_of(lives, monitor=True) == set()
        assert asked_of(lives, monitor=None, old=None) == {"old"}
        assert asked_of(lives, monitor=True, old=None, new=False) == {"old"}
        assert asked_of(lives, monitor=True, old=None, new=True) == {"new"}
    finally:
        lives.close()


def asked_of(lives: Lives, **words: bool | None) -> set[str]:
    """Let these names say their credit and whether they serve; return who is asked."""
    for name, serves in words.items():
        lives.greet(name.encode(), name)
        lives.hear(name.encode(), frames.CREDIT, frames.Credit("sink", 1, serves))
    for number in range(1, QUESTIONS):
        asked = frames.Request(number, "sink", 1_000, message(f"q{number}"))
        lives.hear(b"p", frames.REQUEST, asked)
    heard = {name: lives.answers(name.encode()) for name in words}
    for name in words:
        lives.hear(name.encode(), frames.BYE, frames.Bye())
    return {
        name for name, told in heard.items() if any(isinstance(one, frames.Request) for one in told)
    }


@pytest.mark.fault("S8")
def test_a_name_serves_its_own_queue_unless_it_is_told_otherwise() -> None:
    """Files of before know no `serve`: a connector of the name of its queue goes on answering."""
    assert Rights(Permission(consume=["*"]), "rmis").serve.match("rmis")
    assert not Rights(Permission(consume=["*"]), "rmis").serve.match("rmr")
    assert not Rights(Permission(consume=["*"], serve=[]), "rmis").serve.match("rmis")
    assert Rights(Permission(serve=["rm*"]), "monitor").serve.match("rmr")


@pytest.mark.fault("S8")
def test_the_check_names_rights_that_say_too_much_or_nothing(tmp_path: Path) -> None:
    """`relay = "*"` lets a peer speak for every other bus and was not worth a word; a question that
    nobody may answer since `serve` is a right is told before anybody asks it."""
    (tmp_path / "smpbus.toml").write_text("[bus]\ncurve = false\n[log]\nlanguage = 'en'\n")
    (tmp_path / "routes.toml").write_text(ROUTES + '[[routes]]\ntype = "a.*"\nto = ["rmis"]\n')
    file = tmp_path / "permissions.toml"
    file.write_text(
        '[peers.asker]\nask = ["rmis"]\n[peers.clinic]\nconsume = ["rmis"]\n'
        '[peers.far]\nrelay = ["*"]\nserve = ["sink"]\n'
    )
    told = "\n".join(load(tmp_path, environ={}).warnings)
    for part in ("rmis (clinic)", "relay far *", "far sink (serve)"):
        assert all(word in told for word in part.split()), told
    file.write_text(
        '[peers.asker]\nask = ["rmis"]\n[peers.clinic]\nconsume = ["rmis"]\nserve = ["rmis"]\n'
        '[peers.far]\nrelay = ["1a2b3c"]\n'
    )
    assert load(tmp_path, environ={}).warnings == ()
