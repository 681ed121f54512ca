"""Outside services: calls by HTTP, events by asking and by webhook, quotas, tokens, faults."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partners.external import ExternalConnector
from connectors.partners.external.webhook import is_signed, sign
from connectors.runtime.door.token import digest_of, new_token
from connectors.runtime.partner.http import HttpAnswer
from connectors.simulators.external import create_app
from connectors.simulators.kit.simulation import SimulatorSettings
from proto import catalogue
from proto.client import Reject, Retry
from proto.errors import Code
from proto.exits import StartError
from proto.external_types import HAND_IN
from proto.message import Message
from tests.contract import documents
from tests.contract.stage import Bus, Scene, scene
from tests.ports import free_port
from tests.until import until

STATUS = catalogue.entry("external.status.v1").example
SECRET = "a" * 40
GONE = "http://127.0.0.1:1/nobody"


class House:
    """Two clients with tokens of their own; each play is one life of the connector."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self.bus = bus
        self.folder = folder
        self.tokens = {name: new_token() for name in ("medevac", "private")}
        self.port = free_port()
        for name, token in self.tokens.items():
            (folder / f"{name}.token").write_text(digest_of(token) + "\n", encoding="ascii")
        secret = folder / "webhook.secret"
        secret.touch(mode=0o600)
        secret.write_text(SECRET + "\n", encoding="ascii")

    def client(self, name: str, webhook: str = "", **told: Any) -> dict[str, Any]:
        table = {"token_file": self.folder / f"{name}.token", **told}
        if webhook:
            quick = {"failures_max": 2, "open_s": 0.1, "open_max_s": 0.2}
            secret = self.folder / "webhook.secret"
            table["webhook"] = {"url": webhook, "secret_file": secret, "breaker": quick}
        return table

    @property
    def webhook(self) -> str:
        return f"http://127.0.0.1:{self.port}/webhook"

    def play(self, act: Callable[[Scene], Awaitable[None]], **settings: Any) -> None:
        async def whole() -> None:
            told = SimulatorSettings(repeat_s=0.05)
            clients = {name: self.client(name) for name in self.tokens}
            settings.setdefault("clients", clients)
            async with scene(
                self.bus, ExternalConnector, create_app, told, port=self.port,
                state_file=self.folder / "calls.db", **settings,
            ) as stage:  # fmt: skip
                staying = asyncio.create_task(stage.connector.stay())
                await act(stage)
                staying.cancel()
                await asyncio.gather(staying, return_exceptions=True)

        asyncio.run(whole())

    async def ask(
        self, stage: Scene, method: str, path: str, body: Any = None, *,
        client: str = "medevac", **headers: str,
    ) -> HttpAnswer:  # fmt: skip
        told = {"authorization": f"Bearer {self.tokens[client]}"}
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = b"" if body is None else body if isinstance(body, bytes) else encode(body)
        return await stage.http.request(method, f"/external/calls{path}", data, told)

    async def hand_in(self, stage: Scene, key: str = "k1", *, client: str = "medevac",
                      **changes: Any) -> Any:  # fmt: skip
        answer = await self.ask(
            stage, "POST", "", HAND_IN | changes, client=client, idempotency_key=key
        )
        assert answer.status == 201, answer.body
        view = msgspec.json.decode(answer.body)
        assert answer.headers["location"] == f"/external/calls/{view['id']}"
        return view


@pytest.fixture
def house(bus: Bus, tmp_path: Path) -> House:
    return House(bus, tmp_path)


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)


def status(id: str, number: int = 1, client: str = "medevac", **changes: Any) -> Message:
    body = STATUS | {"external": f"{client}-{id}", "event_id": f"e{number}"} | changes
    return Message.new("external.status.v1", "smp", body, subject=f"ext-{client}-{id}")


