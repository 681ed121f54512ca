"""A click rings an operator's telephone, and then calls a number."""

import asyncio
from typing import Final, Protocol

from connectors.partners.ats.ami import Packet
from connectors.partners.ats.calls import CallBook
from connectors.partners.ats.session import AmiSession, LinkLost
from proto import schemas

MARGIN_S: Final = 5.0  # over the time that a telephone rings
CAUSE_LOOKS: Final = 50
CAUSE_S: Final = 1.0  # after a failure, the channel's hangup says why
# Of Q.850, what the exchange tells of a telephone that did not answer. Its own "Reason" is 0 for
# most of them.
CAUSES: Final = {
    "1": "no such number", "3": "no route", "17": "busy", "18": "no answer", "19": "no answer",
    "20": "not registered", "21": "declined", "27": "out of order", "34": "no line free",
}  # fmt: skip


class Dialling(Protocol):
    """How a telephone is called."""

    @property
    def channel(self) -> str:
        """The technology of the telephones."""

    @property
    def context(self) -> str:
        """The dial plan's context that calls the number."""

    @property
    def ring_s(self) -> float:
        """How long the operator's telephone rings."""


async def originate(
    session: AmiSession, calls: CallBook, key: str, request: schemas.DialRequest, how: Dialling
) -> tuple[str, str | None]:
    """Return what came of it (connected: the operator has picked up), and why when it failed."""
    fields = {
        "Channel": f"{how.channel}/{request.operator}", "Exten": request.number,
        "Context": how.context, "Priority": "1", "Async": "true",
        "Timeout": str(int(how.ring_s * 1000)), "ChannelId": key,
        # What the operator's telephone shows; the number of the line stays the operator's own.
        "CallerID": f'"{request.number}" <{request.operator}>',
    }  # fmt: skip

    def is_last(packet: Packet) -> bool:
        return packet.event == "OriginateResponse"

    try:
        *_, last = await session.ask("Originate", fields, is_last, how.ring_s + MARGIN_S)
    except LinkLost as lost:
        return "unknown", str(lost)
    if last["Response"] == "Success":
        return "connected", None
    if last.event:
        cause = await _cause(calls, key)
        if cause in CAUSES:
            return "failed", f"{CAUSES[cause]} ({cause})"
    return "failed", last["Reason"] or last["Message"] or None


async def _cause(calls: CallBook, key: str) -> str:
    """Return why the channel was hung up, "" when that is not heard soon."""
    for _ in range(CAUSE_LOOKS):
        if key in calls.causes:
            break
        await asyncio.sleep(CAUSE_S / CAUSE_LOOKS)
    return calls.causes.pop(key, "")
