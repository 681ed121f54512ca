"""A proxy between the connectors and their partners' simulators, which can turn evil.

    python -m tests.siege.evil FOLDER

What it does is the word in the file `evil` there: nothing, it carries; "giant" answers a gigabyte,
"drip" a byte now and then, "cookies" the partner's answer with twenty new cookies, "redirect" sends
the asker round in a circle, "garbage" is no HTTP, or nearly, "page" a gateway's own page.
"""

import asyncio
import contextlib
import itertools
import json
import sys
from pathlib import Path
from random import Random
from typing import Final

import uvloop

PIECE: Final = bytes(256 * 1024)
GIANT_BYTES: Final = 1024**3
DRIP_S: Final = 0.5
COOKIES: Final = 20
LOOK_S: Final = 0.1
HEAD_MAX: Final = 64 * 1024
FOUND: Final = b"HTTP/1.1 302 Found\r\nlocation: /round\r\ncontent-length: 0\r\n\r\n"
PAGE: Final = b"<html><body>502 Bad Gateway</body></html>"


class Evil:
    """All partners' addresses."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "evil"
        self._random = Random(7)
        self._numbers = itertools.count()
        self.mode = ""

    async def watch(self) -> None:
        """Follow the word in the file."""
        while True:
            self.mode = self._file.read_text().strip() if self._file.exists() else ""
            await asyncio.sleep(LOOK_S)

    async def serve(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer one connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                if not await self._answer(port, head + body, writer):
                    break
        writer.transport.abort() if self.mode else writer.close()

    async def _answer(self, port: int, request: bytes, writer: asyncio.StreamWriter) -> bool:
        """Return whether the connection goes on."""
        match self.mode:
            case "giant":
                await self._giant(writer)
            case "drip":
                writer.write(_head(200, 100_000))
                for _ in range(100_000):
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(DRIP_S)
            case "redirect":
                writer.write(FOUND)
                await writer.drain()
                return True
            case "page":
                writer.write(_head(502, len(PAGE), b"text/html") + PAGE)
                await writer.drain()
                return True
            case "garbage":
                writer.write(self._garbage())
                await writer.drain()
            case mode:
                writer.write(await self._carry(port, request, mode))
                await writer.drain()
                return True
        return False

    async def _giant(self, writer: asyncio.StreamWriter) -> None:
        writer.write(_head(200, GIANT_BYTES))
        for _ in range(GIANT_BYTES // len(PIECE)):
            writer.write(PIECE)
            await writer.drain()

    async def _carry(self, port: int, request: bytes, mode: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            first, rest = request.split(b"\r\n", 1)
            writer.write(first + b"\r\nconnection: close\r\n" + _without(rest, b"connection"))
            answer = await reader.read(-1)
        finally:
            writer.close()
        first, rest = answer.split(b"\r\n", 1)
        added = b""
        if mode == "cookies":
            for _ in range(COOKIES):
                number = next(self._numbers)
                added += b"set-cookie: c%d=%s; Path=/\r\n" % (number, b"v" * 200)
        return first + b"\r\n" + added + _without(rest, b"connection")

    def _garbage(self) -> bytes:
        random = self._random
        noise = random.randbytes(random.randrange(2000))
        return random.choice((
            noise,
            b"HTTP/1.1 200 OK\r\n" + noise + b"\r\n\r\n",
            b"HTTP/1.1 999 ?\r\ncontent-length: -5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 9\r\n\r\n" + noise,
            b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n" + noise,
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 9\r\n\r\n123456789",
            _head(200, len(noise)) + noise,
        ))  # fmt: skip


def _head(status: int, length: int, kind: bytes = b"application/json") -> bytes:
    return (
        b"HTTP/1.1 %d Said\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
        % (status, kind, length)
    )  # fmt: skip


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _without(head: bytes, name: bytes) -> bytes:
    """Return what follows a first line, without one header."""
    headers, end, body = head.partition(b"\r\n\r\n")
    kept = [line for line in headers.split(b"\r\n") if not line.lower().startswith(name + b":")]
    return b"\r\n".join(kept) + end + body


async def main() -> None:
    """Serve until ended."""
    folder = Path(sys.argv[1])
    told = json.loads((folder / "siege.json").read_text(encoding="utf-8"))
    evil = Evil(folder)
    for name in told["connectors"]:
        port = told["ports"][name]
        await asyncio.start_server(
            lambda reader, writer, port=port: evil.serve(port, reader, writer),  # type: ignore[misc]
            "127.0.0.1", told["ports"][f"{name}_evil"], limit=HEAD_MAX,
        )  # fmt: skip
    await evil.watch()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main())
