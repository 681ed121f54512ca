"""Who may come in at a connector's door: how each proves it, from where, and what for."""

import asyncio
import base64
import contextlib
import logging
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.runtime.bus.settings import ConnectorSettings
from connectors.runtime.door.callers import behind_guard, caller_of
from connectors.runtime.door.gate import membership
from connectors.runtime.door.refusals import Refusals
from connectors.runtime.door.serving import HttpServer, allow_only, bind
from connectors.runtime.door.token import TokenFile, digest_of, lines_of, make_token
from connectors.runtime.partner.http import HttpAnswer, HttpClient
from proto.exits import StartError
from tests.contract.authority import Authority
from tests.integration.bus import SMPBUS
from tests.ports import free_port

SHAPE = SimpleNamespace(
    door_scopes={"/a": "read", "/a/write": "write", "/b": "write"},
    door_public=frozenset({"/docs"}),
    knows_callers=False,
)
SERVED = ("/a", "/a/x", "/a/write", "/b")
PATHS = (*SERVED, "/elsewhere", "/")


def told(folder: Path, callers: dict[str, Any], **more: Any) -> ConnectorSettings:
    partner = {"url": "http://127.0.0.1:9"}
    table = {"partner": partner, "listen": f"127.0.0.1:{free_port()}", "callers": callers, **more}

    def path(_: type, value: str) -> Path:
        return folder / value

    return msgspec.convert(table, ConnectorSettings, dec_hook=path)


class Door:
    """An app behind its guard, which tells who came and writes down what was reached."""

    def __init__(self, settings: ConnectorSettings) -> None:
        self.reached: list[tuple[str, str]] = []
        self.refusals = Refusals(slow_s=0.0)
        self._settings = settings

    async def _answer(self, request: Request) -> Response:
        self.reached.append((caller_of(request.scope), request.url.path))
        return Response(caller_of(request.scope))

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[HttpClient]:
        app: Any = Starlette(routes=[Route(path, self._answer) for path in (*SERVED, "/docs")])
        app = behind_guard(app, SHAPE, "test", self._settings, Path("smpbus.toml"))
        assert app is not None
        channel = bind(self._settings.listen, "test")
        known = membership(self._settings.allow)
        app = allow_only(app, self._settings.allow)
        server = HttpServer(app, channel, self._settings.http, known, self.refusals)
        await server.start()
        client = HttpClient(f"http://{self._settings.listen}")
        try:
            yield client
        finally:
            await client.close()
            await server.stop()


async def get(client: HttpClient, path: str, headers: dict[str, str] | None = None) -> HttpAnswer:
    return await client.request("GET", path, b"", headers)


