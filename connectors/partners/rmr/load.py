"""Loading the register: all of it, resumed where a kill broke it off, and what changed since.

Each page is published, and kept as done only when the bus has accepted all of it. A worker is
published only when the record differs from the one published last.
"""

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from connectors.partners.rmr import mapping
from connectors.partners.rmr.progress import Known, Position, Progress
from connectors.partners.rmr.register import CursorLost, Register
from connectors.runtime.bus.ingress import Ingress
from connectors.runtime.door.body import BadInput
from connectors.runtime.door.door import REJECTED_KEPT_MS, message_id
from connectors.runtime.log import LOG
from connectors.runtime.outside import Outside
from connectors.runtime.words import code_of
from connectors.services.lookup import WORKER, Lookup
from proto import schemas
from proto.client import Retry
from proto.message import Message, Priority, now_ms
from proto.note import coded
from proto.wording import text

# A register that has suddenly lost more than this share of its people has rather lost its mind.
GONE_SHARE_MAX: Final = 0.1
SHORT_SHARE_MAX: Final = 0.01
FEW: Final = 10
GONE_AT_ONCE: Final = 200
TOLD_EVERY: Final = 5000
DISK_S: Final = 60.0  # for one call of the state file

# What reading one absurd record may raise.
UNFORESEEN: Final = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError)

encode: Final = msgspec.json.Encoder(order="sorted").encode
Names = Callable[[], Awaitable[mapping.Name]]


