"""Parts that hang, for connector processes of the tests to stumble over."""

import asyncio
import socket
import sys
import time
from typing import Any

from connectors.runtime.bus.connector import Connector
from connectors.runtime.outside import Outside
from connectors.services.document.signer import Signed, SignerSettings
from proto.client import Delivery
from tests.until import wait_for

HANGS_S = 3600.0  # for ever, as far as a test can tell

PAIR = socket.socketpair()  # of which nobody ever writes


class HangingSigner:
    """A signer whose device does not answer until the file beside its key is there."""

    def __init__(self, settings: SignerSettings) -> None:
        self._settings = settings

    def sign(self, document: bytes) -> Signed:
        """See Signer."""
        assert self._settings.key_file is not None
        wait_for(self._settings.key_file.with_name("awake").exists, "the device", HANGS_S)
        return Signed(b"signature", "digest")


class HangingConnector(Connector):
    """Hangs in the way that its deliveries ask for."""

    waits_for_partner = False

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._outside = Outside("device", 0.3, at_once=2)

    async def handle(self, delivery: Delivery) -> str | None:
        """See Connector."""
        match delivery.message.body:
            case b"thread":
                await self._outside.call(time.sleep, HANGS_S)
            case b"exit":
                await self._outside.call(sys.exit, 3)
            case b"loop":
                time.sleep(HANGS_S)  # noqa: ASYNC251  # a dead disk holds the loop itself
            case b"pool":
                await asyncio.to_thread(PAIR[0].recv, 1)
        return "done"
