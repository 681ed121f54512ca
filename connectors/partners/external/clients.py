"""The outside services: who they are, how they prove it, from where, and how much they may ask."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from starlette.requests import Request

from connectors.partners.external.problem import Refusal
from connectors.partners.external.webhook import Webhook, WebhookSettings
from connectors.runtime.door.gate import membership
from connectors.runtime.door.token import TokenFile, bearer, digest_of
from connectors.runtime.partner.quota import Quota
from proto.exits import StartError
from proto.pattern import exactly
from proto.wording import text

# A call's ref is NAME-ID and its subject ext-NAME-ID: short enough for a subject.
ClientName = Annotated[str, msgspec.Meta(pattern=exactly(r"[a-z][a-z0-9_-]{0,31}"))]


class ClientSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.external.clients.NAME]. `token_file` holds digests of its tokens; `networks`
    narrow those of `allow`; without a `webhook` it asks for events."""

    token_file: Path
    requests_per_minute: Annotated[int, msgspec.Meta(ge=2, le=60_000)] = 120
    calls_per_day: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1000
    networks: tuple[str, ...] = ("0.0.0.0/0", "::/0")
    webhook: WebhookSettings | None = None


class Client:
    """One outside service."""

    def __init__(self, name: str, settings: ClientSettings, share: int) -> None:
        """Raises StartError."""
        self.name = name
        self.settings = settings
        self.tokens = TokenFile(settings.token_file)
        self.webhook = Webhook(name, settings.webhook, share) if settings.webhook else None
        per_minute = settings.requests_per_minute
        self.quota = Quota(per_minute, burst=per_minute // 2)
        try:
            self.is_near = membership(settings.networks)
        except ValueError as error:
            raise StartError(text("external.bad_network", name=name, problem=error)) from None


class Clients:
    """All of them."""

    def __init__(self, settings: Mapping[str, ClientSettings], credit: int) -> None:
        """Raises StartError."""
        if not settings:
            raise StartError(text("external.no_clients"))
        told = sum(one.webhook is not None for one in settings.values())
        # One share is left for those who only ask: their events are done in no time.
        share = max(1, credit // (told + 1))
        self._clients = {name: Client(name, one, share) for name, one in settings.items()}

    async def close(self) -> None:
        """Let go of every webhook."""
        for client in self._clients.values():
            if client.webhook is not None:
                await client.webhook.close()

    def named(self, name: str) -> Client | None:
        """Return a client."""
        return self._clients.get(name)

    def admit(self, request: Request) -> Client:
        """Return whose request it is, within its quota. Raises Refusal."""
        digest = digest_of(bearer(request))
        client: Client | None = None
        for one in self._clients.values():  # all of them: the time tells nothing
            if one.tokens.admits(digest):
                client = one
        if client is None:
            raise Refusal("unauthorized", "Authorization: Bearer TOKEN is required.")
        host = request.client.host if request.client else ""
        if not client.is_near(host):
            raise Refusal("elsewhere", "This token is not good from this address.")
        wait_s = client.quota.admit(time.monotonic())
        if wait_s:
            limit = client.settings.requests_per_minute
            raise Refusal(
                "quota",
                f"At most {limit} requests a minute; please wait.",
                retry_after_s=math.ceil(wait_s),
            )
        return client
