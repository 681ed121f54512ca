"""System-112's contract: the connector and the simulator, both ways, with faults."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from lxml import etree
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.sys112 import Sys112Connector, soapdoor
from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.markup import soap, xml
from connectors.runtime.partner.partner import Partner, PartnerSettings
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.sys112.samples import Sample, day_of_cards
from connectors.simulators.sys112.simulator import create_app
from proto import catalogue
from proto.client import Reject, Retry
from proto.errors import Code
from proto.message import Message
from proto.note import coded
from tests.contract.stage import Bus, Scene, scene

CARD = next(one for one in day_of_cards(11, 5) if one.kind == "new")
REST_S = 0.05


def play(bus: Bus, act: Callable[[Scene], Awaitable[None]], **settings: Any) -> None:
    async def whole() -> None:
        strict = settings.pop("strict", True)
        told = SimulatorSettings(repeat_s=0.05, strict=strict)
        async with scene(bus, Sys112Connector, create_app, told, **settings) as stage:
            await act(stage)

    asyncio.run(whole())


def status(code: str, id112: str = CARD.id112) -> Message:
    body = catalogue.entry("call.status.v1").example | {"code": code, "id112": id112}
    return Message.new("call.status.v1", "smp", body, subject=f"112-{id112}")


async def push(stage: Scene, samples: list[Sample]) -> list[Any]:
    """Drive the simulator and wait until it has an answer to everything."""
    before = len((await stage.ledger())["answers"])
    body = {"cards": [one.push() for one in samples]}
    answer = await stage.simulator.request("POST", "/drive", msgspec.json.encode(body))
    assert answer.status == 202
    found = await stage.wait(lambda ledger: len(ledger["answers"]) >= before + len(samples))
    return list(found["answers"][before:])


def test_a_day_of_cards_arrives_and_the_malformed_one_is_refused_by_name(bus: Bus) -> None:
    day = day_of_cards(3, 40)

    async def act(stage: Scene) -> None:
        answers = await push(stage, day)
        assert sorted({answer["Code"] for answer in answers}) == ["200", "400"]
        bad = [answer for answer in answers if answer["Code"] == "400"]
        assert [answer["CodeDescr"] for answer in bad] == ["Card.CommonData.TypeStr: is required"]

    play(bus, act)
    cards = {message.id for message in bus.accepted if message.type == "incident.card.v1"}
    updates = [one for one in day if one.operation == "update" and one.kind != "malformed"]
    assert len(cards) == len(updates) - len([one for one in day if one.kind == "double"])
    for message in bus.accepted:
        catalogue.entry(message.type).read(message.body)
        assert message.subject.startswith("112-99-")
    (rejected,) = bus.bodies("input.rejected.v1")
    assert rejected["path"] == "Card.CommonData.TypeStr"
    assert rejected["operation"] == "UpdateCard"
    cancelled = bus.bodies("incident.cancelled.v1")
    assert len(cancelled) == len([one for one in day if one.kind == "cancel"])


def test_a_repeat_of_112_has_the_same_id_and_a_correction_another(bus: Bus) -> None:
    corrected = msgspec.json.decode(msgspec.json.encode(CARD.body))
    corrected["Card"]["Changed"] = "2030-01-01T00:00:00+03:00"
    path = f"/112/cards/{CARD.id112}"

    async def act(stage: Scene) -> None:
        for body in (CARD.body, CARD.body, corrected):
            assert (await stage.send("PUT", path, body)).status == 200

    play(bus, act)
    ids = [message.id for message in bus.accepted]
    assert ids[0] == ids[1] != ids[2]


def test_the_bus_is_silent_then_112_is_asked_to_repeat_and_nothing_is_lost(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        bus.silent = True
        answer = await stage.send("PUT", f"/112/cards/{CARD.id112}", CARD.body)
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        reply = msgspec.json.decode(answer.body)
        assert reply["Code"] == "503"
        assert reply["CodeDescr"].endswith("repeat.")
        assert bus.accepted == []
        bus.silent = False
        stage.reconnect()
        assert (await push(stage, [CARD]))[0]["Code"] == "200"

    play(bus, act, accept_timeout_s=0.2)
    assert {message.subject for message in bus.accepted} == {f"112-{CARD.id112}"}
    assert len({message.id for message in bus.accepted}) == 1


@pytest.mark.parametrize(
    ("code", "status", "retry_after"),
    [(Code.QUEUE_FULL, 503, "7"), (Code.STORE_FULL, 503, "7"), (Code.NO_ROUTE, 500, None)],
)
def test_what_the_bus_refuses_is_told_to_112(
    bus: Bus, code: Code, status: int, retry_after: str | None
) -> None:
    async def act(stage: Scene) -> None:
        bus.refuse = code
        answer = await stage.send("PUT", f"/112/cards/{CARD.id112}", CARD.body)
        assert answer.status == status
        assert answer.headers.get("retry-after") == retry_after

    play(bus, act)


def test_a_body_too_long_is_413_and_an_odd_path_404(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        path = f"/112/cards/{CARD.id112}"
        assert (await stage.send("PUT", path, b"x" * 5000)).status == 413
        assert (await stage.send("PUT", "/112/other", b"{}")).status == 404
        assert (await stage.send("GET", path, b"")).status == 405
        assert (await stage.send("PUT", f"{path}?x=1", b"{")).status == 400

    play(bus, act, body_bytes_max=4096)


def test_statuses_become_reactions_once_each_and_the_note_says_so(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        await push(stage, [CARD])
        for number, code in enumerate(("assigned", "departed", "arrived", "finished"), 1):
            for attempt in (1, 2):
                note = await stage.handle(status(code), number, attempt)
                assert note == "HTTP 200, Code 200"
        note = await stage.handle(status("returned"), 9)
        assert note == coded("connector.untold", system="112")
        ledger = await stage.ledger()
        assert [(entry["operation"], entry.get("action")) for entry in ledger["entries"]] == [
            ("AddReaction", "Notification"),
            ("AddReaction", "Departure"),
            ("AddReaction", "Arrival"),
            ("FinishReaction", None),
        ]
        assert ledger["repeats"] == 4
        assert ledger["entries"][0]["key"] == "testbus-1"

    play(bus, act)


def test_a_card_goes_back(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        example = catalogue.entry("incident.card_update.v1").example
        message = Message.new("incident.card_update.v1", "smp", example, subject="112-x")
        assert await stage.handle(message) == "HTTP 200, Code 200"
        assert (await stage.ledger())["entries"][0]["operation"] == "UpdateCard"

    play(bus, act, strict=False)


def test_a_card_that_112_does_not_know_is_rejected(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        with pytest.raises(Reject, match="HTTP 404, Code 404"):
            await stage.handle(status("departed", "unknown"))

    play(bus, act)


@pytest.mark.parametrize(("type", "body"), [("call.status.v1", b"{}"), ("odd.type.v1", b"{}")])
def test_what_is_no_status_is_rejected(bus: Bus, type: str, body: bytes) -> None:
    async def act(stage: Scene) -> None:
        with pytest.raises(Reject):
            await stage.handle(Message.new(type, "smp", body))

    play(bus, act)


def test_a_partner_that_is_down_means_retry_later_each_time_and_opens_the_breaker(
    bus: Bus,
) -> None:
    async def act(stage: Scene) -> None:
        await push(stage, [CARD])
        await stage.faults(down=True)
        waits = []
        for attempt in (1, 2, 3, 9):
            with pytest.raises(Retry, match="HTTP 503") as caught:
                await stage.handle(status("departed"), 1, attempt)
            waits.append(caught.value.after_s)
        assert waits == [3.0, 6.0, 12.0, 300.0]
        assert not stage.connector.partner.breaker.closed
        await stage.faults(down=False)
        await asyncio.sleep(REST_S)
        assert await stage.handle(status("departed"), 1, 10) == "HTTP 200, Code 200"
        assert stage.connector.partner.breaker.closed
        assert len((await stage.ledger())["entries"]) == 1

    play(bus, act, partner={"breaker": {"failures_max": 4, "open_s": REST_S}})


def test_a_lost_answer_is_repeated_and_applied_once(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        await push(stage, [CARD])
        await stage.faults(fail=0.6)
        attempts = 0
        for number in range(1, 11):
            while True:
                attempts += 1
                with contextlib.suppress(Retry):
                    assert await stage.handle(status("departed"), number) == "HTTP 200, Code 200"
                    break
        assert attempts > 10
        ledger = await stage.ledger()
        assert len(ledger["entries"]) == 10
        assert ledger["repeats"] > 0

    play(bus, act)


def test_a_partner_too_slow_or_not_there_means_retry(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        await push(stage, [CARD])
        await stage.faults(delay_s=5)
        with pytest.raises(Retry, match=r"connector\.no_answer why=timeout"):
            await stage.handle(status("departed"))

    play(bus, act, partner={"timeout_s": 0.2})

    async def absent(stage: Scene) -> None:
        with pytest.raises(Retry, match=r"connector\.no_answer why=connect"):
            await stage.handle(status("departed"))

    play(bus, absent, partner={"url": "http://127.0.0.1:9"})


# -- codes of the protocol, no way back -----------------------------------------------------------

CANCEL = {
    "SysCode": "112-PRIMERSK",
    "Id112": CARD.id112,
    "Reason": "Ложный вызов",
    "CancelOperator": {"OperatorLogin": "op-01"},
}
CLOSE = {
    "SysCode": "112-PRIMERSK",
    "Id112": CARD.id112,
    "CloseOperator": {"OperatorLogin": "op-01"},
}
PATH = f"/112/cards/{CARD.id112}"


def card(state: str, changed: str) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(CARD.body))
    body["Card"] |= {"IncidentState": state, "Changed": changed}
    return body


async def code_of(stage: Scene, method: str, path: str, body: Any) -> tuple[str, str]:
    """Ask by JSON and by SOAP, which must say the same; return code and description."""
    answer = await stage.send(method, path, body)
    reply = msgspec.json.decode(answer.body)
    assert str(answer.status) == reply["Code"]
    name = {"cancel": "CancelCard", "close": "CloseCard"}.get(path.split("/")[-1], "UpdateCard")
    root = etree.Element(f"{{{soapdoor.NAMESPACE}}}{name}Request")
    xml.write(root, body, soapdoor.NAMESPACE)
    told = await stage.send("POST", soapdoor.PATH, soap.envelope(root))
    twin = xml.read(soap.read_envelope(told.body).body, soapdoor.PlainReply)
    if reply["Code"] != "200":
        assert (twin.Code, twin.CodeDescr) == (reply["Code"], reply["CodeDescr"])
    return reply["Code"], reply["CodeDescr"]


def test_an_end_of_a_card_that_nobody_knows_is_404_and_told_to_the_administrator(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        for step, body in (("cancel", CANCEL), ("close", CLOSE)):
            told = await code_of(stage, "POST", f"{PATH}/{step}", body)
            assert told == ("404", "Id112: there is no such card")
        assert await code_of(stage, "PUT", PATH, CARD.body) == ("200", "accepted")
        for step, body in (("cancel", CANCEL), ("close", CLOSE)):
            assert (await code_of(stage, "POST", f"{PATH}/{step}", body))[0] == "200"

    play(bus, act, unknown_after_h=0)
    assert {one["path"] for one in bus.bodies("input.rejected.v1")} == {"Id112"}
    assert [one["kind"] for one in bus.bodies("incident.cancelled.v1")[::2]] == [
        "cancelled", "closed",
    ]  # fmt: skip


def test_a_young_memory_lets_the_end_of_an_older_card_pass(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        assert (await code_of(stage, "POST", f"{PATH}/cancel", CANCEL))[0] == "200"

    play(bus, act)
    assert {one["kind"] for one in bus.bodies("incident.cancelled.v1")} == {"cancelled"}


@pytest.mark.parametrize("end", ["cancel", "close", "Finished", "Closed"])
def test_a_card_that_is_over_does_not_go_back_to_work(bus: Bus, end: str, tmp_path: Path) -> None:
    back = ("403", "Card.IncidentState: takes a card back to work that is over")

    async def over(stage: Scene) -> None:
        assert (await code_of(stage, "PUT", PATH, card("InWork", at(0))))[0] == "200"
        ended = {"cancel": CANCEL, "close": CLOSE}.get(end)
        if ended is None:
            assert (await code_of(stage, "PUT", PATH, card(end, at(60))))[0] == "200"
        else:
            assert (await code_of(stage, "POST", f"{PATH}/{end}", ended))[0] == "200"

    async def again(stage: Scene) -> None:
        for state in ("New", "Created", "Assigned", "InWork"):
            assert await code_of(stage, "PUT", PATH, card(state, at(120))) == back
        # What says nothing of work, goes on to the end, or is late and older, is taken.
        for state, changed in (("NotSet", 121), ("Closed", 122), ("Finished", 123), ("InWork", -5)):
            assert (await code_of(stage, "PUT", PATH, card(state, at(changed))))[0] == "200"
        assert await code_of(stage, "PUT", PATH, card("InWork", at(124))) == back

    file = tmp_path / "cards.db"
    play(bus, over, state_file=file)
    before = len(bus.accepted)
    play(bus, again, state_file=file)  # a restart later
    states = [one["state"] for one in bus.bodies("incident.card.v1")]
    assert states[-8:] == [  # by JSON and by SOAP
        "not_set", "not_set", "closed", "closed", "finished", "finished", "in_work", "in_work",
    ]  # fmt: skip
    assert len({one.id for one in bus.accepted[before:] if one.type == "incident.card.v1"}) == 4


def at(second: int) -> str:
    changed = datetime.fromisoformat(CARD.body["Card"]["Changed"])
    return (changed + timedelta(seconds=second)).isoformat()


@pytest.mark.parametrize("code", [403, 404])
def test_what_112_forbids_or_does_not_know_is_a_dead_letter(bus: Bus, code: int) -> None:
    """Not of our simulator: an answer of the protocol with any of its codes, HTTP 200."""

    async def act(stage: Scene) -> None:
        async def answer(_: Request) -> Response:
            return Response(msgspec.json.encode({"Code": str(code)}), media_type="application/json")

        routes = [Route("/{rest:path}", answer, methods=["POST"])]
        server = HttpServer(Starlette(routes=routes), wire := bind("127.0.0.1:0", "test"))
        await server.start()
        port = wire.getsockname()[1]
        partner = PartnerSettings(url=f"http://127.0.0.1:{port}")
        told, stage.connector.partner = stage.connector.partner, Partner("sys112", partner)
        try:
            with pytest.raises(Reject, match=f"HTTP 200, Code {code}"):
                await stage.handle(status("departed"))
        finally:
            await stage.connector.partner.close()
            stage.connector.partner = told
            await server.stop()

    play(bus, act)


# -- reactions to what is not a brigade's usual way (domain.md 2.3) --------------------------------


def fact(number: int, code: str, minute: int, **changes: Any) -> Message:
    moment = f"2026-11-23T08:{minute:02}:00+03:00"
    body = catalogue.entry("call.status.v1").example | {
        "event_id": f"e{number}",
        "code": code,
        "occurred_at": moment,
        "recorded_at": moment,
        "id112": CARD.id112,
        **changes,
    }
    return Message.new("call.status.v1", "smp", body, subject=f"112-{body['id112']}")


async def told(stage: Scene, facts: list[Message]) -> list[tuple[str, str | None, str]]:
    """Bring facts; return what 112 applied: card, action (None: finish), time or call."""
    for one in facts:
        number = msgspec.json.decode(one.body)["event_id"].removeprefix("e")
        await stage.handle(one, int(number))
    entries = (await stage.ledger())["entries"]
    return [
        (one["id112"], one.get("action"), one.get("at", one.get("call", ""))[11:16])
        for one in entries
    ]


def test_a_card_of_a_double_hears_the_last_reaction_of_the_call(bus: Bus, tmp_path: Path) -> None:
    double = fact(9, "duplicate", 30, id112="112-R", call_id="2026-4712", duplicate_of="2026-4711")
    file = tmp_path / "cards.db"

    async def before(stage: Scene) -> None:
        # Late and out of order: what happened last counts, not what was told last.
        facts = [fact(1, "assigned", 10), fact(3, "arrived", 20), fact(2, "departed", 12)]
        await told(stage, [*facts, fact(4, "at_hospital", 25), fact(5, "finished", 40)])

    async def after(stage: Scene) -> None:
        assert await told(stage, [double]) == [("112-R", "Arrival", "08:20")]
        (entry,) = (await stage.ledger())["entries"]
        assert (entry["call"], entry["unit"]) == ("2026-4712", "Бригада 12")
        later = fact(10, "duplicate", 50, id112="112-S")  # of the same call: the ambulance tied it
        assert (await told(stage, [later]))[-1][:2] == ("112-S", None)
        unknown = fact(11, "duplicate", 50, id112="112-T", duplicate_of="2026-1")
        note = await stage.handle(unknown, 77)
        assert note == coded("connector.untold", system="112")

    play(bus, before, strict=False, state_file=file)
    play(bus, after, strict=False, state_file=file)  # a restart later


def test_a_special_brigade_and_a_brigade_taken_off_end_no_reaction_of_the_call(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        facts = [
            fact(1, "assigned", 10),
            fact(2, "cancelled", 11, goes_on=True),
            fact(3, "assigned", 12, brigade={"id": "15"}),
            fact(4, "finished", 30, goes_on=True, brigade={"id": "15"}),
            fact(5, "finished", 50, brigade={"id": "special"}),
        ]
        assert [action for _, action, _ in await told(stage, facts)] == [
            "Notification", "Solution", "Notification", "Solution", None,
        ]  # fmt: skip

    play(bus, act, strict=False)


def test_urgent_care_takes_the_call_over(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        codes = ("assigned", "accepted", "departed", "arrived", "finished")
        facts = [
            fact(number, code, number, service="urgent_care") for number, code in enumerate(codes)
        ]
        assert [action for _, action, _ in await told(stage, facts)] == [
            "Notification", "Solution", None,
        ]  # fmt: skip

    play(bus, act, strict=False)
