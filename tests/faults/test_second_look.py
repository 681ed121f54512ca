"""Variations of what was seen, found when everything was looked at a second time."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from connectors.partners.rmis.canonical import read_changes
from connectors.partners.rmis.contract import LooseChanges
from connectors.runtime.partner.http import HttpClient, Unreachable
from connectors.simulators.demo.signing import make_signer
from proto import catalogue
from proto.message import Message, Priority
from router.settings import Destination
from tests.contract.stage import Bus, Scene
from tests.faults.doorstep import play
from tests.faults.lives import Lives, settings
from tests.faults.lives import message as Queued
from tests.ports import free_port

STATUS = msgspec.json.encode(catalogue.entry("call.status.v1").example)
VISIT = msgspec.json.encode(
    {key: value for key, value in catalogue.entry("visit.state.v1").example.items()
     if key != "event_id"}
)  # fmt: skip


@contextlib.contextmanager
def resetting() -> Iterator[int]:
    """Give a port that takes every connection and resets it at once."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.fault("A19")
def test_a_partner_that_is_gone_right_after_connect_is_unreachable() -> None:
    """A connection that was reset before it was looked at raised AttributeError out of the HTTP
    client: a mistake of ours in the log, where the partner is away."""
    seen: Counter[str] = Counter()

    async def act(port: int) -> None:
        async with HttpClient(f"http://127.0.0.1:{port}") as client:

            async def ask() -> None:
                try:
                    await client.request("POST", "/", b"{}")
                except Unreachable as error:
                    seen[error.kind] += 1

            for _ in range(500):
                await asyncio.gather(ask(), ask())
                await asyncio.sleep(0.003)  # the other side comes to its turn

    with resetting() as port:
        uvloop.run(act(port))
    assert seen.total() == 1000
    assert set(seen) <= {"connect", "broken"}


@pytest.mark.fault("D10")
@pytest.mark.parametrize(
    "odd",
    [b'"a\x01b"', b'"\\ud800"', b'"\xff"', b'"\x01\xff"', b"1", b'""'],
    ids=["control", "half", "not UTF-8", "both", "number", "empty"],
)
def test_one_odd_message_of_a_batch_refuses_no_other(odd: bytes) -> None:
    """A character that cannot be, in any field of one message of /queue/send, refused all of them
    with 400, urgent ones too; each is answered for itself."""

    async def act(stage: Scene, bus: Bus) -> None:
        def one(id: bytes, payload: bytes = STATUS) -> bytes:
            return b'{"type": "call.status.v1", "id": %s, "payload": %s}' % (id, payload)

        messages = [one(b'"a"'), one(odd), one(b'"c"'), one(b'"d"', b'{"event_id": %s}' % odd)]
        body = b'{"messages": [%s]}' % b", ".join(messages)
        answer = await stage.send("POST", "/queue/send", body)
        assert answer.status == 200, answer.body
        results = msgspec.json.decode(answer.body)["results"]
        assert [one["code"] for one in results] == [200, 400, 200, 400]
        assert results[1]["path"].startswith("messages[1]")
        assert [one.type for one in bus.accepted].count("call.status.v1") == 2

        alone = await stage.send("POST", "/queue/send", b'{"messages": [%s]}' % one(odd))
        told = msgspec.json.decode(alone.body)
        assert 400 in (alone.status, *(one["code"] for one in told.get("results", ())))

    play("smp", act, clinical=True)


@pytest.mark.fault("D9")
@pytest.mark.parametrize(
    "bad",
    [
        b'{"id": "2", "type": "not.known.v1", "body": {}}',
        b'{"type": "visit.state.v1", "body": %s}' % VISIT,
        b'{"id": "2", "type": "visit.state.v1", "body": {"state": "perhaps"}}',
        b'{"id": "2\x01", "type": "visit.state.v1", "body": %s}' % VISIT,
        b'{"id": "2", "type": "visit.state.v1", "body": {"reason": "\xff"}}',
    ],
    ids=["type", "id", "body", "control", "not UTF-8"],
)
def test_one_bad_change_of_a_post_refuses_no_other(bad: bytes, tmp_path: Path) -> None:
    """One change that broke the contract refused the whole post, for ever: it is set aside and
    told to both sides, and the others are taken."""

    async def act(stage: Scene, bus: Bus) -> None:
        connector: Any = stage.connector
        visit = msgspec.json.decode(VISIT)
        connector.memory.note_asked("visit", visit["visit_id"], visit["call_id"], "112-1")

        def one(id: bytes) -> bytes:
            return b'{"id": "%s", "type": "visit.state.v1", "body": %s}' % (id, VISIT)

        body = b'{"changes": [%s]}' % b", ".join((one(b"1"), bad, one(b"3")))
        for _ in range(2):
            answer = await stage.send("POST", "/rmis/changes", body)
            assert answer.status == 200, answer.body
            assert b"changes[1]" in answer.body
        assert len({one.id for one in bus.accepted if one.type == "visit.state.v1"}) == 2
        (told,) = {(one["path"], one["about"]) for one in bus.bodies("input.rejected.v1")}
        assert told[0].startswith("changes[1]")

        alone: Any = await stage.send("POST", "/rmis/changes", b'{"changes": [%s]}' % bad)
        assert alone.status == 400

    play("rmis", act, state_file=tmp_path / "numbers.db", poll_s=60)


