"""What connectors declare: that it is true, and what follows from it."""

import asyncio
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, get_args, get_type_hints

import msgspec
import pytest

from connectors.partners.rmis.questions import Questions
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.ingress import NotAccepted
from connectors.runtime.bus.settings import (
    ConnectorSettings,
    DoorSettings,
    SessionSettings,
    load,
)
from connectors.runtime.bus.taking import ANY, answer, take
from connectors.runtime.door.body import BadInput
from connectors.runtime.door.served import Served
from connectors.runtime.markup.soap import SoapServed
from proto.client import BusClient, Consumer, Delivery, Reject, Retry
from proto.errors import Code, RequestFailed
from proto.message import Message

SHAPES: dict[str, type[Connector]] = {
    point.name: point.load() for point in entry_points(group="smpbus.connectors")
}
PARTS = {"_questions": Questions}  # of connectors, whose methods are named, too


@pytest.fixture(autouse=True)
def _in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proto.wording._chosen", "en")


def method_of(shape: type[Connector], name: str) -> Callable[..., Any]:
    part, _, method = name.rpartition(".")
    found: Callable[..., Any] = getattr(PARTS[part] if part else shape, method)
    return found


def declared() -> Iterator[tuple[Callable[..., Any], Any]]:
    """Yield every method that is named in a declaration, with the shape that it is to get."""
    for shape in SHAPES.values():
        for shaped, name in (*shape.takes.values(), *shape.answers.values()):
            yield method_of(shape, name), shaped
        for served in shape.serves.values():
            if isinstance(served, Served):
                yield method_of(shape, served.method), served.shape
            elif isinstance(served, SoapServed):
                for shaped, name in served.operations.values():
                    yield method_of(shape, name), shaped


def test_every_method_takes_the_shape_that_it_is_declared_with() -> None:
    found = list(declared())
    assert len(found) >= 40
    for method, shape in found:
        hints = list(get_type_hints(method).values())
        assert shape is hints[0] or shape in get_args(hints[0]), method.__qualname__


def test_a_method_that_is_not_there_is_told_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match=r"Wrong\.takes: lab\.order\.v1: there is no method bring"):

        class Wrong(Connector):
            takes: ClassVar = {"lab.order.v1": (bytes, "bring")}

    with pytest.raises(TypeError, match=r"Other\.answers"):

        class Other(Connector):
            answers: ClassVar = {"lab.what.v1": (bytes, "say")}


# -- what is taken and answered -------------------------------------------------------------------


class Order(msgspec.Struct):
    number: int


class Laboratory:
    """Has one method for each thing that can happen."""

    async def bring(self, order: Order, given: str) -> str:
        return f"{order.number} {given}"

    async def keep(self, body: bytes, _: object) -> str:
        return body.decode()

    async def away(self, _: Order, __: object) -> None:
        raise NotAccepted("busy", "The bus is busy.", 7, temporary=True)

    async def odd(self, _: Order, __: object) -> None:
        raise BadInput("number", "is too odd")

    async def mistake(self, _: Order, __: object) -> None:
        msgspec.json.decode(b"no JSON")


TAKES = {
    name: (Order, name) for name in ("bring", "away", "odd", "mistake")
} | {"part": (Order, "inner.bring")}  # fmt: skip


def taken(type: str, body: Any, takes: Any = TAKES) -> str | None:
    laboratory: Any = Laboratory()
    laboratory.inner = Laboratory()
    return asyncio.run(take(laboratory, takes, Message.new(type, "ward", body), "given"))


def test_the_declared_method_gets_the_body_in_its_shape() -> None:
    assert taken("bring", {"number": 7}) == "7 given"
    assert taken("part", {"number": 8}) == "8 given"
    assert taken("anything", b"as it is", {ANY: (bytes, "keep")}) == "as it is"


@pytest.mark.parametrize(
    ("type", "body", "kind", "reason"),
    [
        ("lab.other.v1", {"number": 7}, Reject, "lab.other.v1"),
        ("bring", {"number": "Иванов"}, Reject, "body"),
        ("bring", b"\xff", Reject, "body"),
        ("away", {"number": 7}, Retry, "busy"),
        ("odd", {"number": 7}, Reject, "number: is too odd"),
        ("mistake", {"number": 7}, msgspec.DecodeError, ""),
    ],
)
def test_what_is_not_as_it_should_be_ends_the_same_way_for_all(
    type: str, body: Any, kind: Any, reason: str
) -> None:
    with pytest.raises(kind) as ended:
        taken(type, body)
    assert reason in str(ended.value)
    assert "Иванов" not in str(ended.value)
    if kind is Retry:
        assert ended.value.after_s == 7.0


class Told(msgspec.Struct):
    name: str | None = None


