"""A projection passes on the named fields of a body and no others."""

from pathlib import Path

import pytest

from proto.configuration.place import ConfigError
from proto.message import Message, decode_message, encode_message
from router.config import load
from router.core.projection import Projection
from router.core.routing import Routes
from tests.integration.bus import RouterProcess

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.fault("S10")


@pytest.mark.parametrize(
    ("paths", "body", "passed"),
    [
        (["id112"], b'{"id112":"1","name":"x"}', b'{"id112":"1"}'),
        (["a.b"], b'{"a":{"b":1.50,"c":2},"b":3}', b'{"a":{"b":1.50}}'),
        (["a.b"], b'{"a": [{"b":1,"c":2},{"c":3},4]}', b'{"a":[{"b":1},{}]}'),
        (["a.b", "a"], b'{"a":{"b":1,"c":2}}', b'{"a":{"b":1,"c":2}}'),
        (["a", "z.y"], b'{"a":12345678901234567890123}', b'{"a":12345678901234567890123}'),
        (["a.b"], b'{"a":"secret"}', b"{}"),
        (["a"], b'["a"]', b"{}"),
        (["a"], b"no JSON", b"{}"),
        (["a"], b"", b"{}"),
        (["a"], b'{"a":"\xff","b":1}', b'{"a":"\xff"}'),  # byte for byte: the consumer refuses it
        (["a"], b'{"a":1', b"{}"),
        (["a"], b'{"a":1}{"b":2}', b"{}"),
    ],
)
def test_only_named_fields_pass(paths: list[str], body: bytes, passed: bytes) -> None:
    """A whole card went to who needs a telephone; only what is named may leave."""
    assert Projection(paths).body(body) == passed


CARD = b'{"id112":"112-1","description":"\xd0\x91\xd0\xbe\xd0\xbb\xd1\x8c","state":"new"}'
ROUTES = """
[destinations.whole]
[destinations.part]
[[routes]]
type = "incident.card.v1"
to = ["whole", "part"]
{fields}
[[routes]]
type = "incident.card.v1"
source = "producer"
to = ["whole"]
"""
PERMISSIONS = """
[peers.producer]
publish = ["*"]
[peers.consumer]
consume = ["*"]
"""


def test_a_destination_is_handed_out_what_its_route_names_and_the_journal_keeps_all() -> None:
    """The whole card went to who needs a telephone. Another route without `fields` passes all."""
    routes = ROUTES.format(fields='fields = ["id112", "contact.caller.phone"]')
    with RouterProcess(routes=routes, permissions=PERMISSIONS) as router:
        with router.blocking("producer") as bus:
            sent = bus.message("incident.card.v1", CARD, subject="112-1")
            bus.publish(sent)
        with router.blocking("consumer") as bus:
            part = next(iter(bus.consume("part", timeout_s=10)))
            assert part.message.body == b'{"id112":"112-1"}'
            assert (part.message.id, part.message.subject) == (sent.id, "112-1")
            bus.ack(part, "taken")
        with router.blocking("consumer") as bus:
            whole = next(iter(bus.consume("whole", timeout_s=10)))
            assert whole.message.body == CARD
            bus.ack(whole, "taken")
        with router.blocking("producer") as bus:
            bus.publish(sent)  # a repeat of the whole is a repeat
        queues = router.ask("status")["queues"]
        assert all(row["pending"] == 0 for row in queues if row["destination"] in ("part", "whole"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ('fields = ["id113"]', "id112"),
        ('fields = ["contact.caller.fone"]', "contact.caller.phone"),
        ("fields = []", "fields"),
        ('fields = ["a b"]', "a b"),
    ],
)
def test_a_field_that_no_such_message_has_is_named(fields: str, said: str, tmp_path: Path) -> None:
    """A misspelt field would pass nothing, and nobody would know why."""
    (tmp_path / "smpbus.toml").write_text("")
    (tmp_path / "permissions.toml").write_text("")
    (tmp_path / "routes.toml").write_text(ROUTES.format(fields=fields))
    with pytest.raises(ConfigError) as refused:
        load(tmp_path / "smpbus.toml", environ={})
    assert said in str(refused.value)
    assert "routes.toml" in str(refused.value)


def test_the_shipped_routes_hand_out_what_their_connectors_read() -> None:
    """The watch and the exchange were given whole cards."""
    settings = load(ROOT / "config" / "smpbus.toml", environ={}).settings
    named = {tuple(route.to): route.fields for route in settings.routes if route.fields}
    assert named == {
        ("ats",): ["id112", "contact.caller.phone"],
        ("deadlines",): ["id112", "state", "repeat_of"],
    }
    routes = Routes(settings.routes)
    assert routes.projections().keys() == {"ats", "deadlines"}
    projections = routes.projections()["deadlines"]
    status = Message.new("call.status.v1", "smp", {"call_id": "1"})
    assert projections.raw(encode_message(status)) == encode_message(status)
    elsewhere = Message.new("incident.card.v1", "south.sys112", {"id112": "1", "region": "x"})
    passed = decode_message(projections.raw(encode_message(elsewhere)))
    assert passed.body == b'{"id112":"1"}'
