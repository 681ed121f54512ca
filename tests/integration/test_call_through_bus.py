"""A call through the whole bus: real processes, real HTTP, real keys.

System-112 (simulator) -> its connector -> router -> the ambulance's connector -> the ambulance
(simulator), and its statuses all the way back; with partners, connectors and the router failing.
"""

import socket
import subprocess
from collections.abc import Iterator

import pytest

from connectors.simulators.sys112.samples import day_of_cards
from tests.integration.house import (
    CONNECTORS,
    PATIENCE_S,
    SMPBUS,
    House,
    check_calls,
    check_care,
    check_reactions,
    without_cancels,
)
from tests.until import wait_for

DAY = 2  # a seed whose day has everything


@pytest.fixture
def house() -> Iterator[House]:
    built = House()
    yield built
    built.close()


def test_a_day_of_112_goes_through_and_its_statuses_come_back(house: House) -> None:
    house.start_all()
    day = day_of_cards(DAY, 25)
    assert {one.kind for one in day} >= {"new", "double", "correction", "cancel", "malformed"}
    house.drive(day)
    house.settle()
    check_calls(house, day)
    check_reactions(house)
    check_care(house)
    status = house.ops("status")
    assert status["counters"]["duplicates"] >= len([one for one in day if one.kind == "double"])
    assert status["counters"]["dead"] == 0
    entries = house.ledger("smp")["entries"]
    applied = [entry["key"] for entry in entries if "id112" in entry]
    assert len(applied) == len([one for one in day if one.kind not in ("double", "malformed")])

    (bad,) = [one for one in day if one.kind == "malformed"]
    answers = [one for one in house.ledger("sys112")["answers"] if one["id112"] == bad.id112]
    assert [(one["Code"], one["CodeDescr"]) for one in answers] == [
        ("400", "Card.CommonData.TypeStr: is required")
    ]
    (rejected,) = house.ops("trace", subject=f"112-{bad.id112}")["messages"]
    assert rejected["type"] == "input.rejected.v1"
    assert [one["destination"] for one in rejected["deliveries"]] == ["admin"]

    good = next(call for call in house.ledger("smp")["calls"] if call["status"] == "returned")
    traced = house.ops("trace", subject=f"112-{good['cards'][0]}")["messages"]
    notes = [one["note"] for message in traced for one in message["deliveries"]]
    assert "HTTP 200, Code 200" in notes
    assert any(note.startswith("HTTP 201, created") for note in notes)
    for name in ("smp", "sys112", "sim-smp", "sim-sys112", "router"):
        assert house.stop(name) == 0


def test_while_the_router_is_away_112_is_asked_to_repeat_and_nothing_is_lost(
    house: House,
) -> None:
    house.start_all()
    day = without_cancels(6, 12)
    house.drive(day[:6])
    wait_for(lambda: len(house.ledger("smp")["calls"]) >= 3, "the first calls")
    house.kill("router")

    def refused() -> bool:
        path = f"/112/cards/{day[-1].id112}"
        status, headers, reply = house.http("PUT", "sys112_door", path, day[-1].body)
        if status != 503:
            return False  # the connector has not missed the router yet
        assert int(headers["retry-after"]) >= 1
        assert reply["Code"] == "503"
        assert "repeat" in reply["CodeDescr"]
        return True

    wait_for(refused, "503")
    house.drive(day[6:])
    wait_for(lambda: house.ledger("sys112")["pushes_repeated"] > 5, "repeats of 112")
    wait_for(lambda: "шина не отвечает" in house.log("sys112"), "the line about the bus")
    house.start("router")
    house.settle()
    check_calls(house, day)
    check_reactions(house)
    check_care(house)
    assert house.log("sys112").count("шина не отвечает") == 1


