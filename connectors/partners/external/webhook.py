"""The webhook of one outside service: signed, bounded, and no burden to anybody else."""

import hashlib
import hmac
import random
import time
from typing import Final

from connectors.runtime.partner.partner import Partner, PartnerSettings
from connectors.runtime.secretfile import read_secret
from proto.client import Retry
from proto.configuration.declared import SecretFile
from proto.exits import StartError
from proto.note import coded
from proto.wording import text

SECRET_BYTES_MIN: Final = 32
BUSY_S: Final = 2.0
# Answers that say "not here, not now" of the address, not of the event.
ELSEWHERE: Final = frozenset({403, 404, 409, 410})


class WebhookSettings(PartnerSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.external.clients.NAME.webhook]: a partner, and the file of the secret that signs
    what it gets."""

    secret_file: SecretFile


class Webhook:
    """Tells events to one service, at most `share` at once; one at a time while it is tried out
    after an outage. Its breaker is its own, and whatever has to wait goes back to the router, so
    that a dead webhook takes no credit from the others."""

    def __init__(self, client: str, settings: WebhookSettings, share: int) -> None:
        """Raises StartError."""
        self._secret = read_secret(settings.secret_file)
        if len(self._secret) < SECRET_BYTES_MIN:
            path, count = settings.secret_file, SECRET_BYTES_MIN
            raise StartError(text("external.secret_short", path=path, count=count))
        self.partner = Partner(client, settings)
        self._share = share
        self._open = 0

    async def close(self) -> None:
        """Close every connection."""
        await self.partner.close()

    async def tell(self, body: bytes, key: str) -> str:
        """Post an event; return the note of its ack. Raises Retry, or Reject for an event that the
        service will never take (400, 413, 415, 422 and the like)."""
        breaker = self.partner.breaker
        wait_s = breaker.wait_s(time.monotonic())
        if wait_s or self._open >= (self._share if breaker.closed else 1):
            # Not all at once: what waits comes back over some time.
            after_s = max(wait_s, BUSY_S) * random.uniform(1.0, 2.0)
            raise Retry(coded("external.webhook_waits"), after_s)
        self._open += 1
        try:
            signed = {"signature": sign(self._secret, body, int(time.time()))}
            answer = await self.partner.send("POST", "", body, key, signed, ELSEWHERE)
        finally:
            self._open -= 1
        if answer.status >= 300:
            raise Retry(f"HTTP {answer.status}")
        return f"HTTP {answer.status}"


def sign(secret: bytes, body: bytes, at: int) -> str:
    """Return the header Signature: `at` in seconds since 1970, and an HMAC-SHA256 of it, a full
    stop and the body."""
    digest = hmac.new(secret, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def is_signed(secret: bytes, body: bytes, signature: str, now: int, within_s: int = 300) -> bool:
    """Whether a signature is good and not older than `within_s`: how a service checks it."""
    parts = dict(part.partition("=")[::2] for part in signature.split(","))
    at = parts.get("t", "")
    if not (at.isascii() and at.isdigit()) or abs(now - int(at)) > within_s:
        return False
    return hmac.compare_digest(sign(secret, body, int(at)).encode(), signature.encode())
