"""The client of НСИ: passports and whole code lists, within the federal limit of requests."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Annotated, Final, TypeVar
from urllib.parse import urlencode

import msgspec

from connectors.runtime.outside import Outside
from connectors.runtime.partner.partner import Answer, Partner, PartnerSettings
from connectors.runtime.partner.quota import Quota
from connectors.runtime.partner.reply import read_reply
from connectors.runtime.secretfile import read_secret_text
from connectors.runtime.words import code_of
from connectors.services.lookup import CODE_LIST, CodeList, Lookup
from connectors.services.nsi import contract
from proto.client import Reject, Retry
from proto.configuration.declared import SecretFile
from proto.identifiers import new_id
from proto.note import coded

Shape = TypeVar("Shape")

ATTEMPTS_MAX: Final = 3
PAUSE_MAX_S: Final = 30.0
READ_S: Final = 60.0  # for reading a list that has come: computing, in a thread
ROWS_MAX: Final = 1_000_000


class NsiSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """НСИ. `user_key_file` holds the key that the register gave to the organisation; `quota_file`
    is shared by all connectors of this machine that ask НСИ, so that together they keep to
    `requests_per_minute`; for its lock they wait up to `quota_timeout_s`."""

    partner: PartnerSettings
    user_key_file: SecretFile | None = None
    quota_file: Path | None = None
    quota_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 10.0
    requests_per_minute: Annotated[int, msgspec.Meta(ge=2, le=10_000)] = contract.PER_MINUTE
    page_rows: Annotated[int, msgspec.Meta(ge=1, le=2000)] = contract.PAGE_ROWS_MAX
    pause_s: Annotated[float, msgspec.Meta(gt=0, le=30)] = 1.0


class NsiClient:
    """Asks НСИ. Everything raises Retry when it may pass, Reject when НСИ refuses."""

    def __init__(self, settings: NsiSettings, quota: Quota | None = None) -> None:
        """`quota` is given where several clients of one process share it. Raises StartError."""
        self.settings = settings
        self.partner = Partner("nsi", settings.partner)
        self._reading = Outside("code list", READ_S)
        self.quota = quota or Quota(
            settings.requests_per_minute,
            file=settings.quota_file,
            lock_s=settings.quota_timeout_s,
        )
        self._user_key = read_secret_text(settings.user_key_file) if settings.user_key_file else ""

    async def close(self) -> None:
        """Close every connection."""
        await self.partner.close()
        self.quota.close()

    async def passport(self, oid: str, version: str = "") -> contract.Passport:
        """Return the passport of a list, of its current version unless another is named."""
        return await self._ask("/passport", contract.Passport, identifier=oid, version=version)

    async def pages(self, oid: str, version: str) -> AsyncIterator[contract.Page]:
        """Yield the pages of one version until all rows have come."""
        size = self.settings.page_rows
        number = came = 0
        while True:
            number += 1
            asked = {"identifier": oid, "version": version, "page": str(number), "size": str(size)}
            page = await self._ask("/data", contract.Page, **asked)
            came += len(page.rows)
            if page.total > ROWS_MAX or came > page.total or (not page.rows and came < page.total):
                raise Retry(coded("nsi.rows", oid=oid, came=came, total=page.total))
            yield page
            if came == page.total:
                return

    async def code_list(self, oid: str, version: str = "") -> CodeList:
        """Return a whole list; rows and passport are of one version."""
        passport = await self.passport(oid, version)
        rows = []
        async for page in self.pages(oid, passport.version):
            rows += page.rows
        if passport.oid != oid or len(rows) != passport.rows_count:
            note = coded("nsi.rows", oid=oid, came=len(rows), total=passport.rows_count)
            raise Retry(note)
        try:
            return await self._reading.call(contract.code_list, passport, rows)
        except contract.Broken as error:
            raise Reject(coded("nsi.broken", oid=oid, why=error)) from None

    async def _ask(self, path: str, shape: type[Shape], **asked: str) -> Shape:
        """Ask until it is answered, at most ATTEMPTS_MAX times: a list of many pages is not begun
        again for one that was lost."""
        attempt = 1
        while True:
            try:
                return await self._ask_once(path, shape, asked)
            except Retry as retry:
                if attempt == ATTEMPTS_MAX or not self.partner.breaker.closed:
                    raise
                pause_s = max(retry.after_s or 0.0, self.settings.pause_s * 2.0 ** (attempt - 1))
            attempt += 1
            await asyncio.sleep(min(pause_s, PAUSE_MAX_S))

    async def _ask_once(self, path: str, shape: type[Shape], asked: dict[str, str]) -> Shape:
        rest_s = self.partner.breaker.wait_s(time.monotonic())
        if not rest_s:  # nothing of the quota goes to one who would not be asked anyway
            await self.quota.take()
        query = {"userKey": self._user_key, **asked}
        told = urlencode({name: value for name, value in query.items() if value})
        read = partial(_read, shape=shape)
        return await self.partner.ask("GET", f"{path}?{told}", b"", new_id(), read)


class CodeLists:
    """Code lists by OID, through the lookup layer."""

    def __init__(self, lookup: Lookup, client: NsiClient) -> None:
        self._lookup = lookup
        self._client = client

    async def get(self, oid: str, version: str = "") -> CodeList:
        """Return a list, of its current version unless another is named. Raises Retry, Reject."""
        found = await self._lookup.get(
            CODE_LIST, (oid, version), lambda: self._client.code_list(oid, version)
        )
        if found is None:
            raise Retry(coded("nsi.rows", oid=oid, came=0, total=0))
        return found

    async def name_of(self, oid: str, code: str) -> str | None:
        """Return what people read for a code; None when the list has no such code. Raises Retry,
        Reject."""
        return (await self.get(oid)).name_of(code)


def _read(answer: Answer, shape: type[Shape]) -> Shape:
    """Raises Retry for what is no answer of НСИ at all, Reject for its refusal."""
    outcome = read_reply(answer, contract.Outcome)
    if outcome.result == contract.OK and answer.status == 200:
        return read_reply(answer, shape)
    code = code_of(outcome.result_code or "-")
    raise Reject(coded("nsi.refused", status=answer.status, code=code))
