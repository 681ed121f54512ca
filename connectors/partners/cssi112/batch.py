"""Cards that are waiting go together: one request takes what came while the last one was away."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from proto.client import Reject, Retry

Item = TypeVar("Item")
Send = Callable[[list[Item]], Awaitable[str]]


class Batch(Generic[Item]):
    """Brings items with `send`, at most `items_max` at once, requests one after another.

    A request that is refused for good says nothing of which item is at fault: each of its items is
    then brought alone.
    """

    def __init__(self, send: Send[Item], items_max: int) -> None:
        self._send = send
        self._items_max = items_max
        self._waiting: list[tuple[Item, asyncio.Future[str]]] = []
        self._sending = asyncio.Lock()

    async def bring(self, item: Item) -> str:
        """Return what the partner's answer is noted as. Raises Retry or Reject."""
        mine: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, mine))
        async with self._sending:
            if not mine.done():
                taken = self._waiting[: self._items_max]
                del self._waiting[: len(taken)]
                await self._take(taken)
        return await mine

    async def _take(self, taken: list[tuple[Item, asyncio.Future[str]]]) -> None:
        try:
            note = await self._send([item for item, _ in taken])
        except Reject as reject:
            if len(taken) == 1:
                _fail(taken[0][1], reject)
                return
            for one in taken:
                await self._take([one])
        except BaseException as error:
            for _, future in taken:
                _fail(future, error)
            if not isinstance(error, Exception):
                raise
        else:
            for _, future in taken:
                if not future.done():
                    future.set_result(note)


def _fail(future: "asyncio.Future[str]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error if isinstance(error, Exception) else Retry("-"))
        future.exception()  # told to whoever waits; nobody may wait any more
