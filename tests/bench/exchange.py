"""An exchange that pours a generated stream over whoever is logged in, and may break off."""

import asyncio
from collections.abc import Sequence

from connectors.partners.ats.ami import Packet, Parser
from tests.bench.amistream import Stream

BANNER = b"Asterisk Call Manager/7.0.3\r\n"
TICK_S = 0.01


class PouringExchange:
    """`rate` is events a second, 0: as fast as they are taken. At each of `breaks` (places in the
    stream) the line breaks off in the middle of an event, and the next `lost` nobody hears."""

    def __init__(
        self, stream: Stream, rate: float = 0.0, breaks: Sequence[int] = (), lost: int = 0
    ) -> None:
        self.stream = stream
        self.logins = 0
        self.poured_s = 0.0
        self.late = 0  # ticks at which less was taken than the rate wants
        self.done = asyncio.Event()
        self._rate = rate
        self._breaks = list(breaks)
        self._lost = lost
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends."""
        parser = Parser()
        list(parser.feed(BANNER))
        writer.write(BANNER)
        try:
            while data := await reader.read(65536):
                for action in parser.feed(data):
                    self._act(action, writer)
        except OSError:
            pass
        finally:
            writer.transport.abort()

    def _act(self, action: Packet, writer: asyncio.StreamWriter) -> None:
        name, id = action["Action"], action["ActionID"]
        if name in ("CoreShowChannels", "QueueStatus"):
            writer.write(self.stream.listing(name, id))
        else:
            self.logins += name == "Login"
            writer.write(f"Response: Success\r\nActionID: {id}\r\n\r\n".encode())
        if name == "QueueStatus":
            pouring = asyncio.create_task(self._pour(writer))
            self._tasks.add(pouring)
            pouring.add_done_callback(self._tasks.discard)

    async def _pour(self, writer: asyncio.StreamWriter) -> None:
        stream, loop = self.stream, asyncio.get_running_loop()
        began, first = loop.time(), stream.at
        try:
            while stream.at < len(stream.events):
                if self._breaks and stream.at >= self._breaks[0]:
                    self._break_off(writer)
                    return
                await self._pour_some(writer)
                if self._rate:
                    ahead_s = (stream.at - first) / self._rate - (loop.time() - began)
                    self.late += ahead_s < -1.0
                    await asyncio.sleep(max(0.0, ahead_s))
        except OSError:
            return
        self.poured_s = loop.time() - began
        self.done.set()

    async def _pour_some(self, writer: asyncio.StreamWriter) -> None:
        """Send some events, in pieces that end anywhere."""
        count = max(1, int(self._rate * TICK_S)) if self._rate else 200
        data = self.stream.take(count)
        cut = self.stream.random.randrange(len(data))
        for piece in (data[:cut], data[cut:]):
            writer.write(piece)
            await writer.drain()

    def _break_off(self, writer: asyncio.StreamWriter) -> None:
        self._breaks.pop(0)
        half = self.stream.take(1)
        writer.write(half[: len(half) // 2])
        writer.close()
        self.stream.take(self._lost)