def bearing(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.fault("S4")
def test_nobody_comes_in_unknown_and_each_only_where_its_scopes_let_it(tmp_path: Path) -> None:
    """Every path was everybody's whom `allow` let in; without a secret it is 401 and with one of
    another scope 403, on paths that there are and on those that there are not, and nothing of the
    app runs. A path that no scope is made for is for who may do everything."""
    tokens = {who: make_token(tmp_path / who, None) for who in ("all", "reader", "writer", "none")}
    scopes = {"all": ["*"], "reader": ["read"], "writer": ["write"], "none": []}
    callers = {who: {"token_file": who, "scopes": scopes[who]} for who in tokens}
    door = Door(told(tmp_path, callers))

    async def whole() -> None:
        async with door.open() as client:
            for path in PATHS:
                for headers in (
                    {},
                    bearing("x" * 43),
                    {"authorization": "Bearer"},
                    basic("all", tokens["all"]),
                ):
                    answer = await get(client, path, headers)
                    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
                query = await get(client, f"{path}?token={tokens['all']}")
                assert query.status == 401
            found = {
                who: [(await get(client, path, bearing(tokens[who]))).status for path in PATHS]
                for who in tokens
            }
            assert found == {
                "all": [200, 200, 200, 200, 404, 404],
                "reader": [200, 200, 403, 403, 403, 403],
                "writer": [403, 403, 200, 200, 403, 403],
                "none": [403] * 6,
            }
            assert (await get(client, "/docs")).status == 200

    asyncio.run(whole())
    assert [one for one in door.reached if one[1] != "/docs"] == [
        ("all", "/a"), ("all", "/a/x"), ("all", "/a/write"), ("all", "/b"),
        ("reader", "/a"), ("reader", "/a/x"), ("writer", "/a/write"), ("writer", "/b"),
    ]  # fmt: skip
    assert door.refusals.counts == {"token": 30, "scope": 14}


@pytest.mark.fault("S1")
def test_a_caller_proves_itself_the_way_that_is_set_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A partner that can only be given an address has a secret first part of the path, which
    goes no further than the guard; one of Basic is not good as a bearer, nor under another name."""
    ways = ("bearer", "basic", "header", "path")
    tokens = {way: make_token(tmp_path / f"w-{way}", None) for way in ways}
    callers: dict[str, Any] = {way: {"token_file": f"w-{way}", "by": way} for way in ways}
    callers["header"]["header"] = "X-Api-Key"
    door = Door(told(tmp_path, callers))
    shown: dict[str, Callable[[str], tuple[str, dict[str, str]]]] = {
        "bearer": lambda token: ("/a", bearing(token)),
        "basic": lambda token: ("/a", basic("basic", token)),
        "header": lambda token: ("/a", {"x-api-key": token}),
        "path": lambda token: (f"/{token}/a", {}),
    }

    async def whole() -> None:
        async with door.open() as client:
            for way in ways:
                for proof in ways:
                    for whose, token in tokens.items():
                        path, headers = shown[proof](token)
                        answer = await get(client, path, headers)
                        good = way == proof == whose
                        if proof == whose:
                            assert (answer.status, answer.body) == (200, proof.encode())
                        else:
                            assert (answer.status, good) == (401, False)
            assert (await get(client, "/a", basic("bearer", tokens["basic"]))).status == 401
            assert (await get(client, f"/{tokens['path']}/docs")).status == 200
            assert (await get(client, f"/a/{tokens['path']}")).status == 401
            assert (await get(client, f"/{tokens['path']}")).status == 404

    with caplog.at_level(logging.DEBUG, "smpbus"):
        asyncio.run(whole())
    assert {path for _, path in door.reached} == {"/a", "/docs"}
    assert not any(token in caplog.text for token in tokens.values())


@pytest.mark.fault("S12")
def test_a_certificate_told_by_a_proxy_counts_only_with_the_proxys_own_secret(
    tmp_path: Path,
) -> None:
    """Headers are anybody's to write: without the secret of the proxy no request is let in, with
    it a certificate is known by its fingerprint, and one of the same name is not."""
    region = Authority(tmp_path / "ca")
    ours, other = (region.issue(name).certificate for name in ("partner", "other"))
    namesake = Authority(tmp_path / "twin").issue("partner").certificate
    secret = tmp_path / "proxy.secret"
    secret.touch(mode=0o600)
    secret.write_text("s" * 32)
    token = make_token(tmp_path / "desk", None)
    shown = subprocess.run(
        ["openssl", "x509", "-in", ours, "-noout", "-fingerprint", "-sha256"],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    callers = {
        "partner": {"certificates": [shown.stdout.partition("=")[2].strip()], "scopes": ["read"]},
        "desk": {"token_file": "desk"},
    }
    door = Door(told(tmp_path, callers, http={"proxy_secret_file": "proxy.secret"}))
    proof = {"x-smpbus-proxy": "s" * 32}

    def told_by_proxy(certificate: Path) -> dict[str, str]:
        return {"x-client-certificate": quote(certificate.read_text())}

    async def whole() -> None:
        async with door.open() as client:
            good = told_by_proxy(ours)
            assert (await get(client, "/a", good | proof)).body == b"partner"
            assert (await get(client, "/b", good | proof)).status == 403
            for headers in (
                good,
                good | {"x-smpbus-proxy": "s" * 31},
                good | {"x-smpbus-proxy": ""},
                proof,
                proof | {"x-client-certificate": "-----BEGIN CERTIFICATE-----"},
                proof | {"x-client-certificate": ""},
                proof | told_by_proxy(other),
                proof | told_by_proxy(namesake),
                bearing(token),
            ):
                assert (await get(client, "/a", headers)).status == 401, headers
            assert (await get(client, "/b", bearing(token) | proof)).body == b"desk"

    asyncio.run(whole())
    without = Door(told(tmp_path, callers))

    async def unbelieved() -> None:
        async with without.open() as client:
            assert (await get(client, "/a", told_by_proxy(ours) | proof)).status == 401

    asyncio.run(unbelieved())


@pytest.mark.fault("S4")
def test_a_token_is_good_from_its_networks_and_until_its_day(tmp_path: Path) -> None:
    """A token that got away opened the door from everywhere and for ever."""
    near, far = (make_token(tmp_path / who, None) for who in ("near", "far"))
    late = make_token(tmp_path / "near", "add", "until=2020-01-31 label=laptop-17")
    last = make_token(tmp_path / "near", "add", "until=2999-12-31")
    callers = {
        "near": {"token_file": "near", "networks": ["127.0.0.0/8"]},
        "far": {"token_file": "far", "networks": ["10.0.0.0/8"]},
    }
    door = Door(told(tmp_path, callers))

    async def whole() -> list[int]:
        async with door.open() as client:
            asked = [await get(client, "/a", bearing(one)) for one in (near, last, late, far)]
            return [one.status for one in asked]

    assert asyncio.run(whole()) == [200, 200, 401, 403]
    assert door.refusals.counts == {"token": 1, "address": 1}


def test_a_file_of_tokens_is_of_digests_days_and_labels(tmp_path: Path) -> None:
    """Files of bare digests, several on a line too, are read as they were; what is no such file
    admits nobody."""
    one, two = digest_of("a"), digest_of("b")
    both = ((one, "9999-12-31"), (two, "9999-12-31"))
    assert lines_of(f"{one}\n{two}\n") == lines_of(f"{one} {two}") == both
    assert lines_of(f"\n{one} label=x until=2027-01-31\n\n")[0].until == "2027-01-31"
    for bad in (
        "",
        "until=2027-01-31",
        f"{one} until=soon",
        f"{one} since=2027-01-31",
        "x",
        one[1:],
    ):
        file = tmp_path / "bad"
        file.write_text(bad, encoding="ascii")
        with pytest.raises(StartError, match="bad"):
            TokenFile(file)
    file = tmp_path / "tokens"
    file.write_text(f"{one}\n{two} until=2020-01-01\n", encoding="ascii")
    assert TokenFile(file).admits(one)
    assert not TokenFile(file).admits(two)


@pytest.mark.fault("S4")
@pytest.mark.parametrize(
    ("callers", "word"),
    [
        ({"a": {}}, "token_file"),
        ({"a": {"token_file": "t", "scopes": ["wrong"]}}, "wrong"),
        ({"a": {"token_file": "t", "networks": ["10.0.0.0/99"]}}, "10.0.0.0/99"),
        ({"a": {"token_file": "missing"}}, "missing"),
        ({"a": {"token_file": "t", "by": "header"}}, "header"),
    ],
)
def test_a_wrong_caller_is_one_clear_sentence(
    tmp_path: Path, callers: dict[str, Any], word: str
) -> None:
    """It names the file, the key and what is wrong."""
    make_token(tmp_path / "t", None)
    settings = told(tmp_path, callers)
    with pytest.raises(StartError, match=word):
        behind_guard(Starlette(), SHAPE, "test", settings, Path("smpbus.toml"))


CONFIG = """
[bus]
listen = ["ipc://{folder}/bus.sock"]
curve = false
[connectors.sys112]
listen = "127.0.0.1:{port}"
{more}
[connectors.sys112.partner]
url = "http://127.0.0.1:9"
[connectors.sys112.callers.system112]
token_file = "system112.token"
"""


@pytest.mark.fault("S4")
def test_a_door_that_nobody_is_named_for_does_not_open(tmp_path: Path) -> None:
    """A connector whose settings named nobody let everybody in; now it ends with a sentence that
    names the key and the command, and that command makes what it asks for; `open` is said aloud by
    the check, with who can do what."""
    config = tmp_path / "smpbus.toml"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SMPBUS, *arguments, "--config", config], capture_output=True, text=True, timeout=30,
            env=os.environ | {"SMPBUS_LANG": "en"},
        )  # fmt: skip

    whole = CONFIG.format(folder=tmp_path, port=free_port(), more="")
    config.write_text(whole.partition("[connectors.sys112.callers")[0], encoding="utf-8")
    refused = run("connector", "sys112")
    assert refused.returncode == 78
    for word in (str(config), "connectors.sys112", "smpbus token sys112 WHO", "open = true"):
        assert word in refused.stderr
    config.write_text(whole, encoding="utf-8")
    assert "system112.token" in run("connector", "sys112").stderr
    made = run("token", "sys112", "system112", "--until", "2999-01-31", "--label", "desk")
    assert made.returncode == 0, made.stderr
    digest, *told = (tmp_path / "system112.token").read_text().split()
    assert (digest, told) == (digest_of(made.stdout.strip()), ["until=2999-01-31", "label=desk"])
    assert run("token", "sys112", "system112").returncode != 0  # says --add or --replace
    opened = CONFIG.format(folder=tmp_path, port=free_port(), more="open = true")
    config.write_text(opened, encoding="utf-8")
    assert "open = true beside callers" in run("connector", "sys112").stderr
    config.write_text(opened.partition("[connectors.sys112.callers")[0], encoding="utf-8")
    checked = run("connector", "sys112", "--check").stderr
    for word in ("WARNING", "open = true", "127.0.0.0/8", "/112"):
        assert word in checked


@pytest.mark.fault("S4")
def test_figures_stay_shut_without_a_caller(caplog: pytest.LogCaptureFixture) -> None:
    """Behind some doors there is nothing but counts: they need no caller to start, and answer
    nobody then."""
    figures = SimpleNamespace(
        door_scopes={"/figures": "figures"}, door_public=frozenset(), knows_callers=False
    )
    settings = told(Path(), {})
    with caplog.at_level(logging.INFO, "smpbus"):
        assert behind_guard(Starlette(), figures, "rmr", settings, Path("x")) is None
    assert settings.listen in caplog.text
