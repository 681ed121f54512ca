"""The line to an exchange: connected, logged in, caught up with, and kept; again and again."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from connectors.partners.ats.ami import Packet
from connectors.partners.ats.hearing import Hearing
from connectors.partners.ats.rights import missing_actions, unread_classes
from connectors.partners.ats.session import AmiSession, LinkLost, ListRefused, LoginRefused
from connectors.runtime.log import LOG
from connectors.runtime.partner import tls
from connectors.runtime.partner.partner import Partner
from proto.inclear import is_here
from proto.wording import text

RECONNECT_S: Final = 1.0
# A list that was refused is asked for again: soon, since a starting exchange knows its port before
# its modules; then seldom, since somebody has to change its configuration.
AGAIN_S: Final = (0.5, 0.5, 1.0, 2.0, 5.0)
AGAIN_LATER_S: Final = 30.0
LOOK_S: Final = 60.0  # after the login: was everything told that is listed
RECORDINGS_MAX: Final = 200  # that are asked for after a gap


class _Ami(Protocol):
    @property
    def login(self) -> str: ...
    @property
    def timeout_s(self) -> float: ...


class Line:
    """Use `stay`; `session` is the connection that is up, None when none is."""

    def __init__(
        self, partner: Partner, ami: _Ami, where: tuple[str, int], who: tuple[str, str],
        hearing: Hearing, ping_s: float,
    ) -> None:  # fmt: skip
        self._partner, self._ami, self._hearing = partner, ami, hearing
        self._host, self._port = where
        self._user, self._secret = who
        self._ping_s = ping_s
        self.session: AmiSession | None = None
        self._refused = ""  # the list that is refused
        self._said = ""  # of it
        self._told: set[str] = set()  # sentences that were said once

    async def stay(self) -> None:
        """Be connected to the exchange, until cancelled."""
        while True:
            try:
                await self._listen()
            except LinkLost as lost:
                self._partner.failed(tls.sentence_of(str(lost), lost.lack))
            except LoginRefused:
                self._partner.failed(text("connector.ats_login"))
            pause_s = self._partner.breaker.wait_s(time.monotonic())
            await asyncio.sleep(max(RECONNECT_S, pause_s))

    async def _listen(self) -> None:
        """One connection from its login to its end. Raises LinkLost or LoginRefused."""
        session = AmiSession(self._hearing.hear, self._ami.timeout_s)
        await session.open(self._host, self._port, self._partner.context)
        reading = asyncio.create_task(session.run())
        watching: list[asyncio.Task[None]] = []
        try:
            await self.log_in(session)
            logged_in_at = time.monotonic()
            await self._catch_up(session)
            self.session = session
            self._well()
            watching += [
                asyncio.create_task(self._ask_again(session)),
                asyncio.create_task(self._look(session, logged_in_at)),
            ]
            while not reading.done():
                await asyncio.wait([reading], timeout=self._ping_s)
                if not reading.done():
                    await session.ping()
                    self._well()
            await reading
        finally:
            self.session = None
            session.close()
            for task in (reading, *watching):
                task.cancel()
            await asyncio.gather(reading, *watching, return_exceptions=True)

    def _well(self) -> None:
        if not self._refused:
            self._partner.succeeded()

    async def log_in(self, session: AmiSession) -> None:
        """Log in by the way that the settings name. Raises LoginRefused or LinkLost."""
        way = self._ami.login
        in_clear = self._partner.context is None and not is_here(self._host)
        must_hide = way == "md5"
        hidden = must_hide or (way == "auto" and in_clear)
        shown = not await session.login(
            self._user, self._secret, hidden=hidden, must_hide=must_hide
        )
        if hidden and shown:
            self._tell_once(LOG.warning, text("connector.ats_shown", host=self._host))

    def _tell_once(self, log: Callable[[str], object], sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            log(sentence)

    async def _catch_up(self, session: AmiSession) -> None:
        """Find out what happened while nobody was listening, then hear what happened since. A list
        that is refused says nothing: no call of it has ended, no operator has gone."""
        session.hold()
        refused: ListRefused | None = None
        channels: list[Packet] | None = None
        members: list[Packet] | None = None
        new: list[str] = []
        try:
            try:
                channels = await session.listing("CoreShowChannels")
            except ListRefused as told:
                refused = told
            try:
                members = await session.listing("QueueStatus")
            except ListRefused as told:
                refused = refused or told
            if members is not None:
                self._hearing.resync_groups(members)
            if channels is not None:
                new = self._hearing.resync_calls(channels, members or [])
        finally:
            session.release()
        self._note_refused(refused)
        for channel in new[:RECORDINGS_MAX]:
            if file := await session.variable(channel, "MIXMONITOR_FILENAME"):
                self._hearing.recorded(channel, file)

    def _note_refused(self, refused: ListRefused | None) -> None:
        self._refused = refused.action if refused is not None else ""
        if refused is not None:
            sentence = text("connector.ats_refused", action=refused.action, answer=refused.answer)
            outage = self._partner.outage
            if outage.count and sentence != self._said:  # it goes on, for another reason
                LOG.error(sentence)
            self._said = sentence
            outage.failed(time.monotonic(), sentence)
            self._partner.on_change()
        else:
            self._said = ""

    async def _ask_again(self, session: AmiSession) -> None:
        attempt = 0
        while True:
            if not self._refused:
                return
            await asyncio.sleep(AGAIN_S[attempt] if attempt < len(AGAIN_S) else AGAIN_LATER_S)
            attempt += 1
            await self._catch_up(session)
            self._well()

    async def _look(self, session: AmiSession, logged_in_at: float) -> None:
        """Say which rights are missing: of actions at once, of events when one was missed."""
        known = await session.actions()
        for _, sentence in missing_actions(known) if known else ():
            self._tell_once(LOG.error, sentence)
        while not {"call", "agent"} <= self._hearing.classes:
            await asyncio.sleep(LOOK_S)
            try:
                channels = await session.listing("CoreShowChannels")
                members = await session.listing("QueueStatus")
            except ListRefused:
                continue
            since_s = time.monotonic() - logged_in_at
            for sentence in unread_classes(self._hearing.classes, channels, members, since_s):
                self._tell_once(LOG.error, sentence)
