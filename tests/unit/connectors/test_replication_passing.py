"""What passes from one bus to another, as what; and the settings that the README shows."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.partners.replication import ReplicationSettings
from connectors.partners.replication.passing import SessionEnded, passed_on, verdict
from connectors.runtime.bus.settings import load as load_connector
from proto.client import Reject, Retry
from proto.errors import FATAL, Code, Refused
from proto.exits import StartError
from proto.message import NAME_GRAMMAR, Message
from router.config import load
from router.core.permission import Rights
from router.core.routing import Routes
from router.settings import Permission

ROOT = Path(__file__).parents[3]
README = ROOT / "connectors" / "partners" / "replication" / "README.md"
EVERY = Rights(Permission(relay=["*"]))
MESSAGE = Message.new("call.status.v1", "smp", {"x": 1}, subject="call-1", correlation_id="c")

names = st.from_regex(NAME_GRAMMAR, fullmatch=True).filter(lambda name: len(name) < 50)
buses = st.from_regex(r"[0-9a-f]{12}", fullmatch=True)


@given(names, buses, buses, buses)
def test_only_the_source_changes_and_only_once(name: str, a: str, b: str, c: str) -> None:
    message = msgspec.structs.replace(MESSAGE, source=name)
    told = passed_on(message, a, b)
    assert told == msgspec.structs.replace(message, source=f"{a}.{name}")
    assert EVERY.may_relay(told.source, b) == (a != b)
    assert passed_on(told, b, c) == (None if c == a else told)


class World:
    """Buses with naive routes: what one accepts goes to every neighbour, and what it has accepted
    before is dropped by its router."""

    def __init__(self, links: set[tuple[int, int]], count: int) -> None:
        self.links = [(a, b) for a, b in links if a != b] + [(b, a) for a, b in links if a != b]
        self.accepted: list[list[tuple[str, str]]] = [[] for _ in range(count)]
        self.sent = 0

    def publish(self, at: int, message: Message) -> None:
        if (message.source, message.id) in self.accepted[at]:
            return
        assert "." not in message.source or EVERY.may_relay(message.source, f"b{at}")
        self.accepted[at].append((message.source, message.id))
        for here, there in self.links:
            if here == at and (told := passed_on(message, f"b{here}", f"b{there}")):
                self.sent += 1
                self.publish(there, told)

    def reached(self, start: int) -> set[int]:
        found, todo = {start}, [start]
        while todo:
            here = todo.pop()
            for a, b in self.links:
                if a == here and b not in found:
                    found.add(b)
                    todo.append(b)
        return found


@given(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=15))
def test_everything_is_everywhere_once_whatever_the_links(links: set[tuple[int, int]]) -> None:
    world = World(links, 6)
    for at in range(6):
        world.publish(at, MESSAGE)  # equal ids of equal names, and yet six messages
    for at, accepted in enumerate(world.accepted):
        assert len(set(accepted)) == len(accepted) == len(world.reached(at))
    assert world.sent <= 6 * len(set(world.links)) * 2


@pytest.mark.parametrize("code", list(Code))
def test_what_a_refusal_means(code: Code) -> None:
    meant = verdict(Refused(code, "Иванов", 10))
    if code in FATAL:
        assert isinstance(meant, SessionEnded)
        return
    passing = code in {Code.QUEUE_FULL, Code.STORE_FULL, Code.STOPPING, Code.EXPIRED}
    assert isinstance(meant, Retry if passing else Reject)
    assert code in str(meant)
    assert "Иванов" not in str(meant)


# -- the settings of the README -------------------------------------------------------------------


@pytest.fixture
def sides(tmp_path: Path) -> dict[str, Path]:
    """The files that the README shows, as two folders."""
    text = README.read_text(encoding="utf-8")
    for name, body in re.findall(r"^```toml (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(body, encoding="utf-8")
    (tmp_path / "centre" / "smpbus.toml").write_text("")
    return {side: tmp_path / side / "smpbus.toml" for side in ("north", "centre")}


def test_the_readme_shows_two_sides_that_fit(sides: dict[str, Path]) -> None:
    north, centre = (load(file, environ={}).settings for file in sides.values())
    told: Any = load_connector("replication", ReplicationSettings, sides["north"]).settings
    assert isinstance(told, ReplicationSettings)
    assert told.destination in north.permissions["replication"].consume
    assert told.partner.queue in centre.permissions[told.partner.name].consume
    for settings, name, type in (
        (north, "smp", "call.status.v1"),
        (north, "replication", "incident.card.v1"),
        (centre, "north", "call.status.v1"),
        (centre, "sys112", "incident.card.v1"),
    ):
        assert Rights(settings.permissions[name]).publish.match(type)
        assert Routes(settings.routes).find(name, type, 2)


def test_the_example_table_is_valid() -> None:
    example = ROOT / "config" / "connectors.example.toml"
    told: Any = load_connector("replication", ReplicationSettings, example).settings
    assert told.partner.system == "Центральная шина"
    shown = re.findall(r"^# (listen|credit|stop_s) = (.*)$", table_of(example), re.MULTILINE)
    assert {key: str(getattr(told, key)) for key, _ in shown} == {
        key: value.strip('"') for key, value in shown
    }


def table_of(example: Path) -> str:
    text = example.read_text(encoding="utf-8")
    begun = text[text.index("[connectors.replication]") :]
    return re.split(r"^\[connectors\.(?!replication)", begun, maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('url = "tcp://10.0.0.5:5570"', 'url = "ipc:///run/bus.sock"', "partner.url"),
        ('name = "north"', 'name = "North"', "partner.name"),
        ('server_key = "central.pub"\n', "", "server_key"),
        ('key = "keys/replication.key"\n', "", "key"),
        ('name = "north"', 'names = "north"', "names"),
    ],
)
def test_a_wrong_setting_is_named(sides: dict[str, Path], old: str, new: str, named: str) -> None:
    text = sides["north"].read_text(encoding="utf-8")
    assert old in text
    sides["north"].write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(StartError, match=named) as caught:
        load_connector("replication", ReplicationSettings, sides["north"])
    assert caught.value.exit_code == 78
