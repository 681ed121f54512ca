"""The line between a connector and its partner, that breaks as real ones do."""

import asyncio
import contextlib
import ssl
from functools import partial
from typing import Literal

from tests.ports import free_port

# refuse: nobody listens; hang: taken, never answered; cut: broken off in the middle of an answer.
Mode = Literal["open", "refuse", "hang", "cut"]
READ_BYTES = 64 * 1024


class Line:
    """Passes bytes between `port` and the partner's own; speaks TLS when it has a context."""

    def __init__(self, to_port: int, context: ssl.SSLContext | None = None) -> None:
        self.port = free_port()
        self.taken = 0  # connections
        self._to_port = to_port
        self._context = context
        self._mode: Mode = "open"
        self._generation = 0
        self._server: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def set(self, mode: Mode, context: ssl.SSLContext | None = None) -> None:
        """Be in this mode from now on; what is connected is broken off."""
        self._context = context or self._context
        await self.close()
        self._mode = mode
        if mode != "refuse":
            self._generation += 1
            serve = partial(self._serve, self._generation)
            self._server = await asyncio.start_server(
                serve, "127.0.0.1", self.port, ssl=self._context
            )

    async def close(self) -> None:
        """Hang up and listen no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        links, self._links = self._links, {}
        for link, writer in links.items():
            link.cancel()
            writer.transport.abort()  # a task that never ran does it not
        await asyncio.gather(*links, return_exceptions=True)

    async def _serve(
        self, generation: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._server is None or generation != self._generation:
            writer.transport.abort()  # it was shaking hands when the mode changed
            return
        # The server's own task must not be cancelled: asyncio would tell of it.
        link = asyncio.create_task(self._carry(reader, writer))
        self.taken += 1
        self._links[link] = writer
        link.add_done_callback(lambda done: self._links.pop(done, None))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there: asyncio.StreamWriter | None = None
        try:
            if self._mode == "hang":
                while await reader.read(READ_BYTES):
                    pass
                return
            answers, there = await asyncio.open_connection("127.0.0.1", self._to_port)
            ways = [asyncio.create_task(_pass(reader, there)),
                    asyncio.create_task(self._answer(answers, writer))]  # fmt: skip
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass
        finally:
            for one in (writer, there):
                if one is not None:
                    one.transport.abort()

    async def _answer(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode != "cut":
            await _pass(answers, writer)
            return
        data = await answers.read(READ_BYTES)
        writer.write(data[: len(data) // 2])
        with contextlib.suppress(OSError):
            await writer.drain()
            writer.close()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(READ_BYTES):
            writer.write(data)
            await writer.drain()
