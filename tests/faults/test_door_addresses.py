"""Who calls, under which address, and what an address of a card may be."""

import asyncio
import os
import socket
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.sys112.connector import coded_reply
from connectors.runtime.door.gate import HttpSettings, membership, plain_address
from connectors.runtime.door.serving import HttpServer, allow_only, bind
from connectors.runtime.partner.http import HttpAnswer, HttpClient
from connectors.runtime.partner.reply import read_reply
from proto import catalogue
from proto.exits import StartError
from proto.message import Message
from tests.contract.stage import Bus, Scene
from tests.faults.doorstep import CARD, CARD_PATH, play
from tests.ports import free_port

BOM = b"\xef\xbb\xbf"


async def _who(request: Request) -> Response:
    return Response(request.client.host if request.client else "")


def asked(
    listen: str, host: str, allow: list[str], headers: dict[str, str], **http: Any
) -> HttpAnswer:
    """Return what a door that listens at `listen` answers to `host`."""

    async def whole() -> HttpAnswer:
        port = free_port()
        app = allow_only(Starlette(routes=[Route("/", _who)]), allow)
        settings = msgspec.convert(http, HttpSettings)
        server = HttpServer(app, bind(f"{listen}:{port}", "test"), settings, membership(allow))
        await server.start()
        client = HttpClient(f"http://{host}:{port}")
        try:
            return await client.request("GET", "/", b"", headers)
        finally:
            await client.close()
            await server.stop()

    return asyncio.run(whole())


@pytest.mark.fault("B17")
def test_a_partner_of_ipv4_may_call_a_listener_of_ipv6() -> None:
    """It came as ::ffff:127.0.0.1, was in no network of `allow`, and got 403."""
    answer = asked("[::]", "127.0.0.1", ["127.0.0.0/8"], {})
    assert (answer.status, answer.body) == (200, b"127.0.0.1")
    assert asked("[::]", "[::1]", ["127.0.0.0/8"], {}).status == 403
    assert membership(["10.0.0.0/8"])("::ffff:10.1.2.3")
    assert not membership(["10.0.0.0/8"])("::ffff:11.1.2.3")
    assert plain_address("fe80::1%eth0") == "fe80::1%eth0"
    assert plain_address("no address") == "no address"


@pytest.mark.fault("D12")
def test_the_environment_does_not_widen_whom_we_believe(monkeypatch: pytest.MonkeyPatch) -> None:
    """With FORWARDED_ALLOW_IPS=* anybody could say who he is; now a setting says whom we believe,
    by itself the proxy on this machine where this machine may call anyway."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    assert os.environ["FORWARDED_ALLOW_IPS"] == "*"
    told = {"x-forwarded-for": "10.1.2.3"}
    allow = ["10.0.0.0/8"]
    this: dict[str, Any] = {"forwarded_from": ["127.0.0.1"]}
    assert asked("127.0.0.1", "127.0.0.1", allow, told, **this).body == b"10.1.2.3"
    assert asked("127.0.0.1", "127.0.0.1", ["127.0.0.0/8", *allow], told).body == b"10.1.2.3"
    nobody: dict[str, Any] = {"forwarded_from": []}
    assert asked("127.0.0.1", "127.0.0.1", allow, told, **nobody).status == 403
    assert asked("127.0.0.1", "127.0.0.1", ["127.0.0.0/8"], told, **nobody).body == b"127.0.0.1"
    other: dict[str, Any] = {"forwarded_from": ["10.0.0.0/8"]}
    assert asked("127.0.0.1", "127.0.0.1", allow, told, **other).status == 403
    with pytest.raises(StartError, match="forwarded_from"):
        asked("127.0.0.1", "127.0.0.1", allow, told, forwarded_from=["*"])


@pytest.mark.fault("B17")
def test_a_mark_before_json_is_no_mistake() -> None:
    """A byte order mark before JSON was 400 inward, and repeated for ever outward."""

    async def act(stage: Scene, _: Bus) -> None:
        body = BOM + msgspec.json.encode(CARD.body)
        assert (await stage.send("PUT", CARD_PATH, body)).status == 200
        assert (await stage.send("PUT", CARD_PATH, body[3:])).status == 200

    assert len({one.id for one in play("sys112", act).accepted}) == 1

    async def smp(stage: Scene, _: Bus) -> None:
        body = BOM + msgspec.json.encode(catalogue.entry("call.ticket.v1").example)
        assert (await stage.send("POST", "/bus/tickets", body)).status == 200

    (message,) = play("smp", smp, clinical=True).accepted
    assert not message.body.startswith(BOM)  # whoever reads it next may mind
    answer = HttpAnswer(200, {"content-type": "application/json"}, BOM + b'{"Code":"200"}')
    assert coded_reply(answer) == (200, "200")
    assert read_reply(answer, dict[str, str]) == {"Code": "200"}


@pytest.mark.fault("B17", "D5")
def test_a_number_with_a_slash_is_one_and_a_way_out_is_none() -> None:
    """Id112 with "/" was 404; ".." was taken, and what was told of it went to another address."""
    body = msgspec.json.decode(msgspec.json.encode(CARD.body))

    async def act(stage: Scene, _: Bus) -> None:
        for id112, status in (("77/2026/5", 200), ("a b", 200), ("а-1", 200), ("5%2F6", 200),
                              ("..", 400), ("a/../b", 400), (".", 400), ("a/..", 400)):  # fmt: skip
            body["Card"]["Id112"] = id112
            answer = await whole_path(stage, f"/112/cards/{quote(id112, safe='')}", body)
            assert answer[0] == status, id112
            ended = {"SysCode": "112", "Id112": id112, "CloseOperator": {"OperatorLogin": "a"}}
            path = f"/112/cards/{quote(id112, safe='')}/close"
            answer = await whole_path(stage, path, ended, "POST")
            assert answer[0] == status, id112
            if status == 400:
                assert b"Id112" in answer[1]

    subjects = {one.subject for one in play("sys112", act).accepted if "card" in one.type}
    assert subjects == {"112-77/2026/5", "112-a b", "112-а-1", "112-5%2F6"}


async def whole_path(stage: Scene, path: str, body: Any, method: str = "PUT") -> tuple[int, bytes]:
    """Ask with this very path: a client would take the steps out of it."""
    settings: Any = stage.connector.settings
    port = int(str(settings.listen).rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = msgspec.json.encode(body)
    head = f"{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(data)}\r\n"
    writer.write(f"{head}connection: close\r\n\r\n".encode() + data)
    answer = await reader.read()
    writer.close()
    head_line, _, rest = answer.partition(b"\r\n")
    return int(head_line.split()[1]), rest


@pytest.mark.fault("B17")
def test_what_is_told_of_such_a_card_goes_to_its_own_address() -> None:
    """The way back: the number is one step of the address, whatever is in it."""

    async def act(stage: Scene, _: Bus) -> None:
        body = catalogue.entry("call.status.v1").example
        message = Message.new("call.status.v1", "smp", body | {"id112": "77/5", "code": "departed"})
        await stage.handle(message)
        (entry,) = (await stage.ledger())["entries"]
        assert entry["id112"] == "77/5"

    play("sys112", act)


def test_a_listener_of_ipv6_takes_both() -> None:
    """So that the test above asks what it says."""
    with bind(f"[::]:{free_port()}", "test") as channel:
        assert channel.family == socket.AF_INET6
