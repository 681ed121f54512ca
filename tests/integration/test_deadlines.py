"""The 30 seconds of decree 1931 in the whole bus: a card that no dispatcher confirms is told of."""

from collections.abc import Iterator
from typing import Any
from urllib.error import URLError

import pytest

from connectors.simulators.sys112.samples import Sample
from tests.integration.house import House, without_cancels
from tests.until import wait_for

PROCESSES = ("router", "sys112", "smp", "sim-sys112", "sim-smp")
CARDS = [one for one in without_cancels(4, 12) if one.kind == "new"]


@pytest.fixture
def house() -> Iterator[House]:
    built = House()
    told = built.config.read_text(encoding="utf-8")
    quick = "[connectors.sys112]\nconfirm_within_s = 2.0\n"
    built.config.write_text(told.replace("[connectors.sys112]\n", quick), encoding="utf-8")
    yield built
    built.close()


def push(house: House, sample: Sample) -> None:
    def taken() -> bool:
        try:
            path = f"/112/cards/{sample.id112}"
            return bool(house.http("PUT", "sys112_door", path, sample.body)[0] == 200)
        except URLError:
            return False  # the connector is not up yet

    wait_for(taken, "200")


def messages(house: House, sample: Sample, type: str) -> list[Any]:
    traced = house.ops("trace", subject=f"112-{sample.id112}")["messages"]
    return [one for one in traced if one["type"] == type]


def test_a_card_that_no_dispatcher_confirms_is_told_once_whoever_is_killed(house: House) -> None:
    house.start(*PROCESSES)
    confirmed, silent = CARDS[0], CARDS[1]
    push(house, confirmed)
    wait_for(lambda: messages(house, confirmed, "call.status.v1"), "the first status")
    house.faults("smp", down=True)
    house.faults("sys112", down=True)  # the watch needs neither partner
    push(house, silent)

    def watched() -> bool:
        (card,) = messages(house, silent, "incident.card.v1")
        return any(
            one["destination"] == "deadlines" and one["state"] == "settled"
            for one in card["deliveries"]
        )

    wait_for(watched, "the watch")
    house.kill("sys112")
    house.start("sys112")
    (missed,) = wait_for(lambda: messages(house, silent, "deadline.missed.v1"), "the alarm")
    assert [one["destination"] for one in missed["deliveries"]] == ["admin"]
    line = f"ОШИБКА: карточка 112-{silent.id112} не подтверждена диспетчером скорой за 2 с"
    wait_for(lambda: line in house.log("sys112"), "the error line")
    assert house.log("sys112").count("не подтверждена") == 1
    house.faults("smp", down=False)
    house.faults("sys112", down=False)
    wait_for(lambda: messages(house, silent, "call.status.v1"), "a status, late")
    assert messages(house, confirmed, "deadline.missed.v1") == []
    assert len(messages(house, silent, "deadline.missed.v1")) == 1
    assert house.stop("sys112") == 0


def test_without_the_queue_of_the_watch_cards_go_on_and_the_log_says_what_to_do(
    house: House,
) -> None:
    routes = house.folder / "routes.toml"
    kept, _, _ = routes.read_text(encoding="utf-8").partition("# The watch over the 30 seconds")
    routes.write_text(kept.replace("[destinations.deadlines]\n", ""), encoding="utf-8")
    permissions = house.folder / "permissions.toml"
    told = permissions.read_text(encoding="utf-8")
    permissions.write_text(told.replace(', "deadlines"]', "]"), encoding="utf-8")
    house.start("router", "sys112", "smp", "sim-smp")
    push(house, CARDS[0])
    wait_for(lambda: messages(house, CARDS[0], "call.status.v1"), "the first status")
    (card,) = messages(house, CARDS[0], "incident.card.v1")
    assert {one["destination"] for one in card["deliveries"]} == {"smp", "ats"}
    assert house.log("sys112").count("шина не даёт очередь «deadlines» (unknown_destination)") == 1
