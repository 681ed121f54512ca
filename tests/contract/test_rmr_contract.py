"""The register of medical workers: the connector and the simulator, loads, questions, faults."""

import asyncio
import contextlib
import copy
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.partners.rmr import RmrConnector, RmrSettings
from connectors.partners.rmr.mapping import snils_of
from connectors.partners.rmr.progress import Progress
from connectors.runtime.bus.settings import load
from connectors.runtime.door.body import BadInput
from connectors.runtime.door.serving import HttpServer, bind
from connectors.services.lookup import WORKER, LookupSettings
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.nsi import create_app as create_nsi
from connectors.simulators.rmr import samples
from connectors.simulators.rmr.simulator import create_app
from proto import catalogue
from proto.client import Reject
from proto.errors import Code, RequestFailed
from proto.exits import StartError
from proto.message import Message
from tests.contract.stage import Bus, Scene, scene

PEOPLE = samples.workers(7, 55)
QUICK = {"timeout_s": 0.2, "connect_timeout_s": 0.1, "breaker": {"failures_max": 3, "open_s": 0.01}}


@contextlib.asynccontextmanager
async def register(
    bus: Bus, folder: Path, people: list[dict[str, Any]] = PEOPLE, **settings: Any
) -> AsyncIterator[Scene]:
    def create(told: SimulatorSettings) -> Any:
        return create_app(told, copy.deepcopy(people))

    table = {"page_size": 10, "pause_s": 0.01, "state_file": folder / "register.db", **settings}
    table.setdefault("partner", QUICK)
    async with scene(bus, RmrConnector, create, SimulatorSettings(), **table) as stage:
        yield stage


Act = Callable[[Scene], Awaitable[None]]


def play(bus: Bus, folder: Path, act: Act, **settings: Any) -> None:
    async def whole() -> None:
        async with register(bus, folder, **settings) as stage:
            await act(stage)

    asyncio.run(whole())


async def drive(stage: Scene, **wish: Any) -> None:
    answer = await stage.simulator.request("POST", "/drive", msgspec.json.encode(wish))
    assert answer.status == 204


def position(stage: Scene) -> Any:
    return stage.connector.progress.position  # type: ignore[attr-defined]


async def rested_poll(stage: Scene) -> None:
    """Poll when the breaker lets a probe go."""
    await asyncio.sleep(stage.connector.partner.breaker.wait_s(time.monotonic()) + 0.001)
    await stage.connector.poll()


async def recovered(stage: Scene) -> None:
    """Poll until all is loaded: with much to do beside it, a sound answer may be late, too."""
    for _ in range(100):
        await rested_poll(stage)
        if not stage.connector._told:  # type: ignore[attr-defined]
            return
    raise AssertionError("it does not pass")


def published(bus: Bus) -> list[str]:
    """The ids of the workers that came onto the bus, in order, as the router takes them: once."""
    seen = {message.id: message for message in bus.accepted if message.type == "worker.changed.v1"}
    return [message.json()["id"] for message in seen.values()]  # type: ignore[index]


IDS = [person["id"] for person in PEOPLE]


