"""Requests to РИАМС: forms out, JSON back, whatever type the answer claims to be."""

from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlencode

from connectors.partners.rmis.riams.contract import Answer, Reply, Session
from connectors.runtime.door.body import without_mark
from connectors.runtime.partner.http import HttpAnswer
from connectors.runtime.partner.partner import EXPLAINED, BadReply, Partner, Untouched, credentials
from connectors.runtime.words import code_of
from proto.client import Reject, Retry
from proto.identifiers import new_id
from proto.message import UNREADABLE
from proto.nesting import decode_json
from proto.note import coded

FORM: Final = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
UNKNOWN: Final = frozenset({401, 403})
REFUSED: Final = frozenset({3, 6})

Shape = TypeVar("Shape")
Told = TypeVar("Told", bound=Answer)
Fields = dict[str, str]


class Service:
    """The services of a РИАМС that need no session of ours."""

    def __init__(self, partner: Partner) -> None:
        self._partner = partner

    async def ask(
        self,
        service: str,
        operation: str,
        fields: Fields,
        shape: type[Shape],
        *,
        once: bool = False,
    ) -> Shape:
        """Return the answer; what may go `once` only is not sent again, whatever became of it.
        Raises Retry, or Reject for a refusal by HTTP."""
        path = f"/?c={service}&m={operation}"
        body = urlencode(fields).encode()

        def whole(answer: HttpAnswer) -> Shape:
            return read(answer, shape)

        return await self._partner.ask("POST", path, body, new_id(), whole, FORM, once=once)


class Rish:
    """The part of РИАМС that wants a session: opened when needed, and anew when it is gone."""

    def __init__(self, partner: Partner, login_file: Path) -> None:
        """Raises StartError when the file of one line, user:password, cannot be used."""
        self._partner = partner
        self._user, self._password = credentials(login_file)
        self._session = ""

    async def open(self) -> None:
        """Open a session. Raises Untouched."""
        self._session = await self._login()

    async def ask(self, method: str, path: str, fields: Fields, shape: type[Told]) -> Told:
        """Return the answer, also a refusal of what was asked for. Raises Retry or Reject."""
        for _ in range(2):
            if not self._session:
                await self.open()
            told = await self._send(method, path, fields | {"sess_id": self._session}, shape)
            if told is not None and told.error_code in (0, *REFUSED):
                return told
            self._session = ""
        raise Untouched(coded("rmis.no_session"))

    async def _login(self) -> str:
        """Return a new session. Raises Untouched: what it is for was not asked yet."""
        # By POST: what stands in an address is written to the logs of every gateway.
        given = {"login": self._user or "", "password": self._password or ""}
        try:
            told = await self._send("POST", "/api/User/mlogin", given, Session)
        except (Retry, Reject) as error:
            raise Untouched(str(error), getattr(error, "after_s", None), wish=True) from None
        if told is None or told.error_code or not told.sess_id:
            raise Untouched(coded("rmis.no_session"))
        return told.sess_id

    async def _send(self, method: str, path: str, fields: Fields, shape: type[Told]) -> Told | None:
        """Return the answer, None when it is that we are unknown."""
        sent = urlencode(fields)
        explained = EXPLAINED | UNKNOWN
        if method == "GET":
            path, sent = f"{path}?{sent}", ""

        def known(answer: HttpAnswer) -> Told | None:
            return None if answer.status in UNKNOWN else read(answer, shape)

        ask = self._partner.ask
        # РИАМС knows no idempotency key: what creates something is asked for once.
        once = method != "GET"
        return await ask(method, path, sent.encode(), new_id(), known, FORM, explained, once=once)


def read(answer: HttpAnswer, shape: type[Shape]) -> Shape:
    """Return the body as `shape`; РИАМС calls its JSON text/html. Raises BadReply when it is none,
    and Reject for a refusal by HTTP."""
    if answer.status >= 300:
        raise Reject(f"HTTP {answer.status}")
    try:
        return decode_json(without_mark(answer.body), shape, strict=False)
    except UNREADABLE:
        # its text may quote the body
        raise BadReply(coded("connector.bad_reply", status=answer.status)) from None


def refused(reply: Reply) -> Reject:
    """Return the refusal of an answer: its code alone, since its words may quote names."""
    return Reject(coded("rmis.refused", code=code_of(reply.Error_Code or "-")))