def test_a_partner_down_is_one_line_and_its_messages_wait_for_it(house: House) -> None:
    house.start_all()
    house.faults("sys112", down=True)
    day = without_cancels(8, 10)
    house.drive(day)
    wait_for(lambda: not (house.ledger("smp") or {"living": 1})["living"], "all calls lived")
    wait_for(lambda: "ОШИБКА: Unable to complete" in house.log("sys112"), "the error line")
    house.faults("sys112", down=False)
    house.settle()
    check_calls(house, day)
    check_reactions(house)
    check_care(house)
    log = house.log("sys112")
    assert log.count("Unable to complete network request to host «127.0.0.1:") == 1
    assert log.count("снова отвечает") == 1
    assert "Система-112" in log
    # While the partner is known to be down nothing is tried in vain but the probes.
    traced = house.ops("trace", subject=f"112-{day[0].id112}")["messages"]
    deliveries = [one for message in traced for one in message["deliveries"]]
    ours = [one["state"] for one in deliveries if one["destination"] in CONNECTORS]
    assert ours  # the registers of documents and of insurance are not in this house
    assert set(ours) == {"settled"}


def test_a_killed_connector_and_lost_answers_double_nothing(house: House) -> None:
    house.start_all()
    house.faults("smp", fail=0.3)
    house.faults("sys112", fail=0.3)
    day = without_cancels(9, 15)
    third = len(day) // 3 + 1
    for number, name in enumerate(("smp", "sys112", "smp")):
        house.drive(day[number * third : (number + 1) * third])  # there is always work to break off
        entries = len(house.ledger(name)["entries"])
        wait_for(lambda n=name, e=entries: len(house.ledger(n)["entries"]) > e, "progress")  # type: ignore[misc]
        house.kill(name)
        house.start(name)
    house.settle()
    check_calls(house, day)
    check_reactions(house)
    check_care(house)


# -- starts that cannot be ------------------------------------------------------------------------


def end_of(house: House, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [SMPBUS, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    return done.returncode, done.stderr


def test_a_busy_listen_address_is_one_sentence_and_exit_78(house: House) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", house.ports["sys112_door"]))
        taken.listen()
        code, said = end_of(house, "connector", "sys112", "--config", str(house.config))
    assert code == 78
    assert "ОШИБКА: Ошибка сокета 98 при выполнении bind. " in said
    assert f"неверен: 127.0.0.1:{house.ports['sys112_door']} ({house.config}, " in said
    assert "connectors.sys112.listen" in said


def test_an_unknown_key_of_the_settings_is_named(house: House) -> None:
    told = house.config.read_text(encoding="utf-8").replace("accept_timeout_s", "accept_time")
    house.config.write_text(told, encoding="utf-8")
    code, said = end_of(house, "connector", "smp", "--config", str(house.config))
    assert code == 78
    assert str(house.config) in said
    assert "connectors.smp.accept_time" in said


def test_a_check_says_what_is_missing_before_anything_runs(house: House) -> None:
    def checked(name: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [SMPBUS, "connector", name, "--check", "--config", str(house.config)],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    house.start("router", "sim-smp")
    wait_for(lambda: house.ops("status").get("version"), "the router")
    code, found, missing = checked("smp")
    assert (code, missing) == (0, "")
    assert found.count("хорошо: ") == 4  # settings, rights, bus and partner
    code, found, missing = checked("ats")  # its exchange is not there
    assert code == 69
    assert found.count("хорошо: ") == 3
    assert f"127.0.0.1:{house.ports['ami']} не принимает соединение" in missing
    house.kill("router")
    code, found, missing = checked("smp")
    assert code == 69
    assert "bus.sock не принимает" in missing


def test_an_unknown_name_is_a_usage_error(house: House) -> None:
    assert end_of(house, "connector", "nobody")[0] == 64
    assert end_of(house, "sim", "nobody", "--listen", "127.0.0.1:1")[0] == 64


def test_a_connector_without_its_key_or_with_a_strange_one_ends_with_77(house: House) -> None:
    key = house.folder / "keys" / "smp.key"
    kept = key.read_bytes()
    key.unlink()
    code, said = end_of(house, "connector", "smp", "--config", str(house.config))
    assert code == 77
    assert str(key) in said
    house.start("router")
    wait_for(lambda: house.ops("status").get("version"), "the router")
    key.write_bytes((house.folder / "keys" / "router.key").read_bytes())
    key.chmod(0o600)
    code, said = end_of(house, "connector", "smp", "--config", str(house.config))
    assert code == 77
    assert "не принимает" in said
    assert kept.strip().decode() not in said
