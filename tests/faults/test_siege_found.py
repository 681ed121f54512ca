"""What the siege found, each in its smallest form."""

import asyncio
import logging
import signal
import subprocess
import time
from typing import Any

import pytest
from starlette.applications import Starlette

from connectors.runtime.door.serving import allow_only
from connectors.runtime.markup.soap import SoapService
from tests.integration.bus import SMPBUS, RouterProcess
from tests.ports import free_port

TABLE = """
[connectors.smp]
open = true
listen = "127.0.0.1:{port}"
mode = "queue"
stop_s = 1.0
[connectors.smp.partner]
url = "http://127.0.0.1:9"
"""


@pytest.mark.fault("siege")
def test_a_connector_ends_in_order_at_sigterm() -> None:
    """The log's own thread was there before signals were set aside: SIGTERM found it, and every
    connector was gone at once, with status -15 and no line, and what it held with it."""
    permissions = '[peers.smp]\nconsume = ["sink"]\n'
    with RouterProcess(peers=("smp",), permissions=permissions) as router:
        with router.config.open("a", encoding="utf-8") as config:
            config.write(TABLE.format(port=free_port()))
        log = router.folder / "smp.log"
        with log.open("wb") as lines:
            command = [SMPBUS, "connector", "smp", "--config", str(router.config)]
            connector = subprocess.Popen(command, stdout=lines, stderr=lines)
        try:
            router.wait_until("sessions", lambda answer: answer["sessions"])
            connector.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert connector.wait(15) == 0
            assert time.monotonic() - began < 10
        finally:
            connector.kill()
            connector.wait()
        assert "остановлен" in log.read_text(encoding="utf-8")


@pytest.mark.fault("siege")
def test_a_partner_that_hangs_up_is_no_mistake_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever broke off a SOAP request was an error line about a mistake in the connector."""
    service = SoapService("/soap", {}, bytes_max=1000)
    app: Any = allow_only(Starlette(routes=[service.route()]), ["127.0.0.0/8"])
    scope = {
        "type": "http", "method": "POST", "path": "/soap", "query_string": b"", "headers": [],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http",
    }  # fmt: skip
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(event: Any) -> None:
        said.append(event)

    caplog.set_level(logging.INFO)
    asyncio.run(app(scope, receive, send))
    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []
