"""A network between two programs, in our hands: it carries, it is cut, or it swallows."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Literal, Self

from tests.ports import free_port

PIECE = 64 * 1024
Mode = Literal["carries", "cut", "swallows", "loses answers"]


class Wire:
    """TCP from `self.port` to `port`. `be("cut")` ends every connection and takes none;
    `be("swallows")` keeps them and loses what is said, as a lost route does; `be("loses answers")`
    only what comes back."""

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self._target = port
        self._mode: Mode = "carries"
        self._server: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._become("carries"))
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._become("cut"))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def be(self, mode: Mode) -> None:
        """Change what the network does."""
        self._do(self._become(mode))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _become(self, mode: Mode) -> None:
        self._mode = mode
        if mode == "cut" and self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        elif mode != "cut" and self._server is None:
            self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        if mode in ("carries", "cut"):  # what is lost stays lost: those connections end
            for task in list(self._carrying):
                task.cancel()
            await asyncio.gather(*self._carrying, return_exceptions=True)

    async def _carry(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        writers = [to_near]
        try:
            far, to_far = await asyncio.open_connection("127.0.0.1", self._target)
            writers.append(to_far)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._copy(near, to_far, "loses answers"))
                both.create_task(self._copy(far, to_near, "carries"))
        except (OSError, asyncio.CancelledError, BaseExceptionGroup):
            pass
        finally:
            self._carrying.discard(task)
            for writer in writers:
                writer.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, also: Mode
    ) -> None:
        while piece := await reader.read(PIECE):
            if self._mode in ("carries", also):
                writer.write(piece)
                await writer.drain()
        raise ConnectionResetError
