"""What an operator may change on a running router: dead letters, and holding a destination back.

Every change is on disk before it is answered, with the operator's reason beside it.
"""

import asyncio
import time
from functools import partial
from typing import Annotated, Any, Final

import msgspec

from proto.wording import text
from router.core.output import OpenDelivery
from router.core.queue import PRIORITIES
from router.shell.clock import now
from router.shell.engine import Engine
from router.shell.ops import Command, OpsError
from router.store.contract import Letter, Store, Which
from router.store.head import head_of

DEAD_MAX: Final = 1000
SEARCH_S: Final = 3.0  # for one request: after that it is told that not all were looked at
REPLAY_BYTES: Final = 4 * 1024 * 1024  # read at once
REPLAY_SHARE: Final = 4  # times its memory is what a queue may hold of replayed letters
REASON_LENGTH_MAX: Final = 200


class Selection(msgspec.Struct, frozen=True):
    """Which dead letters; None does not narrow. What is shown begins with the newest, or with the
    oldest, as what is changed does."""

    deliveries: Annotated[list[int], msgspec.Meta(max_length=DEAD_MAX)] | None = None
    destination: str | None = None
    subject: str | None = None
    type: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] = DEAD_MAX
    oldest: bool = False


class Operator:
    """The commands, on one engine."""

    def __init__(self, engine: Engine) -> None:
        self._core = engine.core
        self._writer = engine.writer
        self._commit = engine.commit
        self.changing = asyncio.Lock()  # of two who drop the same letter one comes first

    def commands(self) -> dict[str, Command]:
        """Return the commands by name, as the ops socket takes them."""
        return {
            "dead": self._dead,
            "replay": self._replay,
            "drop": self._drop,
            "hold": self._hold,
            "release": self._release,
            "try_now": self._try_now,
            "check": self._check,
        }

    async def _dead(self, request: dict[str, Any]) -> dict[str, Any]:
        """The newest letters, or the oldest, in order, and how many others there are."""
        newest = not _selection_of(request).oldest
        found, rest = await self._find(request, newest)
        return {"letters": [_letter(one) for one in (found[::-1] if newest else found)], **rest}

    async def _replay(self, request: dict[str, Any]) -> dict[str, Any]:
        """As many as fit into the memory of their queues: who asks again when those are delivered
        gets the rest replayed, in order."""
        reason = _reason_of(request)
        replayed, passed_over = 0, 0
        async with self.changing:
            found, rest = await self._find(request)
            ids = [letter.delivery for letter in found]
            while ids:
                whole = partial(_whole, deliveries=ids)
                rows = await self._writer.query(whole)
                if rows and not self._has_room(rows[0].destination):
                    rest["more"] = rest.get("more", 0) + len(ids)
                    break
                last = rows[-1].delivery if rows else ids[-1]
                looked_at = sum(1 for id in ids if id <= last)
                count = self._core.replay(rows, reason, now())
                replayed, passed_over = replayed + count, passed_over + looked_at - count
                ids = ids[looked_at:]
                await self._commit()
        return {"replayed": replayed, "passed_over": passed_over, **rest}

    def _has_room(self, destination: str) -> bool:
        queue = self._core.queues.get(destination)
        if queue is None:
            return True  # it will be passed over
        return sum(queue.resident_bytes) < REPLAY_SHARE * PRIORITIES * queue.lane_bytes_max

    async def drop(self, deliveries: list[int], reason: str) -> int:
        """Drop those of these that are dead; returns how many, when it is on disk."""
        done = await self._drop({"deliveries": deliveries, "reason": reason})
        return int(done["dropped"])

    async def _drop(self, request: dict[str, Any]) -> dict[str, Any]:
        reason = _reason_of(request)
        async with self.changing:
            found, rest = await self._find(request)
            letters = [(row.delivery, row.destination) for row in found]
            count = self._core.drop(letters, reason)
            await self._commit()
        return {"dropped": count, "passed_over": len(found) - count, **rest}

    async def _find(
        self, request: dict[str, Any], newest: bool = False
    ) -> tuple[list[Letter], dict[str, Any]]:
        """Return the dead letters that a request names, up to its limit, and what the answer has to
        say of the rest: `more` of them, `all_looked_at` when that is not so."""
        selection = _selection_of(request)
        await self._commit()  # one that died a moment ago counts
        limit, more, until = min(selection.limit, DEAD_MAX), 0, time.monotonic() + SEARCH_S
        which = Which(
            selection.destination, selection.subject, selection.type, selection.deliveries
        )
        search = self._writer.search(lambda store: store.dead_steps(which, newest))
        found: list[Letter] = []
        whole = True
        async for step in search:
            kept = step[: limit - len(found)]
            found += kept
            more += len(step) - len(kept)
            if time.monotonic() > until:
                whole = False
                break
        rest: dict[str, Any] = {"more": more} if more else {}
        return found, rest if whole else {**rest, "all_looked_at": False}

    async def _hold(self, request: dict[str, Any]) -> dict[str, Any]:
        return await self._set_hold(request, _reason_of(request))

    async def _release(self, request: dict[str, Any]) -> dict[str, Any]:
        return await self._set_hold(request, None)

    async def _try_now(self, request: dict[str, Any]) -> dict[str, Any]:
        destination, subject = str(request.get("destination")), request.get("subject")
        if subject is not None and not isinstance(subject, str):
            raise OpsError("bad_request", "try_now needs a subject that is text, or none")
        count = self._core.try_now(destination, subject, now())
        if count is None:
            raise self._no_destination(destination)
        await self._commit()
        return {"destination": destination, "subject": subject, "tried": count}

    def _no_destination(self, destination: str) -> OpsError:
        known = ", ".join(sorted(self._core.queues))
        sentence = text("router.no_destination", destination=destination, known=known)
        return OpsError("unknown_destination", sentence)

    async def _set_hold(self, request: dict[str, Any], reason: str | None) -> dict[str, Any]:
        destination = str(request.get("destination"))
        if not self._core.hold(destination, reason, now()):
            raise self._no_destination(destination)
        await self._commit()
        return {"destination": destination, "hold": reason}

    async def _check(self, _: dict[str, Any]) -> dict[str, Any]:
        """accepted = settled + dead + dropped + expired + open, at every destination, now."""
        await self._commit()
        unsynced = self._core.unsynced()
        rows = []
        for name, queue in sorted(self._core.queues.items()):
            still_open = queue.open - unsynced.get(name, 0)
            ended = sum(count for word, count in queue.totals.items() if word != "accepted")
            left = queue.totals["accepted"] - ended - still_open
            rows.append({"destination": name, **queue.totals, "open": still_open, "left": left})
        return {"destinations": rows, "wrong": [row["destination"] for row in rows if row["left"]]}


def _selection_of(request: dict[str, Any]) -> Selection:
    fields = {name: request[name] for name in Selection.__struct_fields__ if name in request}
    try:
        return msgspec.convert(fields, Selection)
    except msgspec.ValidationError as error:
        raise OpsError("bad_request", str(error)) from None


def _whole(store: Store, deliveries: list[int]) -> list[OpenDelivery]:
    return store.letters(deliveries, REPLAY_BYTES)


def _letter(row: Letter) -> dict[str, Any]:
    message, body_bytes = head_of(row.head, row.size)
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
        "size": body_bytes,
    }


def _reason_of(request: dict[str, Any]) -> str:
    reason = str(request.get("reason") or "").strip()
    if not reason:
        raise OpsError("bad_request", text("router.no_reason"))
    return reason[:REASON_LENGTH_MAX]
