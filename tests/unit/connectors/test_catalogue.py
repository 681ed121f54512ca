"""The catalogue: every type has a schema, and its own example fits it."""

import json

import msgspec
import pytest

from proto import catalogue, schemas
from proto.message import Message


@pytest.mark.parametrize("entry", catalogue.entries(), ids=lambda entry: entry.name)
def test_example_fits_its_schema_and_survives_a_round_trip(entry: catalogue.Entry) -> None:
    typed = entry.read(msgspec.json.encode(entry.example))
    assert entry.read(msgspec.json.encode(typed)) == typed


@pytest.mark.parametrize("entry", catalogue.entries(), ids=lambda entry: entry.name)
def test_type_is_a_type_of_the_wire_and_has_a_json_schema(entry: catalogue.Entry) -> None:
    message = Message.new(entry.name, "smp", entry.example)
    assert msgspec.convert(msgspec.to_builtins(message), Message).type == entry.name
    schema = catalogue.json_schema(entry.name)
    assert schema["$ref"].rpartition("/")[2] == entry.schema.__name__
    assert json.dumps(schema)


def test_unknown_type_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        catalogue.entry("no.such.v1")


def test_an_extension_field_is_no_error() -> None:
    entry = catalogue.entry("call.status.v1")
    typed = entry.read(msgspec.json.encode(entry.example | {"weather": "snow"}))
    assert isinstance(typed, schemas.StatusEvent)


@pytest.mark.parametrize("field", ["event_id", "call_id", "code", "occurred_at"])
def test_a_missing_field_is_named(field: str) -> None:
    entry = catalogue.entry("call.status.v1")
    example = {key: value for key, value in entry.example.items() if key != field}
    with pytest.raises(msgspec.ValidationError, match=field):
        entry.read(msgspec.json.encode(example))


def test_a_time_without_an_offset_is_refused() -> None:
    entry = catalogue.entry("call.status.v1")
    body = entry.example | {"occurred_at": "2026-11-23T08:17:30"}
    with pytest.raises(msgspec.ValidationError, match="occurred_at"):
        entry.read(msgspec.json.encode(body))
