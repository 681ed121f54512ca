"""One connection to an exchange: logged in, asked questions, its events handed on in order.

It is always read: an exchange drops a client that does not (after 5 s, under load).
"""

import asyncio
import hashlib
import itertools
import ssl
from collections.abc import Callable, Mapping
from typing import Final

from connectors.partners.ats.ami import Packet, Parser, encode
from connectors.runtime.partner import tls

READ_BYTES: Final = 64 * 1024
HELD_MAX: Final = 20_000  # events that happen while the exchange lists what there is
Until = Callable[[Packet], bool]


class LinkLost(Exception):
    """The connection is gone, or the exchange does not answer; says which, never what was said, and
    what its certificate `lack`s."""

    def __init__(self, why: str, lack: str = "") -> None:
        super().__init__(why)
        self.lack = lack


class LoginRefused(Exception):
    """The exchange knows the user or the secret not."""


class ListRefused(Exception):
    """The exchange does not tell what there is: which action, and what it says. That is no empty
    list."""

    def __init__(self, action: str, answer: str) -> None:
        super().__init__(action)
        self.action = action
        self.answer = answer[:100]


class AmiSession:
    """Use `open`, then `run` beside everything else; `ask` while it runs."""

    def __init__(self, on_event: Callable[[Packet], object], timeout_s: float) -> None:
        self._on_event = on_event
        self._timeout_s = timeout_s
        self._numbers = itertools.count(1)
        self._questions: dict[str, tuple[Until, list[Packet], asyncio.Future[list[Packet]]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._held: list[Packet] = []  # events that wait for `release`
        self._is_listing = True
        self._reads = 0
        self.parser = Parser()

    async def open(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        """Connect, by TLS if there is a context. Raises LinkLost."""
        try:
            async with asyncio.timeout(self._timeout_s):
                opening = asyncio.open_connection(host, port, ssl=context)
                self._reader, self._writer = await opening
        except (OSError, TimeoutError) as error:
            why = tls.kind_of(error) or type(error).__name__
            raise LinkLost(why, tls.lack_of(error)) from None

    async def run(self) -> None:
        """Read until the connection ends. Raises LinkLost always."""
        try:
            while data := await self._reader.read(READ_BYTES):
                self._reads += 1
                for packet in self.parser.feed(data):
                    self._take(packet)
            raise LinkLost("closed")
        except OSError as error:
            raise LinkLost(type(error).__name__) from None
        finally:
            self._fail()

    def _take(self, packet: Packet) -> None:
        question = self._questions.get(packet["ActionID"])
        if question is not None:
            until, found, answer = question
            found.append(packet)
            if until(packet) and not answer.done():
                answer.set_result(found)
        elif packet.event:
            self._event(packet)

    def _event(self, packet: Packet) -> None:
        if not self._is_listing:
            self._on_event(packet)
            return
        if len(self._held) == HELD_MAX:
            raise LinkLost("too many events")
        self._held.append(packet)

    def hold(self) -> None:
        """Hold events back until `release`: it is about to be listed what there is."""
        self._is_listing = True

    def release(self) -> None:
        """Hand on what happened while it was listed what there is, and everything from now on."""
        held, self._held = self._held, []
        for packet in held:
            self._on_event(packet)
        self._is_listing = False

    async def ping(self) -> None:
        """Find out whether the exchange is there. Raises LinkLost.

        In a flood the answer comes behind everything else: whatever is heard is a sign of life.
        """
        reads = self._reads
        try:
            await self.ask("Ping")
        except LinkLost:
            if self._reads == reads:
                raise

    async def ask(
        self, action: str, fields: Mapping[str, str] = {}, until: Until | None = None,
        timeout_s: float | None = None,
    ) -> list[Packet]:  # fmt: skip
        """Return the answer and what belongs to it, up to the packet `until` knows as the last; a
        refusal is always the last. Raises LinkLost."""
        if self._writer is None:
            raise LinkLost("not connected")
        action_id = f"smpbus-{next(self._numbers)}"
        answer: asyncio.Future[list[Packet]] = asyncio.get_running_loop().create_future()
        last = until or (lambda packet: "Response" in packet)
        self._questions[action_id] = (lambda p: p["Response"] == "Error" or last(p), [], answer)
        try:
            self._writer.write(encode(action, action_id, fields))
            async with asyncio.timeout(timeout_s or self._timeout_s):
                await self._writer.drain()
                return await answer
        except TimeoutError:
            raise LinkLost("timeout") from None
        except OSError as error:
            raise LinkLost(type(error).__name__) from None
        finally:
            del self._questions[action_id]

    async def login(
        self, user: str, secret: str, *, hidden: bool = False, must_hide: bool = False
    ) -> bool:
        """Say who we are; `hidden` says the secret itself only to an exchange that offers no
        challenge, and not even then if we `must_hide` it. Returns whether it was hidden. Raises
        LoginRefused or LinkLost."""
        fields = {"Username": user, "Events": "on"}
        answered = self._answered(await self._challenge(), secret) if hidden else {}
        if not answered and must_hide:
            raise LoginRefused
        shown = answered or {"Secret": secret}
        if (await self.ask("Login", fields | shown))[-1]["Response"] != "Success":
            raise LoginRefused
        return bool(answered)

    async def _challenge(self) -> str:
        """Return a challenge, "" when the exchange offers none."""
        told = (await self.ask("Challenge", {"AuthType": "MD5"}))[-1]
        return told["Challenge"] if told["Response"] == "Success" else ""

    @staticmethod
    def _answered(challenge: str, secret: str) -> dict[str, str]:
        # What the protocol has: whoever hears it may try secrets at home, so the secret is to be
        # long and random; TLS is better.
        if not challenge:
            return {}
        told = hashlib.md5(f"{challenge}{secret}".encode(), usedforsecurity=False).hexdigest()
        return {"AuthType": "MD5", "Key": told}

    async def listing(self, action: str) -> list[Packet]:
        """Return the events of a list that the exchange gives. Raises LinkLost or ListRefused."""
        found = await self.ask(action, until=lambda packet: packet["EventList"] == "Complete")
        if found[-1]["Response"] == "Error":
            raise ListRefused(action, found[-1]["Message"])
        return [packet for packet in found if packet.event]

    async def variable(self, channel: str, name: str) -> str:
        """Return a channel's variable, "" when it has none or the exchange does not say. Raises
        LinkLost."""
        answer = (await self.ask("Getvar", {"Channel": channel, "Variable": name}))[-1]
        return answer["Value"]

    async def actions(self) -> dict[str, str] | None:
        """Return what the exchange lets us ask, each with what it says of it; None when it does not
        say. Raises LinkLost."""
        answer = (await self.ask("ListCommands"))[-1]
        return dict(answer) if answer["Response"] == "Success" else None

    def _fail(self) -> None:
        for _, _, answer in self._questions.values():
            if not answer.done():
                answer.set_exception(LinkLost("closed"))

    def close(self) -> None:
        """Hang up."""
        self._fail()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