def test_the_whole_register_comes_once_and_then_only_what_changed(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await stage.connector.poll()
        assert published(bus) == IDS
        bus.accepted.clear()
        await stage.connector.poll()
        assert bus.accepted == []

        changed = PEOPLE[3] | {"family": "Новая", "changed_at": "2026-11-23T08:00:00+03:00"}
        await drive(stage, put=[changed], remove=[IDS[5]])
        await stage.connector.poll()
        assert [message.type for message in bus.accepted] == [
            "worker.changed.v1",
            "worker.removed.v1",
        ]
        assert bus.bodies("worker.changed.v1")[0]["family"] == "Новая"
        assert bus.bodies("worker.removed.v1")[0]["id"] == IDS[5]

    play(bus, tmp_path, act)
    for message in bus.accepted:
        assert message.subject == f"worker-{message.json()['id']}"  # type: ignore[index]
        catalogue.entry(message.type).read(message.body)


def test_a_worker_who_changes_back_is_published_each_time(bus: Bus, tmp_path: Path) -> None:
    other = PEOPLE[0] | {"department": "иное"}

    async def act(stage: Scene) -> None:
        await stage.connector.poll()
        for record in (other, PEOPLE[0], other, PEOPLE[0]):
            await drive(stage, put=[record])
            await stage.connector.poll()

    play(bus, tmp_path, act)
    assert published(bus).count(IDS[0]) == 5
    assert len({message.id for message in bus.accepted}) == len(bus.accepted)


def test_a_load_goes_on_where_it_was_broken_off(bus: Bus, tmp_path: Path) -> None:
    async def first(stage: Scene) -> None:
        asked = 0
        whole = stage.connector._register.page  # type: ignore[attr-defined]

        async def breaking(after: str | None) -> Any:
            nonlocal asked
            asked += 1
            if asked == 4:
                raise RuntimeError  # as a kill: nothing is put in order
            return await whole(after)

        stage.connector._register.page = breaking  # type: ignore[attr-defined]
        with pytest.raises(RuntimeError):
            await stage.connector.poll()

    async def second(stage: Scene) -> None:
        assert (position(stage).loading, position(stage).loaded) == (True, 30)
        await stage.connector.poll()
        assert (await stage.ledger())["asked"]["page"] == 3
        assert not position(stage).loading

    play(bus, tmp_path, first)
    bus_two = Bus(bus.address + "2")
    bus_two.accepted = bus.accepted
    play(bus_two, tmp_path, second)
    assert published(bus) == IDS


def test_what_the_bus_did_not_accept_is_published_again_under_its_ids(
    bus: Bus, tmp_path: Path
) -> None:
    async def act(stage: Scene) -> None:
        bus.refuse = Code.QUEUE_FULL
        await stage.connector.poll()
        assert position(stage).loaded == 0
        bus.refuse = None
        await stage.connector.poll()
        assert position(stage).loaded == len(PEOPLE)

    play(bus, tmp_path, act)
    assert published(bus) == IDS


FAULTS: tuple[dict[str, Any], ...] = (
    {"fail": 1.0},
    {"delay_s": 0.5},
    {"spoil": "half"},
    {"spoil": "cut"},
    {"spoil": "html"},
    {"spoil": "encoding"},
    {"spoil": "redirect"},
    {"down": True},
)
WELL = {"down": False, "fail": 0.0, "delay_s": 0.0, "spoil": ""}


def test_every_fault_stops_a_load_and_every_question_and_passes(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        for number, switches in enumerate(FAULTS):
            before = position(stage)
            await drive(stage, remove=[IDS[number]], put=[PEOPLE[20] | {"department": number}])
            await stage.faults(**WELL | switches)
            await rested_poll(stage)
            assert position(stage) == replace(before, load=1, loading=position(stage).loading)
            await stage.connector.lookup.forget(WORKER, ("id", IDS[30]))  # type: ignore[attr-defined]
            with pytest.raises(RequestFailed, match="does not answer"):
                await stage.connector.answer(question(id=IDS[30]))
            await stage.faults(**WELL)
            await recovered(stage)
            assert position(stage).full_at, switches

    play(bus, tmp_path, act)
    assert [body["id"] for body in bus.bodies("worker.removed.v1")] == IDS[1:8]
    assert published(bus) == IDS[1:] + [IDS[20]] * 7


def test_what_stopped_a_load_is_told_once(
    bus: Bus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(stage: Scene) -> None:
        for spoil in ("html", "", "html"):
            await stage.faults(spoil=spoil)
            for _ in range(3):
                await stage.connector.poll()

    patient = {"breaker": {"failures_max": 100}}
    with caplog.at_level(logging.WARNING, "smpbus.connector"):
        play(bus, tmp_path, act, partner=patient)
    stopped = [one for one in caplog.records if "остановилась" in one.getMessage()]
    assert len(stopped) == 2


def test_with_lost_answers_everybody_still_comes_once(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await stage.faults(fail=0.4)
        for _ in range(200):
            await stage.connector.poll()
            if position(stage).full_at:
                return
        raise AssertionError("never loaded")

    play(bus, tmp_path, act)
    assert published(bus) == IDS


def test_a_bad_record_is_refused_by_its_field_and_harms_nobody_beside_it(
    bus: Bus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    people = copy.deepcopy(PEOPLE[:5])
    people[1]["snils"] = "112-233-445 96"
    del people[2]["family"]
    people[3]["positions"] = []
    with caplog.at_level(logging.WARNING, "smpbus.connector"):
        play(bus, tmp_path, lambda stage: stage.connector.poll(), people=people)
    assert published(bus) == [IDS[0], IDS[4]]
    told = {(body["about"], body["path"]) for body in bus.bodies("input.rejected.v1")}
    assert told == {(IDS[1], "snils"), (IDS[2], "family"), (IDS[3], "positions")}
    lines = " ".join(one.getMessage() for one in caplog.records)
    assert "112-233" not in lines
    assert people[1]["family"] not in lines


def test_who_is_gone_in_a_full_load_is_removed_but_not_everybody_at_once(
    bus: Bus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(stage: Scene) -> None:
        await stage.connector.poll()
        await drive(stage, remove=IDS[:3], forget=True)
        await stage.connector.poll()  # the cursor is lost
        await stage.connector.poll()  # and everything is loaded anew
        assert [body["id"] for body in bus.bodies("worker.removed.v1")] == IDS[:3]
        await drive(stage, remove=IDS[3:40], forget=True)
        await stage.connector.poll()
        await stage.connector.poll()

    with caplog.at_level(logging.WARNING, "smpbus.connector"):
        play(bus, tmp_path, act)
    assert len(bus.bodies("worker.removed.v1")) == 3
    assert [one for one in caplog.records if "37" in one.getMessage()]


def test_the_administrator_has_everything_loaded_again(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await stage.connector.poll()
        before = position(stage).load
        wish = Message.new("worker.load.v1", "admin", {"full": True})
        assert "60" in str(await stage.handle(wish))
        await stage.connector.poll()
        await stage.connector.poll()
        assert position(stage).load == before + 1
        with pytest.raises(Reject):
            await stage.handle(Message.new("odd.type.v1", "admin", {}))
        with pytest.raises(Reject):
            await stage.handle(Message.new("worker.load.v1", "admin", b"rubbish"))

    play(bus, tmp_path, act)
    assert published(bus) == IDS


def question(**asked: str) -> Message:
    return Message.new("worker.lookup.v1", "smp", asked)


def test_questions_are_answered_from_the_cache_and_then_by_the_register(
    bus: Bus, tmp_path: Path
) -> None:
    async def act(stage: Scene) -> None:
        answer = stage.connector.answer
        snils = PEOPLE[9]["snils"]
        for _ in range(3):
            found = await answer(question(snils=snils))
            assert found["worker"].id == IDS[9]
        assert (await answer(question(id="nobody")))["worker"] is None
        assert (await stage.ledger())["asked"]["find"] == 2

        await stage.connector.poll()
        assert (await answer(question(id=IDS[20])))["worker"].id == IDS[20]
        await drive(stage, put=[PEOPLE[9] | {"given": "Новый"}], remove=[IDS[20]])
        await stage.connector.poll()
        assert (await answer(question(snils=snils)))["worker"].given == "Новый"
        assert (await stage.ledger())["asked"]["find"] == 2
        assert (await answer(question(snils=PEOPLE[20]["snils"])))["worker"] is None

        for bad in ({}, {"id": "1", "snils": snils}, {"snils": "12"}):
            with pytest.raises(RequestFailed, match="bad_message"):
                await answer(question(**bad))
        with pytest.raises(RequestFailed, match="unknown_type"):
            await answer(Message.new("call.status.v1", "smp", {}))

        figures = msgspec.json.decode((await stage.http.request("GET", "/figures")).body)
        assert figures["load"]["loaded"] == len(PEOPLE)
        assert figures["lookup"]["kinds"]["worker"]["near"] >= 3
        assert snils not in str(figures)

    play(bus, tmp_path, act)


def test_posts_carry_their_names_when_nsi_is_there_and_none_when_it_is_not(
    bus: Bus, tmp_path: Path
) -> None:
    async def whole() -> None:
        server = HttpServer(create_nsi(SimulatorSettings()), channel := bind("127.0.0.1:0", "x"))
        await server.start()
        url = f"http://127.0.0.1:{channel.getsockname()[1]}"
        nsi = {"partner": {"url": url}}
        async with register(bus, tmp_path, nsi=nsi) as stage:
            await stage.connector.poll()
        await server.stop()

    asyncio.run(whole())
    posts = {one["positions"][0]["post"]["text"] for one in bus.bodies("worker.changed.v1")}
    assert "фельдшер скорой медицинской помощи" in posts
    assert None not in posts

    lonely = Bus(bus.address + "2")
    nsi = {"partner": {"url": "http://127.0.0.1:1"}, "pause_s": 0.01}
    (tmp_path / "two").mkdir()
    play(lonely, tmp_path / "two", lambda stage: stage.connector.poll(), nsi=nsi)
    assert published(lonely) == IDS
    assert "text" not in lonely.bodies("worker.changed.v1")[0]["positions"][0]["post"]


@given(st.integers(1_001_999, 999_999_999))
def test_a_snils_has_one_check_number(number: int) -> None:
    digits = f"{number:09}"
    good = []
    for check in range(100):
        with contextlib.suppress(BadInput):
            good.append(snils_of(f"{digits}{check:02}"))
    assert len(good) == 1
    written = f"{digits[:3]}-{digits[3:6]}-{digits[6:]} {good[0][9:]}"
    assert snils_of(written) == good[0]


def test_known_snils() -> None:
    assert snils_of("112-233-445 95") == "11223344595"
    for wrong in ("112-233-445 96", "1122334459", "112233445955", "١١٢٢٣٣٤٤٥٩٥"):
        with pytest.raises(BadInput):
            snils_of(wrong)
    assert snils_of("00000000017") == "00000000017"


def test_a_state_file_that_cannot_be_is_named_with_what_to_do(bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "register.db").write_bytes(b"rubbish" * 1000)
    for file in (tmp_path / "nowhere" / "register.db", tmp_path / "register.db"):
        with pytest.raises(StartError, match=re.escape(str(file))) as caught:
            Progress(file)
        assert "state_file" in caught.value.sentence


def test_the_example_tables_are_settings(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "config" / "connectors.example.toml"
    whole = example.read_text(encoding="utf-8")
    rmr = whole[whole.index("[connectors.rmr]") :]
    shown = re.sub(r"^# (?=\[|[a-z_]+ = )", "", rmr, flags=re.MULTILINE)
    file = tmp_path / "smpbus.toml"
    file.write_text(shown, encoding="utf-8")
    settings = load("rmr", RmrSettings, file).settings
    assert isinstance(settings, RmrSettings)
    assert settings.lookup.secret_file == tmp_path / "keys" / "lookup.secret"
    assert settings.nsi is not None
    assert settings.nsi.user_key_file == tmp_path / "keys" / "nsi.key"
    built_in = msgspec.structs.replace(settings, lookup=LookupSettings(), nsi=None)
    assert built_in == RmrSettings(partner=settings.partner)
    shown_keys = set(
        re.findall(r"^([a-z_]+) = ", shown.partition("[connectors.rmr.partner]")[0], re.M)
    )
    assert shown_keys == {
        "listen", "state_file", "state_timeout_s", "poll_s", "full_every_s", "page_size", "pause_s",
    }  # fmt: skip