@pytest.mark.fault("A1")
def test_a_timer_of_an_archive_that_was_put_back_is_no_repeat(tmp_path: Path) -> None:
    """The archive of documents counts sendings; put back from a copy it counted them again, the bus
    took the timer of the next sending for one that it had, and the document waited for ever."""
    port = free_port()
    settings: dict[str, Any] = {
        "port": port,
        "partner": {"url": f"http://127.0.0.1:{port}/emdr"},
        "document": {
            "organisation": {"oid": "1.2.643.5.1.13.13.12.2.99.9999", "name": "Станция"},
            "archive_file": tmp_path / "documents.db",
            "signer": make_signer(tmp_path / "keys"),
        },
        "client": "client-1",
        "reply_to": "http://127.0.0.1/remd",
    }
    card = Message.new("call.card.v1", "smp", catalogue.entry("call.card.v1").example)

    def timers(bus: Bus) -> list[Message]:
        return [one for one in bus.accepted if one.type == "document.timer.v1"]

    async def sent_again(stage: Scene, bus: Bus, message: Message) -> Message:
        """Have `message` send the document, and the register ask for it once more; return what the
        connector has set itself to come back to it."""
        known = len(timers(bus))
        again = b'{"reject": "INTERNAL_ERROR", "times": 1}'
        answer = await stage.simulator.request("POST", "/drive", again)
        assert answer.status == 202
        await stage.handle(message)
        await stage.wait(lambda ledger: not ledger["living"])
        (timer,) = [one for one in timers(bus)[known:] if one.json()["purpose"] == "again"]  # type: ignore[index]
        return timer

    seen: list[Message] = []

    async def first(stage: Scene, bus: Bus) -> None:
        seen.append(await sent_again(stage, bus, card))

    async def next(stage: Scene, bus: Bus) -> None:
        seen.append(await sent_again(stage, bus, seen[0]))

    play("remd", first, **settings)
    copy = (tmp_path / "documents.db").read_bytes()
    play("remd", next, **settings)
    for rest in tmp_path.glob("documents.db-*"):
        rest.unlink()
    (tmp_path / "documents.db").write_bytes(copy)
    play("remd", next, **settings)
    assert len({one.id for one in seen}) == 3


@pytest.mark.fault("D8")
def test_a_senders_own_bulk_does_not_shut_out_its_emergencies(tmp_path: Path) -> None:
    """Whose bulk had filled its share was refused its emergencies as well, with the reserve for
    them empty; also after all of it was read back from the disk, and never for others."""
    lives = Lives(tmp_path, settings(Destination(open_max=1_000)))
    lives.greet(b"r", "rival")

    def bulk(source: str) -> list[Message]:
        return [Queued(f"{source}-{n}", Priority.BULK, source=source) for n in range(1_000)]

    assert set(lives.accept(*bulk("producer"))) == {"queue_full"}
    assert set(lives.accept(*bulk("rival"), peer=b"r")) == {"queue_full"}
    urgent = [Queued(f"e-{n}", Priority.EMERGENCY) for n in range(200)]
    assert lives.accept(*urgent[:50]) == []
    refused = len(lives.accept(*urgent[50:]))
    assert 0 < refused < 150, "nor does one sender's flood of them shut out those of others"
    other = Queued("e", Priority.EMERGENCY, source="rival")
    assert lives.accept(other, peer=b"r") == []
    lives.consume(1_000)
    while taken := lives.taken():
        lives.settle(*taken.values())
    assert lives.core.queues["sink"].open_of == {}
    lives.close()


@pytest.mark.fault("D10")
def test_what_a_poll_of_the_hospitals_brings_is_looked_at_as_what_they_post() -> None:
    """A change with NUL in its reason was set aside when it was posted, and passed on when it was
    asked for: it became a dead letter at the ambulance's database."""
    good = {"id": "1", "type": "visit.state.v1", "body": msgspec.json.decode(VISIT)}
    odd = good | {"id": "2", "body": good["body"] | {"reason": "no\x00 one\x1b[2J"}}
    found = read_changes(LooseChanges(changes=[good, odd, good | {"id": "3"}]))
    assert [one.id for one in found.changes] == ["1", "3"]
    assert [(one.id, one.path) for one in found.unread] == [("2", "changes[1].body.reason")]
