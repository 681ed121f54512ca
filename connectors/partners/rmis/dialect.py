"""What every dialect of a hospitals' system can do, whatever its contract looks like.

Each operation raises Retry when the system does not answer, and Reject when it refuses what it was
given. A dialect that has no such operation raises Untold: the delivery is settled, and its note
says so.
"""

from typing import Protocol

from connectors.partners.rmis.contract import Booked, Changes, Taken, Visited
from proto import clinical, schemas


class Untold(Exception):
    """This contract has no place for it."""


class Identifier(Protocol):
    """Knows people."""

    async def identify(self, asked: clinical.PatientQuestion) -> clinical.PatientAnswer:
        """Ask who it is."""


class Dialect(Identifier, Protocol):
    """`key` is the idempotency key; `body` the message as it came, unknown fields and all."""

    async def put_ticket(self, ticket: schemas.CallTicket, body: bytes, key: str) -> Taken:
        """Hand over a ticket, new or changed."""

    async def put_status(self, status: schemas.StatusEvent, body: bytes, key: str) -> Taken:
        """Hand over a status of a ticket."""

    async def put_card(self, card: clinical.CallCard, body: bytes, key: str) -> Taken:
        """Hand over a call card, new or corrected."""

    async def summary(self, patient: str) -> clinical.PatientSummary:
        """Ask what a brigade must know."""

    async def hospitals(self, profile: str) -> clinical.HospitalAnswer:
        """Ask where there is a free bed."""

    async def book(self, bed: clinical.BedRequest, body: bytes, key: str) -> Booked:
        """Book a bed."""

    async def cancel(self, cancelled: clinical.BedCancel, body: bytes, key: str) -> Booked:
        """Give a bed back."""

    async def announce(self, notice: clinical.ArrivalNotice, body: bytes, key: str) -> Taken:
        """Tell an emergency room who will come."""

    async def visit(self, wanted: clinical.VisitRequest, body: bytes, key: str) -> Visited:
        """Ask for a visit."""

    async def changes(self, after: str) -> Changes:
        """Ask what became of all this."""
