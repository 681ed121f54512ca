"""What an operator may change on a running router: dead letters, and holding a destination back.

Every change is on disk before it is answered, with the operator's reason beside it.
"""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from proto.message import decode_message
from proto.wording import text
from router.core.output import OpenDelivery
from router.shell.ops import Command, OpsError

if TYPE_CHECKING:
    from router.shell.daemon import Daemon

DEAD_MAX: Final = 1000
LOOKED_AT_MAX: Final = 10_000  # letters whose type is looked at for one request
REASON_LENGTH_MAX: Final = 200


class Wanted(msgspec.Struct, frozen=True):
    """Which dead letters; None does not narrow."""

    deliveries: Annotated[list[int], msgspec.Meta(max_length=DEAD_MAX)] | None = None
    destination: str | None = None
    subject: str | None = None
    type: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] = DEAD_MAX


class Operator:
    """The commands, on one daemon."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._changing = asyncio.Lock()  # of two who drop the same letter one comes first

    def commands(self) -> dict[str, Command]:
        """Return the commands by name, as the ops socket takes them."""
        return {
            "dead": self._dead,
            "replay": self._replay,
            "drop": self._drop,
            "hold": self._hold,
            "release": self._release,
            "check": self._check,
        }

    async def _dead(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"letters": [_letter(row) for row in await self._find(request)]}

    async def _replay(self, request: dict[str, Any]) -> dict[str, Any]:
        reason = _reason_of(request)
        async with self._changing:
            found = await self._find(request)
            count = self._daemon.core.replay(found, reason, self._daemon.now())
            await self._daemon.commit()
        return {"replayed": count, "passed_over": len(found) - count}

    async def _drop(self, request: dict[str, Any]) -> dict[str, Any]:
        reason = _reason_of(request)
        async with self._changing:
            found = await self._find(request)
            letters = [(row.delivery, row.destination) for row in found]
            count = self._daemon.core.drop(letters, reason)
            await self._daemon.commit()
        return {"dropped": count, "passed_over": len(found) - count}

    async def _find(self, request: dict[str, Any]) -> list[OpenDelivery]:
        """Return the dead letters that a request names by delivery, destination, type, subject."""
        wanted = _wanted_of(request)
        await self._daemon.commit()  # one that died a moment ago counts
        limit = DEAD_MAX if wanted.type is None else LOOKED_AT_MAX
        found = await self._daemon.writer.query(
            lambda store: store.dead(wanted.destination, wanted.subject, wanted.deliveries, limit)
        )
        if wanted.type is not None:
            found = [row for row in found if decode_message(row.raw).type == wanted.type]
        return found[: min(wanted.limit, DEAD_MAX)]

    async def _hold(self, request: dict[str, Any]) -> dict[str, Any]:
        return await self._set_hold(request, _reason_of(request))

    async def _release(self, request: dict[str, Any]) -> dict[str, Any]:
        return await self._set_hold(request, None)

    async def _set_hold(self, request: dict[str, Any], reason: str | None) -> dict[str, Any]:
        destination = str(request.get("destination"))
        if not self._daemon.core.hold(destination, reason, self._daemon.now()):
            known = ", ".join(sorted(self._daemon.core.queues))
            sentence = text("router.no_destination", destination=destination, known=known)
            raise OpsError("unknown_destination", sentence)
        await self._daemon.commit()
        return {"destination": destination, "hold": reason}

    async def _check(self, _: dict[str, Any]) -> dict[str, Any]:
        """accepted = settled + dead + dropped + expired + open, at every destination, now."""
        await self._daemon.commit()
        unsynced = self._daemon.core.unsynced()
        rows = []
        for name, queue in sorted(self._daemon.core.queues.items()):
            still_open = queue.open - unsynced.get(name, 0)
            ended = sum(count for word, count in queue.totals.items() if word != "accepted")
            left = queue.totals["accepted"] - ended - still_open
            rows.append({"destination": name, **queue.totals, "open": still_open, "left": left})
        return {"destinations": rows, "wrong": [row["destination"] for row in rows if row["left"]]}


def _wanted_of(request: dict[str, Any]) -> Wanted:
    fields = {name: request[name] for name in Wanted.__struct_fields__ if name in request}
    try:
        return msgspec.convert(fields, Wanted)
    except msgspec.ValidationError as error:
        raise OpsError("bad_request", str(error)) from None


def _letter(row: OpenDelivery) -> dict[str, Any]:
    message = decode_message(row.raw)
    return {
        "delivery": row.delivery,
        "destination": row.destination,
        "id": message.id,
        "type": message.type,
        "source": message.source,
        "subject": message.subject,
        "priority": message.priority,
        "accepted_at": row.accepted_at,
        "died_at": row.ended_at,
        "attempts": row.attempts,
        "reason": row.note,
        "size": len(message.body),
    }


def _reason_of(request: dict[str, Any]) -> str:
    reason = str(request.get("reason") or "").strip()
    if not reason:
        raise OpsError("bad_request", text("router.no_reason"))
    return reason[:REASON_LENGTH_MAX]
