"""The bodies of messages about calls that outside services hand in: the card platforms of other
services, medical evacuation, private ambulances. See `schemas` for the rules of all bodies.
"""

from typing import Annotated, Any

import msgspec

from .schemas import (
    Address,
    Body,
    Caller,
    Coded,
    Instant,
    Person,
    Required,
    Short,
    StatusEvent,
    Text,
)

# NAME of the outside service, a hyphen, the bus's number of the call; 200 leaves room for "ext-".
ExternalRef = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class HandIn(Body, frozen=True, kw_only=True):
    """A call as an outside service hands it in; `number` is that service's own, `received_at` is
    when it took the call. Fields that are not named here reach the ambulance as they are."""

    number: Short | None = None
    received_at: Instant
    reason: Coded
    urgency: Annotated[int, msgspec.Meta(ge=1, le=3)] | None = None
    place_type: Coded | None = None
    caller: Caller | None = None
    address: Address
    patients: Annotated[list[Person], msgspec.Meta(max_length=100)] = []
    description: Text | None = None
    extensions: dict[str, Any] = {}


class ExternalCall(HandIn, frozen=True, kw_only=True):
    """A call of an outside service on its way to the ambulance; `external` is what the ambulance
    names in each status of it."""

    external: ExternalRef
    client: Required
    handed_in_at: Instant


class ExternalCancelled(Body, frozen=True, kw_only=True):
    """The outside service wants its call no more."""

    external: ExternalRef
    client: Required
    reason: Text | None = None
    recorded_at: Instant


class ExternalNotice(Body, frozen=True, kw_only=True):
    """What the webhook of an outside service is to be told; `number` is that service's own of the
    call, `event` what it may know of a status."""

    external: ExternalRef
    client: Required
    number: Short | None = None
    event: dict[str, Any]


class ExternalStatus(StatusEvent, frozen=True, kw_only=True):
    """A status of a call that an outside service handed in."""

    external: ExternalRef