class Load:
    """Loads of one register. `names` gives the names of codes as they are now."""

    def __init__(
        self,
        register: Register,
        progress: Progress,
        ingress: Ingress,
        lookup: Lookup,
        names: Names,
        disk_s: float = DISK_S,
    ) -> None:
        """One call of the state file may take `disk_s` seconds."""
        self._register = register
        self._progress = progress
        self._ingress = ingress
        self._lookup = lookup
        self._names = names
        self._disk = Outside("register.db", disk_s)
        self.published = 0
        self.refused = 0

    async def want_full(self) -> None:
        """Load everything at the next turn, also after a restart. Raises Retry."""
        await self._disk.call(self._progress.want_full)

    # -- everything -----------------------------------------------------------------------------

    async def full(self) -> None:
        """Load everything, from where an earlier load was broken off.

        Raises Retry, Reject, NotAccepted; the next call goes on from there.
        """
        await self._begin()
        name = await self._names()
        while not self._read_whole():
            position = self._progress.position
            try:
                page = await self._register.page(position.after)
            except CursorLost:
                await self._move(replace(position, loading=False))
                raise Retry(coded("rmr.cursor")) from None
            position = replace(
                position,
                after=page.next,
                loaded=position.loaded + len(page.workers),
                total=page.total,
                since_next=position.since_next or page.since,
            )
            await self._take(page.workers, position, name, Priority.BULK)
            if position.loaded // TOLD_EVERY > (position.loaded - len(page.workers)) // TOLD_EVERY:
                LOG.info(text("rmr.loading", loaded=position.loaded, total=position.total))
        await self._end()

    def _read_whole(self) -> bool:
        position = self._progress.position
        return position.after is None and position.since_next is not None

    async def _begin(self) -> None:
        position = self._progress.position
        if position.loading:
            LOG.info(text("rmr.resumed", loaded=position.loaded, total=position.total))
            return
        begun = Position(
            load=position.load + 1, loading=True, since=position.since, full_at=position.full_at
        )
        await self._disk.call(self._progress.begin, begun)
        LOG.info(text("rmr.begun"))

    async def _end(self) -> None:
        position = self._progress.position
        # Those who came or went meanwhile are in the changes; more than a few are a broken load.
        if position.total - position.loaded > max(FEW, position.total * SHORT_SHARE_MAX):
            await self._move(replace(position, loading=False))
            raise Retry(coded("rmr.short", loaded=position.loaded, total=position.total))
        known, unseen = await self._disk.call(self._progress.counts)
        if unseen > max(FEW, known * GONE_SHARE_MAX):
            LOG.warning(text("rmr.too_many_gone", gone=unseen, known=known))
        else:
            await self._remove_unseen()
        position = self._progress.position
        done = replace(
            position,
            loading=False,
            after=None,
            since=position.since_next,
            since_next=None,
            full_at=time.time(),
        )
        await self._move(done)
        LOG.info(text("rmr.loaded", loaded=done.loaded, published=self.published, gone=unseen))

    async def _remove_unseen(self) -> None:
        while gone := await self._disk.call(self._progress.unseen, GONE_AT_ONCE):
            messages = [self._removed(id, known) for id, known in gone.items()]
            await self._publish(messages)
            await self._forget(gone)
            await self._disk.call(self._progress.keep, {}, gone, self._progress.position)

    # -- what changed ---------------------------------------------------------------------------

    async def changes(self) -> None:
        """Load what changed since. Raises Retry, Reject, NotAccepted."""
        name = await self._names()
        more = True
        while more:
            position = self._progress.position
            if position.since is None:
                return
            try:
                page = await self._register.changes(position.since)
            except CursorLost:
                LOG.warning(text("rmr.cursor_lost"))
                await self._move(replace(position, since=None))
                return
            position = replace(position, since=page.next)
            await self._take(page.changes, position, name, Priority.ROUTINE)
            more = page.more

    # -- a page ---------------------------------------------------------------------------------

    async def _take(
        self, raws: list[dict[str, Any]], position: Position, name: mapping.Name, priority: Priority
    ) -> None:
        """Publish what is new in a page, then keep it as done."""
        ids = [str(raw.get("id", "")) for raw in raws]
        known = await self._disk.call(self._progress.known, ids)
        kept: dict[str, Known] = {}
        gone: list[str] = []
        messages: list[Message] = []
        workers: list[schemas.Worker] = []
        for id, raw in zip(ids, raws, strict=True):
            if raw.get("removed") is True:
                if id in known or id in kept:
                    messages.append(self._removed(id, kept.pop(id) if id in kept else known[id]))
                    gone.append(id)
                continue
            digest = hashlib.sha256(encode(raw)).digest()
            before = kept.get(id) or known.get(id)
            if before is not None and before.digest == digest and id not in gone:
                kept[id] = before
                continue
            try:
                worker = mapping.worker_in(raw, name)
            except (BadInput, *UNFORESEEN) as error:
                # Of what we did not foresee only the kind is told; the load must not stand for it.
                rule = f"cannot be read ({type(error).__name__})"
                bad = error if isinstance(error, BadInput) else BadInput("", rule)
                messages.append(self._refused(raw, bad, digest))
                if before is not None:
                    kept[id] = before  # what holds is the last good record
                continue
            number = 1 if before is None else before.number + 1
            kept[id] = Known(digest, number)
            workers.append(worker)
            messages.append(self._changed(worker, kept[id], priority))
        await self._publish(messages)
        await self._forget(gone)
        for worker in workers:
            await self._lookup.put(WORKER, ("id", worker.id), worker)
            await self._lookup.put(WORKER, ("snils", worker.snils), worker)
        left = [id for id in gone if id not in kept]
        await self._disk.call(self._progress.keep, kept, left, position)

    async def _forget(self, gone: Iterable[str]) -> None:
        for id in gone:
            worker = await self._lookup.peek(WORKER, ("id", id))
            if worker is not None:
                await self._lookup.forget(WORKER, ("snils", worker.snils))
            await self._lookup.forget(WORKER, ("id", id))

    async def _publish(self, messages: list[Message]) -> None:
        if messages:
            await self._ingress.offer(messages)
            self.published += len(messages)

    def _changed(self, worker: schemas.Worker, known: Known, priority: Priority) -> Message:
        type = "worker.changed.v1"
        id = message_id(type, worker.id, str(known.number), known.digest.hex())
        return Message.new(
            type,
            self._ingress.name,
            worker,
            subject=f"worker-{worker.id}",
            id=id,
            priority=priority,
        )

    def _removed(self, id: str, known: Known) -> Message:
        type = "worker.removed.v1"
        body = schemas.WorkerRemoved(id=id, recorded_at=datetime.now(UTC))
        number = message_id(type, id, str(known.number), known.digest.hex())
        return Message.new(type, self._ingress.name, body, subject=f"worker-{id}", id=number)

    def _refused(self, raw: dict[str, Any], bad: BadInput, digest: bytes) -> Message:
        self.refused += 1
        about = str(raw.get("id", ""))[:200]
        LOG.warning(text("rmr.refused", path=bad.path or "body", rule=bad.rule, id=code_of(about)))
        type = "input.rejected.v1"
        rejected = schemas.RejectedInput(
            partner=self._ingress.name,
            operation="worker",
            path=bad.path[:400],
            rule=bad.rule,
            about=about,
            digest=digest.hex()[:16],
            recorded_at=datetime.now(UTC),
        )
        return Message.new(
            type,
            self._ingress.name,
            rejected,
            subject=f"worker-{about}",
            id=message_id(type, "worker", about, digest.hex()),
            expires=now_ms() + REJECTED_KEPT_MS,
        )

    async def _move(self, position: Position) -> None:
        await self._disk.call(self._progress.move, position)
