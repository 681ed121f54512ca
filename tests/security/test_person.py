"""One person is found in all that the bus keeps, and can be taken out of it: not a byte stays."""

import json
import os
import subprocess
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from connectors.runtime.persons import KEPT, Lines, Place, Table, erase, find
from connectors.simulators.sys112.samples import day_of_cards
from proto.message import Message, encode_message
from proto.person import Search, by_enp, by_name, by_snils
from router.core.delivery import State
from router.core.output import Batch
from router.store.persons import ERASED
from router.store.sqlite import SqliteStore
from tests.integration.house import SMPBUS, House, check_documents
from tests.until import wait_for

FAMILY = "Меткин-Ъыъ"
PHONE = "+79990007531"
DESCRIPTION = "метка-описания-Щ7531"
AT = 1_800_000_000_000


class Marked(House):
    """A house through which one marked person has gone, and others."""

    def __init__(self) -> None:
        super().__init__("remd", "vimis", "tfoms")
        samples = [one for one in day_of_cards(3, 2, malformed=False) if one.kind == "new"]
        marked = samples[0].body
        marked["Card"]["CommonData"]["Description"] = DESCRIPTION
        marked["Card"]["DdsData03"]["ExtPatientPerson"] = [
            {"id": "p1", "Gender": "M", "LastName": FAMILY, "FirstName": "Пробник", "Age": 40}
        ]
        marked["Ier"]["CgPn"] = PHONE
        marked["Ier"]["FullName"] = {"LastName": FAMILY, "FirstName": "Пробник"}
        self.id112 = samples[0].id112
        self.samples = samples

    def live(self) -> None:
        """Everything up to the registered documents."""
        self.start_all()
        self.drive(self.samples)
        self.settle()
        check_documents(self)
        self.settle()

    def person(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [str(SMPBUS), "person", *arguments, "--config", str(self.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)

    def files_with(self, *marks: str) -> list[str]:
        """The files, of the bus and not of its partners, that have one of the marks in them."""
        found = []
        for file in sorted(self.folder.rglob("*")):
            if not file.is_file() or file.suffix == ".ledger" or file.name.startswith("sim-"):
                continue
            data = file.read_bytes()
            if any(one.encode() in data for one in marks):
                found.append(str(file.relative_to(self.folder)))
        return found


@pytest.fixture(scope="module")
def house() -> Iterator[Marked]:
    house = Marked()
    try:
        house.live()
        yield house
    finally:
        house.close()


def number_of_card(house: House, call: str) -> str:
    """The policy of a call's patient, as the ambulance has it."""
    return next(str(one["id"]) for one in house.ledger("smp")["calls"] if call in one["cards"])


class TestHouse:
    @pytest.mark.fault("S10")
    def test_no_log_and_no_figure_names_a_person(self, house: Marked) -> None:
        """Must hold without any erasing: names, numbers and words of callers are in no log and in
        none of the answers that figures come from."""
        for log in house.folder.glob("*.log"):
            text = log.read_text(encoding="utf-8")
            assert FAMILY not in text
            assert PHONE[2:] not in text
            assert DESCRIPTION not in text
        told = json.dumps(
            [house.ops(one) for one in ("metrics", "status", "partners", "queues")],
            ensure_ascii=False,
        )
        assert FAMILY not in told
        assert PHONE[2:] not in told

    @pytest.mark.fault("S10")
    def test_a_person_is_erased_and_the_books_are_balanced(
        self, house: Marked, tmp_path: Path
    ) -> None:
        """There was no way to find one person, and none to erase him. `person erase` takes every
        byte of his out of the journal, its log, and the files of all connectors; others stay."""
        marks = (FAMILY, PHONE[2:], DESCRIPTION)
        before = house.files_with(*marks)
        assert any(one.startswith("data/journal.db") for one in before)
        number = number_of_card(house, house.id112)
        who = ("--card", f"112-{house.id112}", "--card", number, "--phone", PHONE)

        dry = house.person("erase", *who, "--json")
        assert dry.returncode == 0, dry.stderr
        found = json.loads(dry.stdout)
        kept = {(one["connector"], one["table"]) for one in found["files"]}
        assert {("remd", "document"), ("tfoms", "card")} <= kept
        assert {"smp", "deadlines", "rmis", "tfoms"} <= found["passed_on_to"].keys()
        assert house.files_with(*marks) == before  # nothing was done

        protocol = tmp_path / "protocol.json"
        done = house.person(
            "erase", *who, "--yes", "--reason", "заявление 17", "--protocol", str(protocol)
        )
        assert done.returncode in (0, 75), done.stderr  # a document's timers run for days
        assert house.files_with(*marks) == []
        assert house.ops("check")["wrong"] == []

        assert protocol.stat().st_mode & 0o777 == 0o600
        told = protocol.read_text(encoding="utf-8")
        assert not [one for one in (*marks, PHONE) if one in told]
        written = json.loads(told)
        assert (written["what"], written["reason"]) == ("erased", "заявление 17")
        assert written["by"].endswith(f"/{os.getuid()}")
        left = [one for one in written["journal"] if one["became"] == "in_work"]
        assert {one["type"] for one in left} <= {"document.timer.v1"}
        assert {one["became"] for one in written["files"]} == {"erased"}

        # The others' are there, and the router's own journal says who did it, and of what.
        other = house.samples[1]
        assert json.loads(house.person("find", "--card", f"112-{other.id112}", "--json").stdout)
        listed = house.run(
            "access", "list", "--what", "ops.person_erase", "--json", "--config", str(house.config)
        )
        assert json.loads(listed)[-1]["why"] == "заявление 17"
        assert house.run("access", "verify", "--config", str(house.config))

    def test_a_repeat_of_what_was_erased_is_known_as_one(
        self, house: Marked, tmp_path: Path
    ) -> None:
        accepted = sum(one["accepted"] for one in house.ops("check")["destinations"])
        body = house.samples[0].push()
        assert house.http("POST", "sys112", "/drive", {"cards": [body]})[0] == 202
        wait_for(lambda: not house.ledger("sys112")["pushing"], "the repeat")
        house.settle()
        after = sum(one["accepted"] for one in house.ops("check")["destinations"])
        assert after == accepted
        assert house.files_with(DESCRIPTION) == []

    def test_what_names_nobody_and_what_is_not_there_is_said(self, house: Marked) -> None:
        assert house.person("find").returncode == 64
        assert house.person("find", "--enp", "123").returncode == 64
        nothing = house.person("find", "--card", "112-nobody")
        assert nothing.returncode == 1
        assert "ничего не найдено" in nothing.stderr


class TestJournal:
    def test_what_is_open_or_dead_is_not_erased_under_anybodys_feet(self, tmp_path: Path) -> None:
        store = SqliteStore(tmp_path)
        opened = store.open()
        batch = Batch()
        for n, state in enumerate((State.SETTLED, State.DEAD, None), opened.next_n):
            raw = encode_message(
                Message(f"m{n}", "a.b", "smp", "call-1", AT, body=f"{FAMILY} {n}".encode())
            )
            batch.messages.append((n, "smp", f"m{n}", "call-1", AT, n, "sink", crc32(raw), raw))
            if state is not None:
                batch.outcomes.append((n, n, "sink", int(state), 1, AT, AT, f"so {FAMILY}"))
        store.write(batch)
        step = [n for _, run in store.person_steps(Search((by_enp("x" * 16),)), 0) for n in run]
        assert step == []
        words = Search((((FAMILY,),),))
        assert [n for _, run in store.person_steps(words, 0) for n in run] == [1, 2, 3]
        assert store.erase([1, 2, 3], "erased") == [1]
        rows = store.told([1, 2, 3])
        assert [row["deliveries"][0]["note"] for row in rows] == ["erased", f"so {FAMILY}", None]
        assert ERASED in str(rows[0]["head"])
        assert store.verify() == []
        assert (tmp_path / "journal.db").read_bytes().count(f"{FAMILY} 1".encode()) == 0
        store.close()


class TestSearch:
    @pytest.mark.parametrize(
        ("word", "data", "is_there"),
        [
            (by_enp("9971650880000029"), '{"enp":"9971650880000029"}', True),
            (by_enp("9971650880000029"), '{"enp":"99716508800000290"}', False),
            (by_snils("112-233-445 95"), '{"snils":"11223344595"}', True),
            (by_snils("11223344595"), "<snils>112-233-445 95</snils>", True),
            (by_name("Тестов", "Иван", "1943-08-19"), "ТЕСТОВ ИВАН 19430819", True),
            (by_name("Тестов", "Иван", "1943-08-19"), "ТЕСТОВА ИВАН 19430819", False),
            (by_name("Тестов", "Иван", "1943-08-19"), "ТЕСТОВ ИВАН 19440819", False),
        ],
    )
    def test_a_person_is_found_however_he_is_written(
        self, word: Any, data: str, is_there: bool
    ) -> None:
        assert Search((word,)).finds(data.encode()) is is_there

    def test_escapes_of_json_hide_nobody(self) -> None:
        assert Search((((FAMILY,),),)).finds(json.dumps({"family": FAMILY}).encode())


class TestConnectors:
    def test_every_connector_says_what_it_keeps(self) -> None:
        known = {one.name for one in entry_points(group="smpbus.connectors")}
        assert known == KEPT.keys()

    def test_a_live_call_is_left_until_it_is_over(self, tmp_path: Path) -> None:
        file = tmp_path / "calls"
        file.write_text(
            f'{{"id":"1","from":"{PHONE}"}}\n{{"id":"2","from":"{PHONE}"}}\n{{"ended":"1"}}\n'
        )
        place = Place("ats", file, Lines("live_calls_file", "id", "ended"))
        words = Search((((PHONE,),),))
        assert [(one.key, one.busy) for one in erase(place, words, ())] == [
            ("1", False),
            ("2", True),
        ]
        assert file.read_text().count(PHONE) == 1
        assert [one.key for one in find(place, words, ())] == ["2"]

    def test_every_table_that_is_named_is_there(self, house: Marked) -> None:
        """A declaration that names what is not there would find nobody."""
        import apsw

        files = {"remd": "remd.db", "vimis": "vimis.db", "tfoms": "tfoms.db", "sys112": "sys112.db"}
        for name, file in files.items():
            db = apsw.Connection(str(house.folder / file), flags=apsw.SQLITE_OPEN_READONLY)
            for kept in KEPT[name]:
                assert isinstance(kept, Table)
                columns = ", ".join((kept.key, *kept.numbers, *kept.bodies, kept.busy))
                db.execute(f"select {columns} from {kept.name} limit 1").fetchall()
            db.close()
