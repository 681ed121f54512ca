"""A SOAP client: zeep makes and reads the envelopes of a package's WSDL, our own client sends them.

zeep blocks, so each call works in one of a few threads; its transport hands the bytes to the
partner on the loop, where rate, timeouts, breaker and outage are the same as for every connector.
Nothing is ever loaded from the network, and a document with a DTD or entities is refused.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import zeep
import zeep.exceptions
import zeep.helpers
import zeep.transports

from connectors.runtime.partner import EXPLAINED, Answer, BadReply, Partner
from connectors.runtime.soap import SENDERS
from proto.client import Reject, Retry
from proto.wording import text

KEY: Final = "idempotency-key"
Shape = TypeVar("Shape", bound=msgspec.Struct)


class _Response:
    """An answer as zeep wants it."""

    encoding = "utf-8"

    def __init__(self, answer: Answer) -> None:
        self.status_code = answer.status
        self.content = answer.body
        self.headers = answer.headers


class _Transport(zeep.transports.Transport):
    """Sends through the partner, on its loop; loads nothing but files of the package's folder."""

    def __init__(self, partner: Partner, path: str, folder: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._partner = partner
        self._path = path
        self._folder = folder.resolve()
        self._loop = asyncio.get_running_loop()

    def load(self, url: str) -> bytes:
        """Return a file beside the WSDL. Raises ValueError for anything else."""
        file = Path(url.removeprefix("file://")).resolve()
        if not file.is_relative_to(self._folder):
            raise ValueError(f"{url}: is not beside the WSDL")
        return file.read_bytes()

    def post(self, address: str, message: bytes, headers: dict[str, str]) -> _Response:
        """Send from a thread of ours and wait. Raises Retry or Reject."""
        key = headers.pop(KEY)
        sending = self._partner.fetch(
            "POST", self._path, message, key, headers, explained=EXPLAINED | {500}
        )
        return _Response(asyncio.run_coroutine_threadsafe(sending, self._loop).result())


class SoapClient:
    """Calls the operations of `wsdl` at `path` of a partner, at most `threads` at once. To be made
    where the loop runs."""

    def __init__(
        self,
        partner: Partner,
        wsdl: Path,
        *,
        path: str = "",
        port: str | None = None,
        threads: int = 4,
    ) -> None:
        settings = zeep.Settings(
            strict=True,
            forbid_dtd=True,
            forbid_entities=True,
            forbid_external=True,
            xml_huge_tree=False,
        )
        self._partner = partner
        self._client = zeep.Client(  # type: ignore[no-untyped-call]
            str(wsdl), transport=_Transport(partner, path, wsdl.parent), settings=settings
        )
        self._service = self._client.bind(None, port)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="soap")

    def close(self) -> None:
        """Take no more calls; those under way end by the partner's timeout."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def call(
        self, operation: str, shape: type[Shape], key: str, fields: dict[str, Any]
    ) -> Shape:
        """Return the answer as `shape`. Raises Retry or Reject; a Fault of the sender is a Reject.

        `fields` are those of the request's element; `key` goes with the HTTP request.
        """
        loop = asyncio.get_running_loop()
        try:
            answer = await loop.run_in_executor(self._pool, self._call, operation, key, fields)
            told = _shaped(answer, shape)
        except BadReply as bad:
            self._partner.failed(str(bad), "reply")
            raise
        except zeep.exceptions.Fault as fault:
            self._partner.succeeded()
            raise _refused(fault) from None
        self._partner.succeeded()
        return told

    def _call(self, operation: str, key: str, fields: dict[str, Any]) -> Any:
        try:
            with self._client.settings(extra_http_headers={KEY: key}):
                answer = self._service[operation](**fields)
        except zeep.exceptions.Fault:
            raise
        except zeep.exceptions.TransportError as error:
            raise BadReply(text("connector.note_bad_reply", status=error.status_code)) from None
        except (zeep.exceptions.ValidationError, TypeError):
            # What the WSDL requires is missing from what we were given: repeating cannot help.
            raise Reject(text("connector.note_bad_body")) from None
        except (zeep.exceptions.Error, ValueError, LookupError, AttributeError):  # not an envelope
            raise BadReply(text("connector.note_bad_reply", status=200)) from None
        return zeep.helpers.serialize_object(answer, dict)  # type: ignore[no-untyped-call]


def _shaped(answer: Any, shape: type[Shape]) -> Shape:
    """Raises BadReply."""
    if not isinstance(answer, dict):  # zeep takes the only child of an answer out of it
        answer = dict.fromkeys(shape.__struct_encode_fields__[:1], answer)
    try:
        return msgspec.convert(answer, shape, strict=False)
    except msgspec.ValidationError:
        raise BadReply(text("connector.note_bad_reply", status=200)) from None


def _refused(fault: zeep.exceptions.Fault) -> Retry | Reject:
    """Only the code is told: what a Fault says may hold personal data."""
    code = str(fault.code or "").rpartition(":")[2][:40]
    note = text("connector.note_fault", code=code)
    return Reject(note) if code.partition(".")[0] in SENDERS else Retry(note)
