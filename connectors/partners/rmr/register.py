"""The register as a client sees it: pages, changes, one worker; a lost request is repeated."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec

from connectors.partners.rmr import contract
from connectors.runtime.partner.partner import Answer, Partner
from connectors.runtime.partner.reply import read_reply
from proto.client import Reject, Retry
from proto.identifiers import new_id
from proto.note import coded

ATTEMPTS_MAX: Final = 3
PAUSE_MAX_S: Final = 30.0
Page = TypeVar("Page")


class CursorLost(Exception):
    """The register does not know this cursor any more: everything has to be loaded anew."""


class Register:
    """Asks the register. Everything raises Retry when it may pass, Reject when it refuses."""

    def __init__(self, partner: Partner, page_size: int, pause_s: float) -> None:
        self._partner = partner
        self._page_size = page_size
        self._pause_s = pause_s

    async def page(self, after: str | None) -> contract.WorkerPage:
        """Return the workers after a cursor, the first ones for None. Raises also CursorLost."""
        page = await self._get("/workers", {"after": after}, contract.WorkerPage)
        if page.next is not None and (page.next == after or not page.workers):
            raise Retry(coded("rmr.stands"))
        return page

    async def changes(self, since: str) -> contract.ChangePage:
        """Return what changed after a cursor. Raises also CursorLost."""
        page = await self._get("/workers/changes", {"since": since}, contract.ChangePage)
        if page.more and page.next == since:
            raise Retry(coded("rmr.stands"))
        return page

    async def find(self, question: contract.Question) -> dict[str, Any] | None:
        """Return one worker's record, None when there is none. Not repeated: somebody waits."""
        body = msgspec.json.encode(question)
        return await self._partner.ask("POST", "/workers/find", body, new_id(), _found)

    async def _get(self, path: str, query: Mapping[str, str | None], shape: type[Page]) -> Page:
        asked = {"size": str(self._page_size), **query}
        told = urlencode({name: value for name, value in asked.items() if value is not None})

        def read(answer: Answer) -> Page:
            if answer.status == 410:
                raise CursorLost
            _check(answer)
            return read_reply(answer, shape)

        attempt = 1
        while True:
            try:
                return await self._partner.ask("GET", f"{path}?{told}", b"", new_id(), read)
            except Retry as retry:
                if attempt == ATTEMPTS_MAX or not self._partner.breaker.closed:
                    raise
                pause_s = max(retry.after_s or 0.0, self._pause_s * 2.0 ** (attempt - 1))
            attempt += 1
            await asyncio.sleep(min(pause_s, PAUSE_MAX_S))


def _found(answer: Answer) -> dict[str, Any] | None:
    """Raises Retry or Reject."""
    if answer.status == 404:
        return None
    _check(answer)
    return read_reply(answer, dict[str, Any])


def _check(answer: Answer) -> None:
    """Raises Reject."""
    if answer.status >= 300:
        raise Reject(f"HTTP {answer.status}")
