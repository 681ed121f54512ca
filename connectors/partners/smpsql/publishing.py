"""From the outbox to the bus: read what waits, publish it, mark what the router has on disk.

Reading locks nothing and marks nothing. Whatever ends between ACCEPTED and the mark, the row is
read again and published again under the same id, which the router knows.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from connectors.partners.smpsql.database import BadData, DatabaseAway, NotTaken
from connectors.partners.smpsql.lines import Held, waves
from connectors.partners.smpsql.tables import Outbox, Row
from connectors.runtime.door.body import BadInput, bad_input, refuse_odd
from connectors.runtime.door.door import Door
from connectors.runtime.log import LOG
from proto import catalogue
from proto.client import BusClient
from proto.errors import FATAL, TEMPORARY, BusError, Code, Refused
from proto.message import Message
from proto.nesting import check_depth
from proto.wording import text

BYTES_MAX: Final = 4 * 1024 * 1024  # of one round trip
RETRY_S: Final = 1.0
UNWELCOME_S: Final = 0.2
UNMARKED_S: Final = 60.0  # a row that cannot be marked is published again, and known by its id
# What the vendor reads of a refusal: the field it is about, and the rule.
RULES: Final[dict[str, tuple[str, str]]] = {
    Code.NOT_PERMITTED: ("type", "may not be published here"),
    Code.NO_ROUTE: ("type", "has no route here"),
    Code.UNKNOWN_TYPE: ("type", "is not known to the bus"),
    Code.BODY_TOO_LARGE: ("payload", "is longer than the bus or the route allows"),
    Code.EXPIRED: ("expires", "had passed before the bus was asked"),
}
KNOWN: Final = {one.name: one for one in catalogue.entries()}


class Publisher:
    """Publishes the outbox's rows; `run` it for as long as the connector lives.

    `failed(answer)` and `succeeded()` are called as the database is away or answers.
    """

    def __init__(
        self,
        outbox: Outbox,
        bus: BusClient,
        door: Door,
        *,
        rows_max: int,
        body_max: int,
        poll_s: float,
        failed: Callable[[str], float],
        succeeded: Callable[[], None],
    ) -> None:
        """`failed` returns how many seconds to leave the database alone."""
        self._outbox = outbox
        self._bus = bus
        self._door = door
        self._rows_max = rows_max
        self._body_max = body_max
        self._poll_s = poll_s
        self._failed = failed
        self._succeeded = succeeded
        self._held = Held()
        self._news = asyncio.Event()
        self.accepted = 0
        self.refused = 0

    def wake(self) -> None:
        """Look into the outbox now."""
        self._news.set()

    async def run(self) -> None:
        """Publish until cancelled. Raises BusError when the session has ended for good."""
        while True:
            if not self._bus.connected:
                await asyncio.sleep(UNWELCOME_S)
                continue
            self._news.clear()
            try:
                moved = await self._turn()
            except DatabaseAway as away:
                await asyncio.sleep(max(RETRY_S, self._failed(away.answer)))
                continue
            except (BadData, NotTaken) as bad:  # not of a row: a schema that somebody changed
                await asyncio.sleep(max(RETRY_S, self._failed(f"SQLSTATE {bad}")))
                continue
            except BusError:
                raise
            except Exception as mistake:  # its text may hold personal data
                LOG.error(text("connector.mistake", id="outbox", kind=type(mistake).__name__))
                await asyncio.sleep(RETRY_S)
                continue
            self._succeeded()
            if not moved:
                await self._wait()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._poll_s):
                await self._news.wait()
        except TimeoutError:
            pass

    async def _turn(self) -> bool:
        """Publish one round trip of rows; return whether there were any. Raises DatabaseAway."""
        now = time.monotonic()
        subjects, rows_held = self._held.release(now)
        if self._held.full:
            await asyncio.sleep(self._held.next_at() - now)
            return True
        rows = await self._outbox.waiting(
            self._rows_max, BYTES_MAX, self._body_max, subjects, rows_held
        )
        accepted: list[int] = []
        refused: dict[int, str] = {}
        for wave in waves(rows):
            await self._publish(
                [row for row in wave if not self._held.holds(row)], accepted, refused
            )
        await self._mark(rows, accepted, refused)
        self.accepted += len(accepted)
        self.refused += len(refused)
        return bool(rows)

    async def _mark(self, rows: list[Row], accepted: list[int], refused: dict[int, str]) -> None:
        """Mark rows, and hold those that the database does not let be marked: by themselves, so
        that they hold up no others. Raises DatabaseAway."""
        by_seq = {row.seq: row for row in rows}

        async def mark(seqs: list[int], ask: Callable[[list[int]], Awaitable[None]]) -> None:
            try:
                if seqs:
                    await ask(seqs)
            except (BadData, NotTaken) as bad:
                if len(seqs) > 1:
                    await mark(seqs[: len(seqs) // 2], ask)
                    await mark(seqs[len(seqs) // 2 :], ask)
                    return
                LOG.error(text("smpsql.not_marked", seq=seqs[0], state=bad))
                self._hold(by_seq[seqs[0]], UNMARKED_S)

        await mark(accepted, self._outbox.accepted)
        await mark(
            list(refused), lambda seqs: self._outbox.refused({seq: refused[seq] for seq in seqs})
        )

    async def _publish(self, rows: list[Row], accepted: list[int], refused: dict[int, str]) -> None:
        bad: list[tuple[Row, BadInput]] = []
        good: list[tuple[Row, Message]] = []
        for row in rows:
            try:
                good.append((row, self._message(row)))
            except BadInput as broken:
                bad.append((row, broken))
            except Exception as mistake:  # its text may hold personal data
                rule = f"cannot be read ({type(mistake).__name__})"
                bad.append((row, BadInput("message", rule)))
        results = await self._bus.publish_many([message for _, message in good])
        for (row, _), result in zip(good, results, strict=True):
            if result is None:
                accepted.append(row.seq)
            elif result.code in FATAL:
                raise result
            elif result.code in TEMPORARY:
                self._hold(row, (result.retry_after_ms or 0) / 1000)
            else:
                bad.append((row, _told(result)))
        told = await asyncio.gather(*(self._refuse(row, problem) for row, problem in bad))
        for (row, problem), done in zip(bad, told, strict=True):
            if done:
                refused[row.seq] = printable(problem.sentence)[:400]
            else:
                self._hold(row, 0)

    def _message(self, row: Row) -> Message:
        """Raises BadInput. Types that are not in the catalogue are a region's own: the bus's
        permissions and routes are what they have to pass."""
        if row.payload is None or len(body := row.payload.encode()) > self._body_max:
            raise BadInput("payload", f"is longer than {self._body_max} bytes")
        _check(body, row.type)
        return Message(
            id=row.id,
            type=row.type,
            source=self._bus.name,
            subject=row.subject,
            time=row.time,
            priority=row.priority,
            not_before=row.not_before,
            expires=row.expires,
            correlation_id=row.correlation_id,
            body=body,
        )

    async def _refuse(self, row: Row, problem: BadInput) -> bool:
        """Tell the log and the bus; return whether the bus has it."""

        def refuse() -> list[Message]:
            raise problem

        # Its own id stands for the body, which may be too long to have been read.
        verdict = await self._door.take(row.type, row.subject[:200], row.id.encode(), refuse)
        return verdict.retry_after_s is None

    def _hold(self, row: Row, for_s: float) -> None:
        self._held.hold(row, time.monotonic() + max(RETRY_S, for_s))


def printable(sentence: str) -> str:
    """Return a sentence that a column can hold: keys of a payload may hold what is no text."""
    return "".join(sign if sign.isprintable() else "?" for sign in sentence)


def _check(body: bytes, type: str) -> None:
    """Raise BadInput when the body breaks the catalogue's schema, if it has one."""
    try:
        if type in KNOWN:
            KNOWN[type].read(body)
        else:
            check_depth(body)
    except msgspec.ValidationError as error:
        raise bad_input(str(error)) from None
    except RecursionError:
        raise BadInput("payload", "is nested too deeply") from None
    refuse_odd(body, "payload")


def _told(refused: Refused) -> BadInput:
    path, rule = RULES.get(refused.code, ("message", "is refused by the bus"))
    return BadInput(path, f"{rule} ({refused.code})")
