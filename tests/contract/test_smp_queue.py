"""The queue API of the ambulance system: send, receive, commit, and what the documents say."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partners.smp import SmpConnector
from connectors.runtime.door.token import digest_of, new_token
from connectors.runtime.partner.http import HttpAnswer
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.smp.simulator import create_app
from proto import catalogue
from proto.client import Reject, Retry
from proto.errors import Code
from proto.exits import StartError
from proto.message import Message, now_ms
from tests.contract import documents
from tests.contract.stage import Bus, Scene, scene
from tests.leap import leaping
from tests.until import until

CARD = catalogue.entry("incident.card.v1").example
STATUS = catalogue.entry("call.status.v1").example
REF = "medevac-6f0c2f5f9c1e5b7b8a4f0d3c2b1a0099"
Work = asyncio.Task[str | None]


def play(bus: Bus, act: Callable[[Scene], Awaitable[None]], **settings: Any) -> None:
    async def whole() -> None:
        told = SimulatorSettings(repeat_s=0.05, pace_s=0.01)
        settings.setdefault("mode", "queue")
        settings.setdefault("question_timeout_s", 0.1)  # nobody answers the simulator here
        async with scene(bus, SmpConnector, create_app, told, **settings) as stage:
            staying = asyncio.create_task(stage.connector.stay())
            await act(stage)
            staying.cancel()
            await asyncio.gather(staying, return_exceptions=True)

    asyncio.run(whole())


def card(number: int = 1, **envelope: Any) -> Message:
    return Message.new("incident.card.v1", "sys112", CARD | {"id112": f"112-{number}"}, **envelope)


def bring(stage: Scene, *messages: Message) -> list[Work]:
    """Deliver as the router does: each is held until it is settled."""
    return [
        asyncio.create_task(stage.handle(message, number))
        for number, message in enumerate(messages, 1)
    ]


async def post(stage: Scene, path: str, **body: Any) -> Any:
    answer = await stage.send("POST", f"/queue/{path}", body)
    assert answer.status == 200, answer.body
    return msgspec.json.decode(answer.body)


async def receive(stage: Scene, **asked: Any) -> list[Any]:
    return list((await post(stage, "receive", **asked))["messages"])


async def commit(stage: Scene, *refs: str, outcome: str = "done", **told: Any) -> list[bool]:
    reply = await post(stage, "commit", refs=refs, outcome=outcome, **told)
    assert [one["ref"] for one in reply["results"]] == list(refs)
    return [one["committed"] for one in reply["results"]]


# -- receive and commit ---------------------------------------------------------------------------


def test_what_is_received_and_committed_is_settled_with_its_note(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        (held,) = bring(stage, message := card(subject="112-1", priority=1))
        (one,) = await receive(stage, wait_s=5)
        assert one["payload"] == msgspec.json.decode(message.body)
        assert (one["ref"], one["attempt"]) == ("testbus-1", 1)
        assert (one["type"], one["subject"], one["id"]) == (message.type, "112-1", message.id)
        assert await receive(stage) == []  # it is held for whoever received it
        assert not held.done()
        assert await commit(stage, one["ref"], note="2026-4711") == [True]
        assert await held == "2026-4711"
        assert await commit(stage, one["ref"]) == [True]  # its answer was lost: asked again
        assert await commit(stage, "testbus-99") == [False]

    play(bus, act)


def test_the_urgent_ones_come_first_and_no_more_than_asked_for(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        held = bring(stage, *(card(n, priority=p) for n, p in enumerate((2, 2, 0, 1, 3), 1)))
        await asyncio.sleep(0)
        first = await receive(stage, max=3)
        rest = await receive(stage)
        assert [one["payload"]["id112"] for one in first] == ["112-3", "112-4", "112-1"]
        assert [one["payload"]["id112"] for one in rest] == ["112-2", "112-5"]
        refs = [one["ref"] for one in first + rest]
        assert await commit(stage, *refs) == [True] * 5
        await asyncio.gather(*held)

    play(bus, act)


def test_what_is_not_committed_in_time_goes_back_and_comes_with_the_same_ref(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        (held,) = bring(stage, card())
        (one,) = await receive(stage, wait_s=5)
        with pytest.raises(Retry, match=r"smp\.not_committed seconds=") as caught:
            await held
        assert caught.value.after_s == 0
        assert await commit(stage, one["ref"], outcome="reject", reason="late") == [False]
        again = asyncio.create_task(stage.handle(card(), 1, 2))
        (two,) = await receive(stage, wait_s=5)
        assert (two["ref"], two["attempt"]) == (one["ref"], 2)
        assert await commit(stage, two["ref"]) == [True]
        await again

    play(bus, act, visibility_s=0.2)


def test_a_retry_comes_when_the_ambulance_wants_it_and_a_reject_never(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        later, never, sometime = bring(stage, card(1), card(2), card(3))
        await asyncio.sleep(0)
        refs = [one["ref"] for one in await receive(stage)]
        told: dict[str, Any] = {"outcome": "retry", "after_s": 7.5, "reason": "the table is locked"}
        assert await commit(stage, refs[0], **told) == [True]
        assert await commit(stage, refs[1], outcome="reject", reason="no such street") == [True]
        assert await commit(stage, refs[2], outcome="retry") == [True]
        with pytest.raises(Retry, match="the table is locked") as caught:
            await later
        assert caught.value.after_s == 7.5
        with pytest.raises(Reject, match="no such street"):
            await never
        with pytest.raises(Retry) as caught:
            await sometime
        assert caught.value.after_s is None  # the destination's own backoff
        answer = await stage.send("POST", "/queue/commit", {"refs": [refs[0]], "outcome": "reject"})
        assert answer.status == 400
        assert b"reason" in answer.body

    play(bus, act)


def test_a_receiver_that_waits_is_answered_when_something_comes_or_its_time_is_over(
    bus: Bus,
) -> None:
    async def act(stage: Scene) -> None:
        waiting = asyncio.create_task(receive(stage, wait_s=30))
        await until(lambda: stage.connector.queue._waiting.count, "the receiver to wait")  # type: ignore[attr-defined]
        assert not waiting.done()
        (held,) = bring(stage, card())
        (one,) = await waiting
        await commit(stage, one["ref"])
        await held
        begun = time.monotonic()
        assert await receive(stage, wait_s=0.3) == []
        assert time.monotonic() - begun >= 0.3

    play(bus, act)


def test_what_expired_on_the_shelf_is_not_given_out(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        expires = now_ms() + 50
        (held,) = bring(stage, card(expires=expires))
        await until(lambda: now_ms() > expires)
        assert await receive(stage) == []
        with pytest.raises(Retry, match=r"smp\.too_late"):  # the router ends it as expired
            await held
        with pytest.raises(Reject):
            await stage.handle(Message.new("incident.card.v1", "sys112", b"not JSON"), 2)

    play(bus, act)


def test_at_the_end_nobody_waits_any_more(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        staying = asyncio.create_task(stage.connector.stay())
        waiting = asyncio.create_task(receive(stage, wait_s=30))
        await until(lambda: stage.connector.queue._waiting.count, "the receiver to wait")  # type: ignore[attr-defined]
        staying.cancel()
        assert await asyncio.wait_for(waiting, 5) == []

    play(bus, act)


def test_the_administrator_hears_once_that_nobody_comes(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(stage: Scene) -> None:
        (held,) = bring(stage, card())
        await asyncio.sleep(0)  # it is held from now on
        clock.leap(31)
        await until(lambda: "не забирает" in caplog.text)
        (one,) = await receive(stage)
        await commit(stage, one["ref"])
        await held

    with caplog.at_level("INFO", logger="smpbus.connector"), leaping() as clock:
        play(bus, act, quiet_s=30, partner={"system": "ИС СМП"})
    told = [line for line in caplog.messages if "ИС СМП" in line]
    assert len(told) == 2
    assert "не забирает" in told[0]
    assert "снова забирает" in told[1]


def test_in_the_other_mode_there_is_nothing_to_receive(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        for path, body in (("receive", {}), ("commit", {"refs": ["x"], "outcome": "done"})):
            answer = await stage.send("POST", f"/queue/{path}", body)
            assert answer.status == 409
        assert "created" in str(await stage.handle(card()))

    play(bus, act, mode="push")


def test_the_simulator_fetches_and_lives_what_it_is_not_posted(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        answer = await stage.simulator.request("POST", "/drive", b'{"pull": true}')
        assert answer.status == 202
        good, bad = bring(stage, card(), Message.new("incident.card.v1", "sys112", {"id112": "x"}))
        assert "created 2" in str(await good)
        with pytest.raises(Reject, match="is required"):
            await bad
        ledger = await stage.wait(lambda ledger: not ledger["living"])
        assert [call["status"] for call in ledger["calls"]] == ["returned"]

    play(bus, act)


# -- send -----------------------------------------------------------------------------------------


def test_many_messages_are_sent_at_once_and_each_is_answered(bus: Bus) -> None:
    ticket = catalogue.entry("call.ticket.v1").example

    async def act(stage: Scene) -> None:
        messages = [
            {"type": "call.status.v1", "payload": STATUS, "id": "a"},
            {"type": "call.status.v1", "payload": STATUS | {"code": "flying"}, "id": "b"},
            {"type": "call.ticket.v1", "payload": ticket},
            {"type": "no.such.v1", "payload": {}},
        ]
        results = (await post(stage, "send", messages=messages))["results"]
        assert [one["code"] for one in results] == [200, 400, 200, 400]
        assert [one.get("id") for one in results] == ["a", "b", None, None]
        assert results[1]["path"] == "messages[1].payload.code"
        assert results[3]["path"] == "messages[3].type"

    play(bus, act)
    sent = [message for message in bus.accepted if message.type != "input.rejected.v1"]
    assert sorted(message.type for message in sent) == ["call.status.v1", "call.ticket.v1"]
    assert len(bus.bodies("input.rejected.v1")) == 2


def test_a_repeat_is_known_by_the_senders_id_and_the_envelope_by_what_is_told(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        sent = {"type": "call.status.v1", "payload": STATUS, "id": "a", "subject": "own",
                "priority": 0, "expires": "2099-01-01T00:00:00Z"}  # fmt: skip
        for _ in range(2):
            await post(stage, "send", messages=[sent])
        await post(stage, "send", messages=[sent | {"id": "b"}])
        await post(stage, "send", messages=[{"type": "call.status.v1", "payload": STATUS}])
        assert (await stage.send("POST", "/bus/status", STATUS)).status == 200

    play(bus, act)
    one, repeat, other, plain, posted = bus.accepted
    assert one.id == repeat.id != other.id
    assert (one.subject, one.priority, one.expires) == ("own", 0, 4070908800000)
    assert plain.id == posted.id  # whichever door it comes by
    assert plain.subject == "112-112-99-000001"


def test_of_one_subject_nothing_overtakes_what_was_not_accepted(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        bus.refuse = Code.QUEUE_FULL
        messages = [
            {"type": "call.status.v1", "payload": STATUS | {"event_id": f"e{n}"}} for n in range(3)
        ]
        answer = await stage.send("POST", "/queue/send", {"messages": messages})
        assert answer.status == 503
        assert answer.headers["retry-after"]
        results = msgspec.json.decode(answer.body)["results"]
        assert [one["code"] for one in results] == [503] * 3
        assert ["before it" in one["sentence"] for one in results] == [False, True, True]

    play(bus, act)


def test_messages_of_several_subjects_wait_for_each_of_them(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        both, second, other = ["112-a", "112-b"], "112-b", "112-c"
        messages = [
            {"type": "call.status.v1", "payload": STATUS | {"event_id": f"e{n}", "id112": cards}}
            for n, cards in enumerate([both, second, other])
        ]
        await post(stage, "send", messages=messages)
        assert [message.subject for message in bus.accepted] == [
            "112-112-a", "112-112-b", "112-112-c", "112-112-b",
        ]  # fmt: skip
        bus.refuse = Code.QUEUE_FULL
        answer = await stage.send("POST", "/queue/send", {"messages": messages})
        sentences = [one["sentence"] for one in msgspec.json.decode(answer.body)["results"]]
        assert ["before it" in sentence for sentence in sentences] == [False, True, False]

    play(bus, act)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("send", {"messages": []}),
        ("send", b"{"),
        ("receive", {"max": 0}),
        ("receive", {"wait_s": 31}),
        ("commit", {"refs": [], "outcome": "done"}),
        ("commit", {"refs": ["x"], "outcome": "well"}),
    ],
    ids=str,
)
def test_a_request_without_sense_is_400(bus: Bus, path: str, body: Any) -> None:
    async def act(stage: Scene) -> None:
        assert (await stage.send("POST", f"/queue/{path}", body)).status == 400

    play(bus, act)


# -- calls of outside services --------------------------------------------------------------------


def test_a_status_of_an_outside_call_goes_to_its_service_too(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        plain = {name: value for name, value in STATUS.items() if name != "id112"}
        assert (await stage.send("POST", "/bus/status", plain | {"external": REF})).status == 200

    play(bus, act)
    card_status, outside = bus.accepted
    assert (card_status.type, card_status.subject) == ("call.status.v1", "call-2026-4711")
    assert "external" not in card_status.json()  # type: ignore[operator]
    assert (outside.type, outside.subject) == ("external.status.v1", f"ext-{REF}")
    assert outside.json()["external"] == REF  # type: ignore[index]


def test_the_simulated_ambulance_lives_an_outside_call_until_it_is_cancelled(bus: Bus) -> None:
    call = catalogue.entry("external.call.v1").example
    ended = catalogue.entry("external.cancelled.v1").example

    async def act(stage: Scene) -> None:
        made = Message.new("external.call.v1", "external", call)
        assert "created" in str(await stage.handle(made, 1))
        ended_message = Message.new("external.cancelled.v1", "external", ended)
        assert "cancelled" in str(await stage.handle(ended_message, 2))
        ledger = await stage.wait(lambda ledger: not ledger["living"])
        assert [one["external"] for one in ledger["calls"]] == [call["external"]]
        assert ledger["refused"] == []

    play(bus, act, mode="push")
    assert bus.bodies("external.status.v1")[-1]["code"] == "cancelled"
    for message in bus.accepted:
        catalogue.entry(message.type).read(message.body)


# -- the document and the token -------------------------------------------------------------------


def test_the_document_tells_of_every_door_and_its_page_needs_nothing_else(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        answer = await stage.http.request("GET", "/openapi.json")
        document = msgspec.json.decode(answer.body)
        documents.check(document, stage.connector.app())  # type: ignore[arg-type]
        assert "security" not in document
        page = await stage.http.request("GET", "/docs")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        words = page.body.decode()
        assert "/queue/receive" in words
        for outer in ("<script", "<link", "<img", "http://", "https://", "@import", "url("):
            assert outer not in words

    play(bus, act)


def test_with_a_token_file_nobody_comes_in_without_a_token(bus: Bus, tmp_path: Path) -> None:
    token, file = new_token(), tmp_path / "smp.token"
    file.write_text(digest_of(token) + "\n", encoding="ascii")

    async def act(stage: Scene) -> None:
        async def status(given: str | None) -> HttpAnswer:
            headers = {} if given is None else {"authorization": f"Bearer {given}"}
            body = msgspec.json.encode(STATUS)
            return await stage.http.request("POST", "/bus/status", body, headers)

        refused = await status(None)
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert (await status(digest_of(token))).status == 401
        assert (await status(token)).status == 200
        document = await stage.http.request("GET", "/openapi.json")
        assert document.status == 200
        told = msgspec.json.decode(document.body)
        documents.check(told, stage.connector.app())  # type: ignore[arg-type]
        assert told["security"] == [{"token": []}]
        assert all("401" in one["post"]["responses"] for one in told["paths"].values())
        other = new_token()
        file.write_text(f"{digest_of(other)}\n", encoding="ascii")

        async def is_known() -> bool:
            return (await status(other)).status == 200

        await until(is_known, "the change to work", 5.0)
        assert (await status(token)).status == 401

    play(bus, act, token_file=file)
    file.write_text(token, encoding="ascii")
    with pytest.raises(StartError, match="smpbus external token"):
        play(bus, act, token_file=file)
