"""The writer: the one thread that touches the store, one transaction at a time.

While a batch syncs, the next gathers in the core: that is the group commit. Queries of the
history take their turn between batches. A failed write is not survived (docs/decisions/0003): after
one failed sync nobody knows what the disk holds, so the process ends before it can promise more.
"""

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import TypeVar

from proto.exits import EX_IOERR
from proto.wording import text
from router.core.output import Batch, OpenDelivery
from router.store.contract import Store

Result = TypeVar("Result")
# The batch, {repeated n: n accepted before}, what each of its loads brought.
OnWritten = Callable[[Batch, dict[int, int], list[list[OpenDelivery]]], None]
log = logging.getLogger("smpbus.writer")


class Writer:
    """Runs store work on its own thread; results come back on the loop's thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()
        self._closing = False
        self.depth = 0  # batches handed over and not yet back
        self.commits = 0
        self.commit_s = 0.0
        self.commit_s_total = 0.0
        self.began_at = 0.0

    def write(self, batch: Batch, on_written: OnWritten) -> None:
        """Make a batch durable and read what it asks for; `on_written` follows, in order. After
        `close` nothing is written any more, and nothing of it may leave the process."""
        if self._closing:
            return
        if not self.depth:
            self.began_at = time.monotonic()
        self.depth += 1
        self._work.put(lambda: self._write(batch, on_written))

    def query(self, work: Callable[[Store], Result]) -> "asyncio.Future[Result]":
        """Run `work(store)` between batches."""
        answer: asyncio.Future[Result] = self._loop.create_future()
        if self._closing:
            answer.cancel()
            return answer

        def run() -> None:
            try:
                result = work(self._store)
            except Exception as error:  # it belongs to whoever asked
                self._loop.call_soon_threadsafe(_fail, answer, error)
            else:
                self._loop.call_soon_threadsafe(_answer, answer, result)

        self._work.put(run)
        return answer

    async def search(self, begin: Callable[[Store], Iterator[Result]]) -> AsyncIterator[Result]:
        """Yield what each step of a search finds; batches are written between the steps."""
        steps = await self.query(begin)
        while (found := await self.query(lambda _: next(steps, None))) is not None:
            yield found

    def stuck_s(self) -> float:
        """Return for how long the batch in hand has been in the store's hands."""
        return time.monotonic() - self.began_at if self.depth else 0.0

    def rescue(self) -> None:
        """End the process: the journal has lost its place. What it holds is saved first."""
        self._work.put(self._rescue)

    def _rescue(self) -> None:
        try:
            sentence = text("router.journal_gone", where=self._store.rescue())
        except Exception as error:  # no room, or no folder any more
            sentence = text("router.journal_lost", reason=f"{type(error).__name__}: {error}")
        log.critical(sentence)
        logging.shutdown()
        os._exit(EX_IOERR)

    async def close(self) -> None:
        """Finish what is queued, close the store, end the thread."""
        closed = self.query(lambda store: store.close())
        self._closing = True  # a timer may still fire before the loop ends
        await closed
        self._work.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _write(self, batch: Batch, on_written: OnWritten) -> None:
        began = time.perf_counter()
        try:
            duplicates = self._store.write(batch) if batch.writes else {}
            loaded = [self._store.load(load) for load in batch.loads]
        except BaseException as error:
            log.critical(text("router.store_failed", reason=f"{type(error).__name__}: {error}"))
            logging.shutdown()
            os._exit(EX_IOERR)
        self.commit_s = time.perf_counter() - began
        self.commit_s_total += self.commit_s
        self.commits += 1
        written = partial(on_written, batch, duplicates, loaded)
        self._loop.call_soon_threadsafe(self._came_back, written)

    def _came_back(self, written: Callable[[], None]) -> None:
        self.depth -= 1
        self.began_at = time.monotonic()
        written()


def _answer(answer: "asyncio.Future[Result]", result: Result) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: "asyncio.Future[Result]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
