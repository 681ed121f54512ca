"""НСИ's contract: the client against the simulator, with faults, within the limit, cached."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.partner.partner import PartnerSettings
from connectors.runtime.partner.quota import Quota
from connectors.services.lookup import Lookup, LookupSettings
from connectors.services.nsi import CodeLists, NsiClient, NsiSettings
from connectors.services.nsi.contract import Broken, Cell, Field, Key, Passport, code_list
from connectors.simulators.kit.faults import Faults, FaultyApp
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.nsi import LISTS, create_app, made_up
from proto.client import Reject, Retry
from proto.exits import StartError

POSTS = "1.2.643.5.1.13.13.11.1002"
LONG = "1.2.643.5.1.13.13.11.9999"
MANY = {str(number): f"Значение {number}" for number in range(1, 551)}


class Stage:
    """A client and the simulator it asks."""

    def __init__(self, client: NsiClient, app: FaultyApp, url: str) -> None:
        self.client = client
        self.app = app
        self.url = url

    def faults(self, **switches: Any) -> None:
        self.app.faults = msgspec.structs.replace(Faults(), **switches)


@contextlib.asynccontextmanager
async def stage(*, strict: bool = False, **settings: Any) -> AsyncIterator[Stage]:
    app = create_app(SimulatorSettings(strict=strict), [*LISTS, made_up(LONG, "Длинный", MANY)])
    server = HttpServer(app, channel := bind("127.0.0.1:0", "test"))
    await server.start()
    url = f"http://127.0.0.1:{channel.getsockname()[1]}"
    partner = {"url": url, "timeout_s": 0.4, "breaker": {"failures_max": 100}}
    table = {"partner": partner, "pause_s": 0.01, "requests_per_minute": 10_000, **settings}
    client = NsiClient(msgspec.convert(table, NsiSettings, dec_hook=lambda _, path: Path(path)))
    if settings.get("requests_per_minute", 10_000) == 10_000:
        client.quota = Quota(100_000, 5000)
    try:
        yield Stage(client, app, url)
    finally:
        await client.close()
        await server.stop()


def play(act: Callable[[Stage], Awaitable[None]], **settings: Any) -> None:
    async def whole() -> None:
        async with stage(**settings) as scene:
            await act(scene)

    asyncio.run(whole())


def test_a_list_comes_whole_in_pages() -> None:
    async def act(scene: Stage) -> None:
        passport = await scene.client.passport(LONG)
        assert (passport.version, passport.rows_count) == ("1.1", 550)
        sizes = [len(page.rows) async for page in scene.client.pages(LONG, "1.1")]
        assert sizes == [200, 200, 150]
        found = await scene.client.code_list(LONG)
        assert {code: found.name_of(code) for code in found.rows} == MANY
        assert found.name_of("551") is None

    play(act)


def test_the_code_column_is_the_one_the_passport_names() -> None:
    async def act(scene: Stage) -> None:
        assert (await scene.client.code_list(POSTS)).key == "ID"
        order = await scene.client.code_list("1.2.643.5.1.13.13.11.1525")
        assert (order.key, order.name_of("4")) == ("Id", "в пути")

    play(act)


def test_an_unknown_list_or_version_is_refused_by_its_code() -> None:
    async def act(scene: Stage) -> None:
        with pytest.raises(Reject, match="UNKNOWN"):
            await scene.client.passport("1.2.3")
        with pytest.raises(Reject, match="UNKNOWN"):
            await scene.client.code_list(POSTS, "77.7")

    play(act)


FAULTS: tuple[dict[str, Any], ...] = (
    {"down": True},
    {"fail": 1.0},
    {"delay_s": 0.6},
    {"spoil": "half"},
    {"spoil": "cut"},
    {"spoil": "html"},
    {"spoil": "encoding"},
    {"spoil": "redirect"},
)


def test_every_fault_passes_and_is_told_as_such() -> None:
    async def act(scene: Stage) -> None:
        for switches in FAULTS:
            scene.faults(**switches)
            with pytest.raises(Retry):
                await scene.client.code_list(LONG)
            scene.faults()
            assert len((await scene.client.code_list(LONG)).rows) == 550, switches

    play(act)


def test_lost_pages_are_asked_for_again_and_not_the_whole_list() -> None:
    async def act(scene: Stage) -> None:
        scene.faults(fail=0.2, seed=4)
        for _ in range(10):
            with contextlib.suppress(Retry):
                assert len((await scene.client.code_list(LONG)).rows) == 550
                return
        raise AssertionError("never read whole")

    play(act)


def test_the_federal_limit_is_kept() -> None:
    async def act(scene: Stage) -> None:
        asks = [asyncio.ensure_future(scene.client.passport(POSTS)) for _ in range(60)]
        done, waiting = await asyncio.wait(asks, timeout=1.0)
        assert len(done) in (5, 6)  # the rest is spread over the minute
        for one in done:
            assert one.result().oid == POSTS
        for one in waiting:
            one.cancel()

    play(act, strict=True, requests_per_minute=50)


def test_code_lists_come_through_the_lookup_layer() -> None:
    async def act(scene: Stage) -> None:
        lookup = Lookup(LookupSettings())
        lists = CodeLists(lookup, scene.client)
        names = await asyncio.gather(*(lists.name_of(LONG, str(code)) for code in range(1, 100)))
        assert names == [MANY[str(code)] for code in range(1, 100)]
        scene.faults(down=True)
        assert await lists.name_of(LONG, "7") == MANY["7"]
        assert lookup.figures()["kinds"]["code_list"]["missed"] == 1
        await lookup.close()

    play(act)


def test_the_key_of_the_organisation_is_sent_and_never_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "nsi.key"
    file.write_text("key-0001-secret\n")
    file.chmod(0o600)
    sent: list[str] = []

    async def act(scene: Stage) -> None:
        inner = scene.app._app

        async def listening(scope: Any, receive: Any, send: Any) -> None:
            sent.append(scope.get("query_string", b"").decode())
            await inner(scope, receive, send)

        scene.app._app = listening
        await scene.client.passport(POSTS)
        scene.faults(spoil="half")
        with pytest.raises(Retry) as caught:
            await scene.client.passport(POSTS)
        assert "secret" not in str(caught.value)

    with caplog.at_level(logging.DEBUG, "smpbus.connector"):
        play(act, user_key_file=str(file))
    assert "userKey=key-0001-secret" in sent[0]
    told = [one.getMessage() for one in caplog.records if one.name.startswith("smpbus")]
    assert told
    assert not [line for line in told if "secret" in line]
    file.chmod(0o644)
    nowhere = PartnerSettings(url="http://127.0.0.1:1")
    with pytest.raises(StartError, match="chmod 600"):
        NsiClient(NsiSettings(partner=nowhere, user_key_file=file))


def passport(*keys: tuple[str, str], fields: tuple[str, ...] = ("A", "B", "C")) -> Passport:
    return Passport(
        oid="1.2.3",
        version="1",
        full_name="n",
        rows_count=2,
        fields=[Field(field, "VARCHAR") for field in fields],
        keys=[Key(field, type) for field, type in keys],
    )


def rows(*values: tuple[str | None, ...]) -> list[list[Cell]]:
    return [[Cell(name, one) for name, one in zip("ABC", row, strict=False)] for row in values]


def test_a_list_that_contradicts_its_passport_is_broken() -> None:
    twice = rows(("1", "a"), ("1", "b"))
    with pytest.raises(Broken):
        code_list(passport(("A", "PRIMARY")), twice)
    with pytest.raises(Broken):
        code_list(passport(("A", "PRIMARY")), rows((None, "a")))
    with pytest.raises(Broken):
        code_list(passport(("B", "VALUE")), rows(("1", "a")))


def test_a_code_of_two_columns_and_a_title_nobody_named() -> None:
    both = passport(("A", "PRIMARY"), ("B", "PRIMARY"))
    found = code_list(both, rows(("1", "x", "long text"), ("1", "y", "t")))
    assert (found.key, set(found.rows), found.title) == ("A|B", {"1|x", "1|y"}, "C")
    named = passport(("A", "PRIMARY"), fields=("A", "B", "S_NAME"))
    assert code_list(named, []).title == "S_NAME"
    assert code_list(passport(("A", "PRIMARY"), fields=("A",)), []).title == "A"
