"""Calls that block (a signer, a file, a lock, a library): in threads of ours, with a time limit.

The loop's own pool of threads will not do: it is waited for at the end of the process, so that one
call that hangs (a signer's device, a dead disk) keeps the process from ending, and a few of them
stop whatever else uses the pool. Here a call that hangs costs a thread and its caller's patience.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar
from weakref import WeakSet

from connectors.runtime.log import LOG
from proto import clock
from proto.client import Retry
from proto.note import coded
from proto.wording import text

AT_ONCE: Final = 4

Result = TypeVar("Result")
_known: "WeakSet[Outside]" = WeakSet()


class Hung(Retry):
    """A call did not return in its time. Whether it had its effect nobody knows."""


class Outside:
    """Calls of one kind. `what` is its name for the administrator ("signer")."""

    def __init__(self, what: str, within_s: float, at_once: int = AT_ONCE) -> None:
        """A call that takes longer than `within_s` is given up; at most `at_once` are under way,
        those given up among them for as long as they hang."""
        self.what = what
        self.hanging = 0  # given up, and not returned yet
        self._within_s = within_s
        self._room = asyncio.Semaphore(at_once)
        self._told = False
        _known.add(self)

    async def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return what `function` returns, or raise what it raises. Raises Hung."""
        try:
            async with asyncio.timeout(self._within_s):
                await self._room.acquire()
                return await self._start(function, arguments)
        except TimeoutError:
            raise self._gave_up() from None

    def _start(
        self, function: Callable[..., Result], arguments: tuple[Any, ...]
    ) -> "asyncio.Future[Result]":
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()
        since = clock.monotonic()

        def work() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = function(*arguments)
            except Exception as raised:
                error = raised
            except BaseException as raised:  # a plug-in's exit() must not be the end of us
                error = RuntimeError(type(raised).__name__)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._end, done, since, result, error)

        threading.Thread(target=work, name=self.what, daemon=True).start()
        done.add_done_callback(self._cancelled)
        return done

    def _cancelled(self, done: "asyncio.Future[Any]") -> None:
        if done.cancelled():
            self.hanging += 1

    def _end(
        self, done: "asyncio.Future[Any]", since: float, result: Any, error: BaseException | None
    ) -> None:
        self._room.release()
        if done.cancelled():
            self.hanging -= 1
        elif isinstance(error, StopIteration):  # a future does not take it
            done.set_exception(RuntimeError(type(error).__name__))
        elif error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)
        if self._told and not self.hanging:
            self._told = False
            seconds = round(clock.monotonic() - since)
            LOG.info(text("connector.returned", what=self.what, seconds=seconds))

    def _gave_up(self) -> Hung:
        seconds = f"{self._within_s:g}"
        if not self._told:
            self._told = True
            LOG.error(text("connector.hangs", what=self.what, seconds=seconds))
        return Hung(coded("connector.hangs", what=self.what, seconds=seconds))


def hanging() -> dict[str, int]:
    """Return how many calls of each kind hang now, for operators."""
    found: dict[str, int] = {}
    for one in list(_known):
        if one.hanging:
            found[one.what] = found.get(one.what, 0) + one.hanging
    return found
