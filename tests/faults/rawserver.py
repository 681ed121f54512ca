"""An HTTP server that does with each request, byte by byte, what a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from tests.ports import free_port

GOOD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@dataclass
class Heard:
    """A request: its head, its body, the number of its connection and its number on that."""

    head: bytes
    body: bytes
    connection: int
    number: int


Say = Callable[[Heard, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def raw(say: Say) -> AsyncIterator[tuple[str, list[Heard]]]:
    """Serve at the URL that is yielded; every request is kept, and given to `say`, which writes."""
    heard: list[Heard] = []
    connections = 0

    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        mine, number = connections, 0
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                number += 1
                one = Heard(head, await reader.readexactly(_length(head)), mine, number)
                heard.append(one)
                await say(one, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side has gone, or the test has ended
        finally:
            tasks.discard(task)
            writer.close()

    port = free_port()
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield f"http://127.0.0.1:{port}", heard
    finally:
        server.close()
        left = list(tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the next turn


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