class Register:
    async def say(self, asked: Order) -> Any:
        match asked.number:
            case 1:
                return {"plain": True}
            case 2:
                return Told("x")
            case 3:
                return Told(3)  # type: ignore[arg-type]
            case _:
                raise Retry("silent")


@pytest.mark.parametrize(
    ("type", "body", "code", "sentence"),
    [
        ("what.v1", {"number": 3}, Code.FAILED, "the register's answer does not fit: name"),
        ("what.v1", {"number": 4}, Code.FAILED, "the register does not answer: silent"),
        ("what.v1", {"number": "x"}, Code.BAD_MESSAGE, "not one of what.v1"),
        ("who.v1", {"number": 1}, Code.UNKNOWN_TYPE, "what.v1"),
    ],
)
def test_a_question_is_answered_or_says_why_not(
    type: str, body: Any, code: Code, sentence: str
) -> None:
    def ask(type: str, body: Any) -> Any:
        answers = {"what.v1": (Order, "say")}
        return asyncio.run(
            answer(Register(), answers, Message.new(type, "smp", body), "the register")
        )

    assert ask("what.v1", {"number": 1}) == {"plain": True}
    assert ask("what.v1", {"number": 2}) == {"name": "x"}
    with pytest.raises(RequestFailed) as failed:
        ask(type, body)
    assert failed.value.code == code
    assert sentence in failed.value.sentence


class Slow(Connector):
    """A connector that nobody is behind: its partner is always silent."""

    Settings: ClassVar = SessionSettings
    takes: ClassVar = {"lab.order.v1": (Order, "bring")}

    async def bring(self, order: Order, _: Delivery) -> str:
        raise Retry("silent", order.number or None, wish=True)


@pytest.mark.parametrize(
    ("settings", "attempt", "wished_s", "after_s"),
    [
        ({}, 3, 5, 5),
        ({}, 3, 0, None),
        ({"repeat_after_s": 3}, 1, 0, 3),
        ({"repeat_after_s": 3}, 3, 0, 12),
        ({"repeat_after_s": 3}, 3, 20, 20),
        ({"repeat_after_s": 3}, 90, 0, 300),
        ({"repeat_after_s": 3, "repeat_after_max_s": 9}, 4, 40, 9),
        ({"repeat_after_s": 3, "repeat_after_max_s": 1}, 4, 0, 3),
    ],
)
def test_the_pause_before_a_repeat_is_the_queues_or_that_of_the_settings(
    settings: dict[str, Any], attempt: int, wished_s: float, after_s: float | None
) -> None:
    async def act() -> None:
        bus = BusClient("inproc://nobody", name="slow")
        connector = Slow("slow", msgspec.convert(settings, SessionSettings), bus)
        message = Message.new("lab.order.v1", "ward", {"number": wished_s})
        consumer = Consumer(bus._session, "slow", 1, {})
        with pytest.raises(Retry) as retry:
            await connector.handle(Delivery(consumer, 1, attempt, message))
        assert retry.value.after_s == after_s
        assert connector.partners() == []
        assert connector.app() is None
        await connector.close()
        await bus.close()

    asyncio.run(act())


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "table", "idle"),
    [
        ("cssi112", 'listen = "127.0.0.1:1"\nopen = true', ["listen", "open"]),
        ("ats", 'listen = "127.0.0.1:1"', ["listen"]),
        ("external", '[connectors.external.partner]\nurl = "http://unused"', ["partner"]),
        ("rmis", 'listen = "127.0.0.1:1"', []),
    ],
)
def test_a_setting_that_a_connector_has_no_use_for_is_taken_with_a_warning(
    name: str, table: str, idle: list[str], tmp_path: Path
) -> None:
    url = "tcp://127.0.0.1:1" if name == "ats" else "http://127.0.0.1:1"
    partner = "" if name == "external" else f'[connectors.{name}.partner]\nurl = "{url}"\n'
    file = tmp_path / "smpbus.toml"
    file.write_text(f"[connectors.{name}]\n{table}\n{partner}", encoding="utf-8")
    loaded = load(name, SHAPES[name].Settings, file)
    assert len(loaded.idle) == len(idle)
    for key, sentence in zip(idle, loaded.idle, strict=True):
        assert sentence.startswith(f"{file}:")
        assert f" connectors.{name}.{key} " in sentence
        assert not hasattr(loaded.settings, key)


def test_nobody_has_a_setting_that_is_not_used() -> None:
    fields, bare = (set(one.__struct_fields__) for one in (ConnectorSettings, SessionSettings))
    assert SessionSettings.idle == fields - bare
    for name, shape in SHAPES.items():
        has_partner = "partner" in shape.Settings.__struct_fields__
        assert has_partner == (name != "external")
        assert issubclass(shape.Settings, DoorSettings) == (name not in ("ats", "cssi112"))
