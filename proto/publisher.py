"""Publishing: what one turn of the loop publishes travels in one frame; each publisher gets its own
answer."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from . import frames
from .errors import Refused
from .message import Message
from .peer import Batch, Completed
from .session import Session

COALESCE_LENGTH_MAX: Final = 256
COALESCE_BYTES_MAX: Final = 512 * 1024

Outcome = Callable[[int, list[Refused]], None]  # of so many messages, and the refusals among them


class _Coalesced:
    """Messages gathered in one turn of the loop, with whom to tell of each."""

    __slots__ = ("bytes", "messages", "outcomes")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.outcomes: list[Outcome] = []
        self.bytes = 0


class Publisher:
    """Publishes in one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._coalesced: _Coalesced | None = None
        self._completions: dict[int, Callable[[Batch], None]] = {}
        session.on[Completed] = self._complete

    def publish(self, message: Message) -> "asyncio.Future[None]":
        """Publish one message; the future is done when it is accepted, or raises Refused."""
        accepted: asyncio.Future[None] = self.session.loop.create_future()

        def conclude(_: int, refused: list[Refused]) -> None:
            if accepted.done():
                return
            if refused:
                accepted.set_exception(refused[0])
            else:
                accepted.set_result(None)

        self.session.raise_if_dead()
        self.publish_soon(message, conclude)
        return accepted

    async def publish_many(self, messages: Sequence[Message]) -> list[Refused | None]:
        """See `BusClient.publish_many`."""
        self.session.raise_if_dead()
        self._flush_coalesced()
        results: list[Refused | None] = [None] * len(messages)
        waits: list[asyncio.Future[None]] = []
        for start in range(0, len(messages), frames.BATCH_LENGTH_MAX):
            part = messages[start : start + frames.BATCH_LENGTH_MAX]
            done: asyncio.Future[None] = self.session.loop.create_future()
            batch = self.session.peer.publish(part)
            self._completions[batch.number] = partial(_note_results, results, start, done)
            waits.append(done)
        self.session.send()
        for wait in waits:
            await wait
        return results

    def publish_soon(self, message: Message, outcome: Outcome) -> None:
        """Add to the frame of this turn of the loop; `outcome(count, refused)` is called once for
        every run of messages that share it."""
        gathered = self._coalesced
        if gathered is None:
            gathered = self._coalesced = _Coalesced()
            self.session.loop.call_soon(self._flush_if, gathered)
        gathered.messages.append(message)
        gathered.outcomes.append(outcome)
        gathered.bytes += len(message.body)
        if len(gathered.messages) >= COALESCE_LENGTH_MAX or gathered.bytes >= COALESCE_BYTES_MAX:
            self._flush_coalesced()
            self.session.send()

    def _flush_if(self, gathered: _Coalesced) -> None:
        if self._coalesced is gathered:
            self._flush_coalesced()
            self.session.send()

    def _flush_coalesced(self) -> None:
        gathered, self._coalesced = self._coalesced, None
        if gathered is not None:
            batch = self.session.peer.publish(gathered.messages)
            self._completions[batch.number] = partial(_conclude, gathered.outcomes)

    def _complete(self, event: Completed) -> None:
        if completion := self._completions.pop(event.batch.number, None):
            completion(event.batch)


class PublishStream:
    """A pipelined publisher: at most `window` messages unaccepted, no future per message."""

    def __init__(self, publisher: Publisher, window: int) -> None:
        self._publisher = publisher
        self._window = window
        self._open = 0
        self._room: asyncio.Future[None] | None = None
        self._refused: list[Refused] = []
        self._outcome: Outcome = self._on_outcome  # one object, so that runs of it are seen
        self.accepted = 0

    async def publish(self, message: Message) -> None:
        """Publish; waits only while the window is full. Raises an earlier message's Refused."""
        while self._open >= self._window:
            await self._wait()
        if self._refused:
            raise self._refused.pop(0)
        self._open += 1
        self._publisher.publish_soon(message, self._outcome)

    async def drain(self) -> None:
        """Wait until all is accepted. Raises the first Refused, if any."""
        while self._open:
            await self._wait()
        if self._refused:
            raise self._refused.pop(0)

    def _on_outcome(self, count: int, refused: list[Refused]) -> None:
        self._open -= count
        self.accepted += count - len(refused)
        self._refused.extend(refused)
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def _wait(self) -> None:
        self._publisher.session.raise_if_dead()
        if self._room is None or self._room.done():
            self._room = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._room)  # others may wait for it too


def _note_results(
    results: list[Refused | None], start: int, done: "asyncio.Future[None]", batch: Batch
) -> None:
    for index, refusal in batch.refused.items():
        results[start + index] = refusal
    if not done.done():
        done.set_result(None)


def _conclude(outcomes: list[Outcome], batch: Batch) -> None:
    for outcome, count, refused in _runs(outcomes, batch.refused):
        outcome(count, refused)


def _runs(
    outcomes: list[Outcome], refused: dict[int, Refused]
) -> Iterator[tuple[Outcome, int, list[Refused]]]:
    """Group neighbours that share an outcome, so that a stream of 1,000 is told once."""
    start = 0
    while start < len(outcomes):
        outcome = outcomes[start]
        end = start + 1
        while end < len(outcomes) and outcomes[end] is outcome:
            end += 1
        part = [refused[i] for i in range(start, end) if i in refused] if refused else []
        yield outcome, end - start, part
        start = end
