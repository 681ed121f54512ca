"""TLS towards a partner: a region's own authority is trusted, and nobody else in its place."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.ats.connector import AmiSettings
from connectors.runtime.bus.check import _partner
from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.partner.partner import Partner, PartnerSettings
from connectors.runtime.partner.tls import make_context
from proto.client import Retry
from proto.exits import StartError
from tests.contract.authority import Authority, Pair, serving
from tests.contract.line import Line
from tests.ports import free_port

URL = "https://127.0.0.1:1"


@pytest.fixture
def region(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@contextlib.asynccontextmanager
async def partner_behind(
    pair: Pair | None, clients_of: Authority | None = None, **settings: Any
) -> AsyncIterator[Partner]:
    """A server that shows `pair` (none: speaks no TLS), and the partner as a connector sees it."""
    port = free_port()
    app = Starlette(routes=[Route("/", lambda _: Response("well"), methods=["POST"])])
    server = HttpServer(app, bind(f"127.0.0.1:{port}", "test"))
    await server.start()
    line = Line(port, None if pair is None else serving(pair, clients_of))
    await line.set("open")
    told = PartnerSettings(url=f"https://127.0.0.1:{line.port}", system="Партнёр", **settings)
    partner = Partner("test", told)
    try:
        yield partner
    finally:
        await partner.close()
        await line.close()
        await server.stop()


async def asked(partner: Partner) -> str:
    """Return what asking comes to: the answer, or why there is none."""
    try:
        return (await partner.send("POST", "/", b"{}", "k")).body.decode()
    except Retry as retry:
        return str(retry)


def test_who_the_authority_vouches_for_is_trusted_and_knows_us(region: Authority) -> None:
    us = region.issue("us")
    own = {"client_certificate_file": us.certificate, "client_key_file": us.key}

    async def act() -> None:
        settings = {"ca_file": region.ca_file, **own}
        async with partner_behind(region.issue("server"), region, **settings) as partner:
            assert await asked(partner) == "well"

    asyncio.run(act())


@pytest.mark.parametrize("case", ["another authority", "another host", "expired", "no ca_file"])
def test_who_it_does_not_vouch_for_is_refused_and_told_once(
    region: Authority, tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = Authority(tmp_path / "other", "other")
    pair = {
        "another authority": lambda: other.issue("server"),
        "another host": lambda: region.issue("server", host="10.0.0.1"),
        "expired": lambda: region.issue("server", days=-1),
        "no ca_file": lambda: region.issue("server"),
    }[case]()
    settings: dict[str, Any] = {} if case == "no ca_file" else {"ca_file": region.ca_file}

    async def act() -> None:
        async with partner_behind(pair, **settings) as partner:
            assert [await asked(partner) for _ in range(3)] == [
                "connector.no_answer why=certificate"
            ] * 3

    asyncio.run(act())
    told = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
    assert len(told) == 1
    assert "Сертификату сервера нет доверия" in told[0]
    assert "Партнёр" in told[0]


def test_a_caller_without_the_certificate_that_is_asked_for_is_told_so(
    region: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async def act() -> None:
        pair = region.issue("server")
        async with partner_behind(pair, region, ca_file=region.ca_file) as partner:
            assert await asked(partner) == "connector.no_answer why=tls"

    asyncio.run(act())
    assert "Сервер не согласился на TLS" in caplog.text


def test_a_server_without_tls_is_not_spoken_to_in_the_clear(region: Authority) -> None:
    async def act() -> None:
        async with partner_behind(None, ca_file=region.ca_file) as partner:
            assert await asked(partner) == "connector.no_answer why=tls"

    asyncio.run(act())


def test_check_trusts_whom_the_connector_trusts(region: Authority, tmp_path: Path) -> None:
    async def found(ca_file: Path) -> str:
        async with partner_behind(region.issue("server"), ca_file=ca_file) as partner:
            url = partner.settings.url.replace("https:", "tls:")
            return (await _partner(AmiSettings(url=url, ca_file=ca_file))).sentence

    assert "принимает соединение" in asyncio.run(found(region.ca_file))
    other = Authority(tmp_path / "other", "other").ca_file
    assert "Сертификату сервера нет доверия" in asyncio.run(found(other))


def settings_of(url: str = URL, **files: Any) -> PartnerSettings:
    return PartnerSettings(url=url, **files)


def test_files_that_cannot_be_used_are_named(region: Authority, tmp_path: Path) -> None:
    mine, other = region.issue("mine"), region.issue("other")
    locked = region.issue("locked", password=b"word")
    open_key = tmp_path / "open.key"
    open_key.write_bytes(mine.key.read_bytes())
    open_key.chmod(0o644)
    absent = tmp_path / "absent.pem"

    def refused(url: str = URL, **files: Any) -> str:
        with pytest.raises(StartError) as error:
            make_context(settings_of(url, **files))
        assert error.value.exit_code == 78
        return error.value.sentence

    def pair(certificate: Path, key: Path) -> dict[str, Any]:
        return {"client_certificate_file": certificate, "client_key_file": key}

    assert str(absent) in refused(ca_file=absent)
    assert "нет сертификатов" in refused(ca_file=mine.key)
    assert "только вместе" in refused(client_certificate_file=mine.certificate)
    assert "только вместе" in refused(client_key_file=mine.key)
    assert str(absent) in refused(**pair(mine.certificate, absent))
    assert str(absent) in refused(**pair(absent, mine.key))
    assert "chmod 600" in refused(**pair(mine.certificate, open_key))
    assert "не подходят" in refused(**pair(mine.certificate, other.key))
    assert "openssl pkey" in refused(**pair(*locked))
    assert "http://10.0.0.1" in refused("http://10.0.0.1", ca_file=region.ca_file)


def test_a_plain_address_needs_nothing_and_an_exchange_may_speak_tls(region: Authority) -> None:
    assert make_context(settings_of("http://127.0.0.1:1")) is None
    assert make_context(AmiSettings(url="tls://127.0.0.1:1", ca_file=region.ca_file)) is not None
