"""The canonical dialect: the bus's own words over HTTP.

See `connectors.partners.rmis.contract`.
"""

import hashlib
from typing import TypeVar
from urllib.parse import quote

import msgspec

from connectors.partners.rmis.contract import (
    Booked,
    Change,
    Changes,
    LooseChanges,
    Read,
    Taken,
    UnreadChange,
    Visited,
)
from connectors.runtime.door.body import BadInput, convert, refuse
from connectors.runtime.oddities import oddities
from connectors.runtime.partner.partner import Answer, Partner, path_part
from connectors.runtime.partner.reply import read_reply
from proto import clinical, schemas
from proto.client import Reject
from proto.identifiers import new_id

Shape = TypeVar("Shape")


class Canonical:
    """See `connectors.partners.rmis.dialect.Dialect`."""

    def __init__(self, partner: Partner) -> None:
        self._partner = partner

    async def put_ticket(self, ticket: schemas.CallTicket, body: bytes, key: str) -> Taken:
        """Hand over a ticket."""
        return await self._ask("PUT", f"/tickets/{path_part(ticket.id)}", body, key, Taken)

    async def put_status(self, status: schemas.StatusEvent, body: bytes, key: str) -> Taken:
        """Hand over a status."""
        path = f"/tickets/{path_part(status.call_id)}/statuses"
        return await self._ask("POST", path, body, key, Taken)

    async def put_card(self, card: clinical.CallCard, body: bytes, key: str) -> Taken:
        """Hand over a call card."""
        return await self._ask("PUT", f"/cards/{path_part(card.card_id)}", body, key, Taken)

    async def identify(self, asked: clinical.PatientQuestion) -> clinical.PatientAnswer:
        """Ask who it is."""
        body = msgspec.json.encode(asked)
        shape = clinical.PatientAnswer
        return await self._ask("POST", "/patients/identify", body, new_id(), shape)

    async def summary(self, patient: str) -> clinical.PatientSummary:
        """Ask what a brigade must know; nothing known is an answer."""

        def read(answer: Answer) -> clinical.PatientSummary:
            if answer.status == 404:
                return clinical.PatientSummary(patient=patient, known=False)
            if answer.status >= 300:
                raise Reject(f"HTTP {answer.status}")
            return read_reply(answer, clinical.PatientSummary)

        path = f"/patients/{path_part(patient)}/summary"
        return await self._partner.ask("GET", path, b"", new_id(), read)

    async def hospitals(self, profile: str) -> clinical.HospitalAnswer:
        """Ask where there is a free bed."""
        path = f"/hospitals?profile={_query(profile)}"
        return await self._ask("GET", path, b"", new_id(), clinical.HospitalAnswer)

    async def book(self, bed: clinical.BedRequest, body: bytes, key: str) -> Booked:
        """Book a bed."""
        return await self._ask("POST", "/bookings", body, key, Booked)

    async def cancel(self, cancelled: clinical.BedCancel, body: bytes, key: str) -> Booked:
        """Give a bed back."""
        path = f"/bookings/{path_part(cancelled.booking_id)}/cancel"
        return await self._ask("POST", path, body, key, Booked)

    async def announce(self, notice: clinical.ArrivalNotice, body: bytes, key: str) -> Taken:
        """Tell an emergency room who will come."""
        return await self._ask("POST", "/arrivals", body, key, Taken)

    async def visit(self, wanted: clinical.VisitRequest, body: bytes, key: str) -> Visited:
        """Ask for a visit."""
        return await self._ask("POST", "/visits", body, key, Visited)

    async def changes(self, after: str) -> Changes:
        """Ask what became of all this."""
        page = await self._ask(
            "GET", f"/changes?after={_query(after)}", b"", new_id(), LooseChanges
        )
        return read_changes(page)

    async def _ask(
        self, method: str, path: str, body: bytes, key: str, shape: type[Shape]
    ) -> Shape:
        def read(answer: Answer) -> Shape:
            if answer.status >= 300:
                raise Reject(f"HTTP {answer.status}")
            return read_reply(answer, shape)

        return await self._partner.ask(method, path, body, key, read)


def read_changes(page: LooseChanges) -> Read:
    """Return the changes of a page, each read for itself."""
    changes: list[Change] = []
    unread: list[UnreadChange] = []
    for index, raw in enumerate(page.changes):
        try:
            refuse(oddities(raw))
            changes.append(convert(raw, Change))
        except BadInput as bad:
            path = f"changes[{index}].{bad.path}".rstrip(".")
            digest = hashlib.sha256(msgspec.json.encode(raw)).hexdigest()
            unread.append(UnreadChange(str(raw.get("id", ""))[:200], path, bad.rule, digest))
    return Read(changes=changes, unread=unread, cursor=page.cursor, more=page.more)


def _query(value: str) -> str:
    return quote(value, safe="")