def problem(answer: HttpAnswer, status: int, kind: str) -> Any:
    """Return a problem, whole as RFC 9457 wants it."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    told = msgspec.json.decode(answer.body)
    assert told["status"] == status
    assert told["type"] == f"urn:smpbus:problem:{kind}"
    assert told["title"]
    assert told["detail"]
    return told


# -- handing in -----------------------------------------------------------------------------------


def test_a_call_is_handed_in_whole_and_once(house: House) -> None:
    async def act(stage: Scene) -> None:
        view = await house.hand_in(stage, weather={"snow": True})
        assert (view["status"], view["call_id"], view["events"]) == (None, None, 0)
        assert view["number"] == HAND_IN["number"]
        again = await house.hand_in(stage, weather={"snow": True})
        assert again == view
        turned = dict(reversed(list((HAND_IN | {"weather": {"snow": True}}).items())))
        answer = await house.ask(stage, "POST", "", turned, idempotency_key="k1")
        assert answer.status == 201  # the same, written down in another order
        other = await house.ask(stage, "POST", "", HAND_IN, idempotency_key="k1")
        problem(other, 422, "key_reused")
        assert (await house.hand_in(stage, "k2"))["id"] != view["id"]
        private = await house.hand_in(stage, "k1", client="private")
        assert private["id"] != view["id"]  # keys of one service are none of another

    house.play(act)
    calls = house.bus.bodies("external.call.v1")
    assert len(calls) == 3
    first, message = calls[0], house.bus.accepted[0]
    assert first["weather"] == {"snow": True}
    assert (first["client"], message.subject) == ("medevac", f"ext-{first['external']}")
    assert HAND_IN.items() <= first.items()
    for message in house.bus.accepted:
        catalogue.entry(message.type).read(message.body)


def test_a_service_cannot_write_what_is_ours(house: House) -> None:
    async def act(stage: Scene) -> None:
        await house.hand_in(stage, client="medevac", external="private-1")

    house.play(act)
    (call,) = house.bus.bodies("external.call.v1")
    assert call["external"].startswith("medevac-")


def test_while_the_bus_is_away_it_is_503_and_the_repeat_is_the_same_call(house: House) -> None:
    async def act(stage: Scene) -> None:
        house.bus.silent = True
        answer = await house.ask(stage, "POST", "", HAND_IN, idempotency_key="k1")
        assert problem(answer, 503, "bus_away")
        assert answer.headers["retry-after"] == "3"
        house.bus.silent = False
        stage.reconnect()
        await stage.connector.bus.wait_welcomed()
        await house.hand_in(stage)
        house.bus.refuse = Code.QUEUE_FULL
        answer = await house.ask(stage, "POST", "", HAND_IN, idempotency_key="k2")
        assert answer.headers["retry-after"] == "7"

    house.play(act, accept_timeout_s=0.2)
    assert len({message.id for message in house.bus.accepted}) == 1


PATIENT = {"sex": "male", "snils": "00000000017"}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"reason": None}, "reason", "Expected"),
    ({"address": {}}, "address.text", "is required"),
    ({"address": {"text": "  "}}, "address.text", "where to"),
    ({"reason": {"code": "", "system": "x"}}, "reason.code", "why"),
    ({"received_at": "2126-01-01T00:00:00Z"}, "received_at", "future"),
    ({"received_at": "2026-01-01T00:00:00"}, "received_at", "Expected"),
    ({"urgency": 4}, "urgency", "Expected"),
    ({"patients": [PATIENT | {"snils": "12345678901"}]}, "patients[0].snils", "check digit"),
    ({"patients": [PATIENT, {"enp": "1"}]}, "patients[1].enp", "16 digits"),
    ({"patients": [{"birth_date": "2126-01-01"}]}, "patients[0].birth_date", "future"),
]


@pytest.mark.parametrize(("changes", "path", "rule"), WRONG, ids=[one[1] for one in WRONG])
def test_what_breaks_a_rule_is_400_with_field_and_rule_and_without_the_value(
    house: House, changes: dict[str, Any], path: str, rule: str
) -> None:
    async def act(stage: Scene) -> None:
        answer = await house.ask(stage, "POST", "", HAND_IN | changes, idempotency_key="k1")
        told = problem(answer, 400, "bad_request")
        assert told["path"] == path
        assert rule in told["rule"]
        assert "12345678901" not in answer.body.decode()
        await house.hand_in(stage)  # the key is free: nothing was handed in

    house.play(act)
    (rejected,) = house.bus.bodies("input.rejected.v1")
    assert rejected["operation"] == "external.call.v1 medevac"


def test_requests_that_are_none(house: House) -> None:
    async def act(stage: Scene) -> None:
        async def post(body: Any, **headers: str) -> HttpAnswer:
            return await house.ask(stage, "POST", "", body, **headers)

        problem(await post(HAND_IN), 400, "idempotency_key")
        problem(await post(HAND_IN, idempotency_key="k" * 201), 400, "idempotency_key")
        problem(await post(b"{", idempotency_key="k"), 400, "bad_request")
        problem(await post(b"[]", idempotency_key="k"), 400, "bad_request")
        xml = await post(HAND_IN, idempotency_key="k", content_type="text/xml")
        problem(xml, 415, "media_type")
        long = HAND_IN | {"extensions": {"x": "y" * 2000}}
        problem(await post(long, idempotency_key="k"), 413, "too_large")
        answer = await house.ask(stage, "DELETE", "")
        problem(answer, 405, "no_such_page")
        assert answer.headers["allow"] == "POST"
        problem(await stage.http.request("GET", "/nowhere"), 404, "no_such_page")
        problem(await stage.http.request("GET", "/external/calls/"), 404, "no_such_page")
        answer = await stage.http.request("POST", "/external/calls", encode(HAND_IN))
        problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        told = {"authorization": f"Bearer {new_token()}"}
        answer = await stage.http.request("GET", "/external/calls/x", b"", told)
        problem(answer, 401, "unauthorized")

    house.play(act, body_bytes_max=1500)
    assert house.bus.bodies("external.call.v1") == []


# -- who may, and how much ------------------------------------------------------------------------


def test_a_call_of_another_service_is_not_there(house: House) -> None:
    async def act(stage: Scene) -> None:
        mine = (await house.hand_in(stage))["id"]
        for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
            answer = await house.ask(stage, method, f"/{mine}{path}", client="private")
            other = problem(answer, 404, "no_such_call")
            none = await house.ask(stage, method, f"/{'0' * 32}{path}", client="private")
            assert problem(none, 404, "no_such_call") == other

    house.play(act)


def test_a_token_is_good_only_from_its_networks(house: House) -> None:
    async def act(stage: Scene) -> None:
        answer = await house.ask(stage, "GET", "/x")
        problem(answer, 403, "elsewhere")

    house.play(act, clients={"medevac": house.client("medevac", networks=["10.9.0.0/16"])})
    with pytest.raises(StartError, match="networks"):
        house.play(act, clients={"medevac": house.client("medevac", networks=["everywhere"])})
    with pytest.raises(StartError, match=r"connectors\.external\.clients"):
        house.play(act, clients={})


def test_quotas_of_a_service_are_its_own_and_outlive_a_restart(house: House) -> None:
    clients = {
        "medevac": house.client("medevac", calls_per_day=2),
        "private": house.client("private", requests_per_minute=4),
    }

    async def first(stage: Scene) -> None:
        await house.hand_in(stage, "k1")
        await house.hand_in(stage, "k2")
        answer = await house.ask(stage, "POST", "", HAND_IN, idempotency_key="k3")
        assert problem(answer, 429, "quota")
        assert 86_000 < int(answer.headers["retry-after"]) <= 86_400
        await house.hand_in(stage, "k1")  # a repeat is no call more
        for _ in range(2):
            assert (await house.ask(stage, "GET", "/x", client="private")).status == 404
        answer = await house.ask(stage, "GET", "/x", client="private")
        assert problem(answer, 429, "quota")
        assert 1 <= int(answer.headers["retry-after"]) <= 30
        assert (await house.ask(stage, "GET", "/x")).status == 404

    async def second(stage: Scene) -> None:
        answer = await house.ask(stage, "POST", "", HAND_IN, idempotency_key="k3")
        problem(answer, 429, "quota")

    house.play(first, clients=clients)
    house.play(second, clients=clients)
    assert len({message.id for message in house.bus.accepted}) == 2


# -- following and cancelling ---------------------------------------------------------------------


def test_events_come_in_order_and_stay_over_a_restart(house: House) -> None:
    calls: list[str] = []

    async def first(stage: Scene) -> None:
        calls.append((await house.hand_in(stage))["id"])
        await stage.handle(status(calls[0], 1, code="received"))
        await stage.handle(status(calls[0], 2, code="departed"))
        await stage.handle(status(calls[0], 2, code="departed"))  # its settlement was lost

    async def second(stage: Scene) -> None:
        late = status(calls[0], 3, code="accepted", occurred_at="2026-11-23T08:16:00+03:00")
        await stage.handle(late)
        answer = await house.ask(stage, "GET", f"/{calls[0]}/events?after=1")
        told = msgspec.json.decode(answer.body)
        assert [(one["number"], one["code"]) for one in told["events"]] == [
            (2, "departed"), (3, "accepted"),
        ]  # fmt: skip
        assert told["next"] == 3
        view = msgspec.json.decode((await house.ask(stage, "GET", f"/{calls[0]}")).body)
        assert (view["status"], view["events"], view["call_id"]) == ("departed", 3, "2026-4711")
        again = await house.hand_in(stage)  # answered as before, whatever has happened since
        assert again == view | {"status": None, "events": 0, "call_id": None}

    house.play(first)
    house.play(second)


def test_nothing_of_persons_is_told_or_kept(house: House) -> None:
    private: dict[str, Any] = {
        "operator": {"login": "disp-2", "name": "Тайная Т."},
        "remark": "Тайная Т. больна",
        "brigade": {"id": "12", "members": "Тайная Т."},
        "geo": {"lat": 1, "lon": 2},
    }

    async def act(stage: Scene) -> None:
        id = (await house.hand_in(stage))["id"]
        await stage.handle(status(id, **private))
        told = (await house.ask(stage, "GET", f"/{id}/events")).body.decode()
        assert "12" in told
        assert "Тайная" not in told
        assert "geo" not in told

    house.play(act)
    kept = b"".join(path.read_bytes() for path in house.folder.glob("calls.db*"))
    assert b"2026-4711" in kept
    for secret in ("Тайная", "+70000000001", "Вымышленная", "k1"):
        assert secret.encode() not in kept


def test_who_waits_for_an_event_has_it_at_once(house: House) -> None:
    async def act(stage: Scene) -> None:
        id = (await house.hand_in(stage))["id"]
        other = (await house.hand_in(stage, "k2"))["id"]
        path = f"/{id}/events?after=0&wait_s=20"
        waiting = asyncio.create_task(house.ask(stage, "GET", path))
        await until(lambda: stage.connector._waiting.count, "the question to wait")  # type: ignore[attr-defined]
        await stage.handle(status(other))
        await house.ask(stage, "GET", f"/{other}/events?after=0&wait_s=20")
        assert not waiting.done()
        await stage.handle(status(id))
        answer = await asyncio.wait_for(waiting, 5)
        assert [one["code"] for one in msgspec.json.decode(answer.body)["events"]] == ["departed"]
        begun = time.monotonic()
        answer = await house.ask(stage, "GET", f"/{id}/events?after=1&wait_s=0.3")
        assert msgspec.json.decode(answer.body) == {"events": [], "next": 1}
        assert time.monotonic() - begun >= 0.3

    house.play(act)


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("after=x", "after"),
        ("after=-1", "after"),
        ("wait_s=21", "wait_s"),
        ("wait_s=nan", "wait_s"),
    ],
)
def test_a_question_without_sense_is_400(house: House, query: str, path: str) -> None:
    async def act(stage: Scene) -> None:
        id = (await house.hand_in(stage))["id"]
        answer = await house.ask(stage, "GET", f"/{id}/events?{query}")
        assert problem(answer, 400, "bad_request")["path"] == path

    house.play(act)


def test_a_call_is_cancelled_once_and_not_when_it_has_ended(house: House) -> None:
    async def act(stage: Scene) -> None:
        id = (await house.hand_in(stage))["id"]
        why = {"reason": "Больного увезли"}
        answer = await house.ask(stage, "POST", f"/{id}/cancel", why)
        assert answer.status == 202
        view = msgspec.json.decode(answer.body)
        asked = datetime.fromisoformat(view["cancel_asked_at"])
        assert abs(datetime.now(UTC) - asked) < timedelta(minutes=1)
        again = await house.ask(stage, "POST", f"/{id}/cancel")
        assert (again.status, msgspec.json.decode(again.body)) == (202, view)
        bad = await house.ask(stage, "POST", f"/{id}/cancel", why, content_type="text/plain")
        problem(bad, 415, "media_type")
        other = (await house.hand_in(stage, "k2"))["id"]
        await stage.handle(status(other, code="finished"))
        problem(await house.ask(stage, "POST", f"/{other}/cancel"), 409, "ended")

    house.play(act)
    (cancelled,) = house.bus.bodies("external.cancelled.v1")
    assert cancelled["reason"] == "Больного увезли"
    subjects = {message.subject for message in house.bus.accepted[:2]}
    assert subjects == {f"ext-{cancelled['external']}"}


def test_a_lost_file_costs_no_event_and_makes_no_second_call(house: House) -> None:
    async def first(stage: Scene) -> None:
        await house.hand_in(stage)

    async def second(stage: Scene) -> None:
        (call,) = house.bus.bodies("external.call.v1")
        id = call["external"].rpartition("-")[2]
        await stage.handle(status(id))
        view = msgspec.json.decode((await house.ask(stage, "GET", f"/{id}")).body)
        assert (view["status"], view["number"]) == ("departed", None)
        again = await house.hand_in(stage)
        assert (again["id"], again["number"]) == (id, HAND_IN["number"])
        other = await house.ask(stage, "POST", "", HAND_IN | {"urgency": 2}, idempotency_key="k1")
        problem(other, 422, "key_reused")

    house.play(first)
    for path in house.folder.glob("calls.db*"):
        path.unlink()
    house.play(second)
    assert len({message.id for message in house.bus.accepted}) == 1


def test_what_is_no_status_of_ours_is_a_dead_letter(house: House) -> None:
    async def act(stage: Scene) -> None:
        with pytest.raises(Reject, match=r"connector\.no_type"):
            await stage.handle(Message.new("call.status.v1", "smp", STATUS))
        with pytest.raises(Reject, match=r"connector\.bad_body"):
            await stage.handle(Message.new("external.status.v1", "smp", {}))
        with pytest.raises(Reject, match=r"external\.unknown"):
            await stage.handle(status("1" * 32, client="stranger"))

    house.play(act)


# -- webhooks -------------------------------------------------------------------------------------


async def told(stage: Scene, bus: Bus, message: Message) -> Message:
    """Bring a status, and return the notice for the webhook that comes of it."""
    await stage.handle(message, 900)
    notice = bus.accepted[-1]
    assert notice.type == "external.notice.v1"
    return notice


def test_a_webhook_gets_each_event_signed_and_once_in_effect(house: House) -> None:
    async def act(stage: Scene) -> None:
        drive = {"token": house.tokens["medevac"], "secret": SECRET, "count": 1}
        await stage.simulator.request("POST", "/drive", encode(drive))
        ledger = await stage.wait(lambda ledger: ledger["calls"])
        id = ledger["calls"][0]["id"]
        first = await told(stage, house.bus, status(id, 1, code="received"))
        second = await told(stage, house.bus, status(id, 2, code="departed"))
        again = await told(stage, house.bus, status(id, 2, code="departed"))
        assert first.subject == second.subject == f"tell-medevac-{id}"
        assert second.id == again.id != first.id  # the router accepts it once
        assert await stage.handle(first, 1) == "HTTP 200"
        assert await stage.handle(second, 2) == "HTTP 200"
        assert await stage.handle(second, 2, 2) == "HTTP 200"  # its settlement was lost
        ledger = await stage.ledger()
        assert [one["told"] for one in ledger["calls"]] == [["received", "departed"]]
        assert [one["key"] for one in ledger["entries"]] == ["testbus-1", "testbus-2"]
        assert (ledger["repeats"], ledger["disorder"], ledger["refused"]) == (1, [], [])

    house.play(act, clients={"medevac": house.client("medevac", house.webhook)})


def test_a_failed_webhook_is_tried_again_and_its_service_can_ask_meanwhile(house: House) -> None:
    async def act(stage: Scene) -> None:
        drive = {"token": house.tokens["medevac"], "secret": SECRET}
        await stage.simulator.request("POST", "/drive", encode(drive))
        id = (await stage.wait(lambda ledger: ledger["calls"]))["calls"][0]["id"]
        notice = await told(stage, house.bus, status(id))
        await stage.faults(fail=1.0)  # half of them after the work: the answer is lost
        for attempt in range(1, 9):
            with pytest.raises(Retry, match="HTTP 500"):
                await stage.handle(notice, 1, attempt)
        await told(stage, house.bus, status(id, 2, code="arrived"))
        events = msgspec.json.decode((await house.ask(stage, "GET", f"/{id}/events")).body)
        assert [one["code"] for one in events["events"]] == ["departed", "arrived"]
        await stage.faults(fail=0.0, spoil="redirect")
        with pytest.raises(Retry, match="HTTP 302"):
            await stage.handle(notice, 1, 9)
        await stage.faults(spoil="", refuse=1.0)
        with pytest.raises(Reject, match="HTTP 422"):
            await stage.handle(notice, 1, 10)
        await stage.faults(refuse=0.0)
        assert await stage.handle(notice, 1, 11) == "HTTP 200"
        ledger = await stage.ledger()
        assert ledger["calls"][0]["told"] == ["departed"]
        assert ledger["repeats"] > 0

    house.play(act, clients={"medevac": house.client("medevac", house.webhook)})


def test_while_the_bus_takes_no_notice_a_status_comes_again(house: House) -> None:
    async def act(stage: Scene) -> None:
        id = (await house.hand_in(stage))["id"]
        house.bus.refuse = Code.QUEUE_FULL
        with pytest.raises(Retry) as caught:
            await stage.handle(status(id))
        assert caught.value.after_s == 7.0

    house.play(act, clients={"medevac": house.client("medevac", GONE)})


def test_a_notice_for_a_webhook_that_is_no_more_is_settled(house: House) -> None:
    async def act(stage: Scene) -> None:
        notice = catalogue.entry("external.notice.v1").example
        for client in ("medevac", "stranger"):
            message = Message.new("external.notice.v1", "external", notice | {"client": client})
            assert "webhook" in str(await stage.handle(message))
        with pytest.raises(Reject, match=r"connector\.bad_body"):
            await stage.handle(
                Message.new("external.notice.v1", "external", notice | {"event": None})
            )

    house.play(act)


def test_a_dead_webhook_is_left_alone_and_holds_nobody_up(house: House) -> None:
    clients = {
        "medevac": house.client("medevac", GONE),
        "private": house.client("private", house.webhook),
    }

    async def act(stage: Scene) -> None:
        drive = {"token": house.tokens["private"], "secret": SECRET}
        await stage.simulator.request("POST", "/drive", encode(drive))
        good = (await stage.wait(lambda ledger: ledger["calls"]))["calls"][0]["id"]
        dead = (await house.hand_in(stage))["id"]
        notice = await told(stage, house.bus, status(dead))
        notes = []
        for attempt in range(1, 4):
            with pytest.raises(Retry) as caught:
                await stage.handle(notice, 1, attempt)
            notes.append(str(caught.value))
        waits = "external.webhook_waits"
        assert [note == waits for note in notes] == [False, False, True]  # the breaker opened
        assert caught.value.after_s is not None
        assert caught.value.after_s > 0
        other = await told(stage, house.bus, status(good, client="private"))
        assert await stage.handle(other, 2) == "HTTP 200"

    house.play(act, clients=clients)


def test_a_slow_webhook_takes_no_more_than_its_share_of_the_credit(house: House) -> None:
    async def act(stage: Scene) -> None:
        id = (await house.hand_in(stage))["id"]
        drive = {"token": house.tokens["medevac"], "secret": SECRET, "count": 0}
        await stage.simulator.request("POST", "/drive", encode(drive))
        notices = [await told(stage, house.bus, status(id, n)) for n in range(1, 7)]
        await stage.faults(delay_s=0.5)
        tries = [stage.handle(notice, n) for n, notice in enumerate(notices)]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        assert outcomes.count("HTTP 200") == 3  # half of a credit of 6
        assert sum(isinstance(one, Retry) for one in outcomes) == 3

    clients = {"medevac": house.client("medevac", house.webhook)}
    house.play(act, clients=clients, credit=6)


def test_a_signature_is_of_the_body_the_time_and_the_secret() -> None:
    signed = sign(b"secret", b"body", 1000)
    assert is_signed(b"secret", b"body", signed, 1200)
    for secret, body, header, now in (
        (b"other", b"body", signed, 1000),
        (b"secret", b"Body", signed, 1000),
        (b"secret", b"body", signed, 1301),
        (b"secret", b"body", signed, 699),
        (b"secret", b"body", signed.replace("t=1000", "t=1001"), 1000),
        (b"secret", b"body", "t=1000", 1000),
        (b"secret", b"body", "", 1000),
        (b"secret", b"body", "t=x,v1=y", 1000),
        (b"secret", b"body", "t=1000,v1=\xe9", 1000),
    ):
        assert not is_signed(secret, body, header, now)


def test_a_secret_must_be_long_and_its_owners_alone(house: House) -> None:
    async def act(stage: Scene) -> None:
        raise AssertionError("it must not start")

    clients = {"medevac": house.client("medevac", house.webhook)}
    secret = house.folder / "webhook.secret"
    secret.write_text("short", encoding="ascii")
    with pytest.raises(StartError, match="32"):
        house.play(act, clients=clients)
    secret.chmod(0o644)
    with pytest.raises(StartError, match="chmod 600"):
        house.play(act, clients=clients)


# -- the documents --------------------------------------------------------------------------------


def test_the_document_tells_of_every_request_and_of_the_webhook(house: House) -> None:
    async def act(stage: Scene) -> None:
        document = msgspec.json.decode((await stage.http.request("GET", "/openapi.json")).body)
        documents.check(document, stage.connector.app())  # type: ignore[arg-type]
        assert document["security"] == [{"token": []}]
        (webhook,) = document["webhooks"].values()
        assert {one["name"] for one in webhook["post"]["parameters"]} == {
            "Idempotency-Key", "Signature",
        }  # fmt: skip
        for path, methods in document["paths"].items():
            for one in methods.values():
                wanted = {"401", "403", "429"} | ({"404"} if "{id}" in path else set())
                assert wanted <= one["responses"].keys()
        page = (await stage.http.request("GET", "/docs")).body.decode()
        assert "Idempotency-Key" in page
        assert "Hand in a call" in page

    house.play(act)


def test_the_example_of_the_document_can_be_handed_in(house: House) -> None:
    async def act(stage: Scene) -> None:
        document = msgspec.json.decode((await stage.http.request("GET", "/openapi.json")).body)
        operation = document["paths"]["/external/calls"]["post"]
        example = operation["requestBody"]["content"]["application/json"]["example"]
        answer = await house.ask(stage, "POST", "", example, idempotency_key="k1")
        shape = operation["responses"]["201"]["content"]["application/json"]["schema"]
        told = msgspec.json.decode(answer.body)
        assert list(documents.problems(document, shape, told)) == []
        answer = await house.ask(stage, "POST", "", {}, idempotency_key="k2")
        shape = operation["responses"]["400"]["content"]["application/problem+json"]["schema"]
        told = msgspec.json.decode(answer.body)
        assert list(documents.problems(document, shape, told)) == []

    house.play(act)
