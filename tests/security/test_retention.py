"""What is kept of people has an end, kind by kind, by one table; dead letters are told of first."""

import asyncio
import logging
import re
import time
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from zlib import crc32

import apsw
import msgspec
import pytest

from connectors.billing.billed import Billed, Entry
from connectors.partners.external.memory import Call, ref_of
from connectors.partners.external.memory import Memory as ExternalMemory
from connectors.partners.rmis.memory import Memory as HospitalMemory
from connectors.partners.smp import SmpConnector
from connectors.partners.smpsql import SmpSqlConnector
from connectors.partners.sys112.memory import Memory as CardMemory
from connectors.runtime.bus.settings import load
from connectors.services.document.archive import Archive, Document, State
from proto.exits import StartError
from proto.message import Message, Priority, encode_message
from proto.retention import DAY_MS, DAY_S, Retention
from router.core.delivery import State as Delivered
from router.core.output import Batch
from router.shell.retention import Ending
from router.shell.writer import Writer
from router.store.contract import Which
from router.store.sqlite import FILE, SqliteStore
from tests.integration.bus import RouterProcess

ROOT = Path(__file__).parents[2]
AT = 1_800_000_000_000
WORDS = "МАРКЕРОВА ПЕЛАГЕЯ 1943-08-19 "
DOCUMENT = Document(
    uid="u", card="kv-1", card_version=1, number="kv-1", version=1, call="2026-1", subject="112-1",
    state="sent", remote=None, code=None, message=None, sends=0, source=WORDS.encode(),
    file=WORDS.encode() * 9, signature=b"s", digest="d", made_at=1,
)  # fmt: skip


def marks(file: Path) -> int:
    """Return how often the words are in the file and in what SQLite has beside it."""
    found = (file, Path(f"{file}-wal"))
    return sum(one.read_bytes().count(WORDS.encode()) for one in found if one.exists())


# -- one table ------------------------------------------------------------------------------------


@pytest.mark.fault("S9")
def test_the_table_is_the_same_wherever_it_stands() -> None:
    """Each kind had its own constant, some had none, and nobody could say what is kept how long:
    the settings, the shipped file and the guide say the same."""
    fields = {one.name: one.default for one in msgspec.structs.fields(Retention)}
    shipped = (ROOT / "config" / "smpbus.toml").read_text("utf-8")
    section = shipped.split("[retention]")[1].split("\n[")[0]
    said = tomllib.loads("\n".join(re.findall(r"^# (\w+ = \d+)\b", section, re.MULTILINE)))
    assert said == fields
    guide = (ROOT / "docs" / "admin.ru.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+_days)` \| (\d+) \|", guide, re.MULTILINE)
    assert {name: int(days) for name, days in rows} == fields
    assert len(rows) == len(fields)


@pytest.mark.fault("S9")
def test_every_connector_reads_the_table_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from the environment; a mistake in it is told by its own key."""
    config = tmp_path / "smpbus.toml"
    smp = '[connectors.smp]\nlisten = "127.0.0.1:1"\npartner.url = "http://127.0.0.1:2"\n'
    config.write_text(f"[bus]\ncurve = false\n[retention]\nhospital_days = 5\n{smp}")
    monkeypatch.setenv("SMPBUS_RETENTION__SQL_DAYS", "0.5")
    read = load("smp", SmpConnector.Settings, config).settings.retention
    assert (read.hospital_days, read.sql_days, read.dead_days) == (5, 0.5, 90)
    for wrong in ("hospital_days = 0", 'dead_days = "long"', "hospital_day = 5"):
        config.write_text(f"[bus]\ncurve = false\n[retention]\n{wrong}\n{smp}")
        with pytest.raises(StartError, match=r"retention\.(hospital|dead)_day") as caught:
            load("smp", SmpConnector.Settings, config)
        assert "\n" not in caught.value.sentence


@pytest.mark.fault("S9")
def test_the_database_keeps_rows_by_the_table_unless_its_own_key_is_set(tmp_path: Path) -> None:
    """An old key counts before the table, and repeats are known for as long as the bus may bring
    them."""
    config = tmp_path / "smpbus.toml"
    for own, days, hours in (("", 14, 336), ("", 1, 72), ("keep_hours = 100\n", 14, 100)):
        config.write_text(
            f"[bus]\ncurve = false\n[retention]\nsql_days = {days}\n[connectors.smpsql]\n{own}"
            '[connectors.smpsql.partner]\nurl = "postgresql://127.0.0.1/smp"\n'
        )
        settings = load("smpsql", SmpSqlConnector.Settings, config).settings
        assert SmpSqlConnector.keep_hours_of(settings) == hours  # type: ignore[arg-type]


# -- connectors -----------------------------------------------------------------------------------


@pytest.mark.fault("S9")
@pytest.mark.parametrize("end", ["registered", "rejected", "gave_up"])
def test_a_document_that_has_ended_is_gone_though_no_other_comes(
    tmp_path: Path, end: State
) -> None:
    """A rejected one stayed whole for ever, and what had ended went only when another came."""
    file = tmp_path / "archive.db"
    archive = Archive(file, Retention(document_file_days=30, document_row_days=300))
    archive.keep(DOCUMENT)
    archive.keep(replace(DOCUMENT, uid="open", card="kv-2", source=b"-", file=b"open"))
    archive.move("u", end)
    archive.forget()
    assert archive.of_uid("u").file == DOCUMENT.file  # type: ignore[union-attr]
    age(file, "document", "changed_at", 40)
    archive.forget()
    assert archive.of_uid("u") == replace(DOCUMENT, state=end, source=b"", file=b"", signature=b"")
    assert archive.newest("kv-1") == (1, 1)
    age(file, "document", "changed_at", 400)
    archive.forget()
    assert archive.of_uid("u") is None
    assert archive.of_uid("open").file == b"open"  # type: ignore[union-attr]
    archive.close()
    assert marks(file) == 0


def age(file: Path, table: str, column: str, days: float) -> None:
    """Make what is in a file older."""
    with apsw.Connection(str(file)) as db:
        db.execute(f"update {table} set {column} = {column} - ?", (days * DAY_S,))


@pytest.mark.fault("S9")
def test_what_a_hospital_was_told_of_is_gone(tmp_path: Path) -> None:
    """Which ticket it has confirmed was kept for ever."""
    file = tmp_path / "rmis.db"
    memory = HospitalMemory(file, 90 * DAY_S)
    memory.note_asked("card", "2026-1", "2026-1", "112-1")
    memory.note_transfers([("2026-1", "ticket", "accepted")])
    memory.forget()
    assert (memory.subject_of("2026-1"), memory.unconfirmed()[0]) == ("112-1", 1)
    age(file, "call", "seen", 91)
    age(file, "transfer", "at", 91)
    assert memory.was_asked("2026-1", "card", "2026-1")
    age(file, "asked", "seen", 91)
    memory.forget()
    assert not memory.was_asked("2026-1")
    assert (memory.subject_of("2026-1"), memory.unconfirmed()[0]) == ("call-2026-1", 0)
    memory.close()


@pytest.mark.fault("S9")
def test_what_outside_services_and_system_112_handed_in_is_gone(tmp_path: Path) -> None:
    """Both went only with the next card or call."""
    outside = ExternalMemory(tmp_path / "calls.db", 2 * DAY_S)
    id = f"{1:032x}"
    old = Call(ref_of("med", id), "med", id, b"d", WORDS, time.time() - 3 * DAY_S, True, None)
    outside.begin(old)
    young = replace(old, ref=ref_of("med", f"{2:032x}"), id=f"{2:032x}", handed_in_at=time.time())
    outside.begin(young)
    outside.forget()
    assert outside.call_of("med", old.id) is None
    assert outside.call_of("med", young.id) is not None
    outside.close()
    now = time.time()
    cards = CardMemory(tmp_path / "cards.db", lambda: now, kept_s=2 * DAY_S)
    cards.end_card("112-1")
    cards.forget()
    assert cards.knows("112-1")
    now += 3 * DAY_S
    cards.forget()
    assert not cards.knows("112-1")
    cards.close()


@pytest.mark.fault("S9")
def test_the_ledger_of_registers_has_an_end(tmp_path: Path) -> None:
    """It was kept for ever; the month of a register is in its name."""
    billed = Billed(tmp_path / "billed.db")
    for month in ("2110", "2311", "2611"):
        billed.note(f"HM990101S99001_{month}1", [Entry(f"kv-{month}", 1)])
    billed.note("of-another-name", [Entry("kv-x", 1)])
    least = date(2026, 11, 30) - timedelta(days=Retention().fund_ledger_days)
    assert billed.forget(f"{least:%y%m}") == 1
    standing = [billed.standing(f"kv-{one}", "new") for one in ("2110", "2311", "2611", "x")]
    assert standing == ["new", "billed", "billed", "billed"]
    billed.close()


# -- dead letters ---------------------------------------------------------------------------------


class Letters:
    """Dead letters of one store, and what ends them."""

    def __init__(self, folder: Path, retention: Retention) -> None:
        self.store = SqliteStore(folder)
        self.retention = retention
        self.dropped: list[int] = []
        self.batch = Batch()

    def add(self, n: int, died_at: int, priority: Priority = Priority.ROUTINE) -> None:
        message = Message(f"id-{n}", "test.card.v1", "smp", f"call-{n}", died_at, body=b"{}")
        raw = encode_message(msgspec.structs.replace(message, priority=priority))
        row = (n, "smp", message.id, message.subject, died_at, n, "sink", crc32(raw), raw)
        self.batch.messages.append(row)
        self.batch.outcomes.append((n, n, "sink", Delivered.DEAD, 1, None, died_at, WORDS))

    def play(self, scene: Callable[[Ending], Awaitable[None]]) -> None:
        async def whole() -> None:
            writer = Writer(self.store)
            await writer.query(lambda s: s.open())
            await writer.query(lambda s: s.write(self.batch))
            self.batch = Batch()

            async def drop(deliveries: list[int], reason: str) -> int:
                rows = [(one, "sink", reason) for one in deliveries]
                await writer.query(lambda s: s.write(Batch(dropped=rows)))
                self.dropped += deliveries
                return len(deliveries)

            await scene(Ending(writer, lambda: self.retention, drop))
            await writer.close()

        asyncio.run(whole())


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[tuple[int, str]]]:
    """What the router tells: level and text."""
    caplog.set_level(logging.INFO, "smpbus.router")
    found: list[tuple[int, str]] = []

    class Take(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append((record.levelno, record.getMessage()))

    handler = Take()
    logging.getLogger("smpbus.router").addHandler(handler)
    yield found
    logging.getLogger("smpbus.router").removeHandler(handler)


TABLE = Retention(dead_days=90, dead_emergency_days=365, dead_told_days=7)


@pytest.mark.fault("S9")
def test_a_dead_letter_ends_after_it_was_told_of(
    tmp_path: Path, lines: list[tuple[int, str]]
) -> None:
    """They stayed for ever, with all that was in them. Told once a day from a week before."""
    letters = Letters(tmp_path, TABLE)
    letters.add(1, AT)
    letters.add(2, AT + 50 * DAY_MS)

    async def scene(ending: Ending) -> None:
        for hour in range(0, 92 * 24, 6):
            await ending.look(AT + hour * DAY_MS // 24)
            if not hour % 600:
                await ending.look(AT + hour * DAY_MS // 24)
            if letters.dropped:
                assert 90 * 24 <= hour <= 92 * 24
                break

    letters.play(scene)
    assert letters.dropped == [1]
    told = [text for level, text in lines if level == logging.WARNING]
    assert 7 <= len(told) - 1 <= 8, told  # a week, and then that it is over
    assert all("sink 1" in one for one in told[:-1])
    assert not [one for one in lines if WORDS.strip() in one[1]]
    letters.play(lambda ending: ending.look(AT + 92 * DAY_MS))
    store = SqliteStore(tmp_path)
    store.open()
    left = [one.delivery for step in store.dead_steps(Which()) for one in step]
    assert left == [2]
    assert store.verify() == []
    store.close()


@pytest.mark.fault("S9")
def test_nothing_ends_that_nobody_was_told_of(tmp_path: Path, lines: list[tuple[int, str]]) -> None:
    """A router that was off for half a year, or is started with a shorter time, tells first; what
    it told outlives it."""
    letters = Letters(tmp_path, TABLE)
    letters.add(1, AT)
    late = AT + 200 * DAY_MS
    letters.play(lambda ending: ending.look(late))
    assert letters.dropped == []
    assert len(lines) == 1
    letters.add(2, AT + DAY_MS)  # as old, but not there when it was told
    letters.play(lambda ending: ending.look(late + 3 * DAY_MS))
    letters.play(lambda ending: ending.look(late + 6 * DAY_MS))
    assert letters.dropped == []
    letters.play(lambda ending: ending.look(late + 8 * DAY_MS))
    assert 1 in letters.dropped


@pytest.mark.fault("S9")
def test_an_emergency_is_kept_longer_and_told_of_louder(
    tmp_path: Path, lines: list[tuple[int, str]]
) -> None:
    """That one was never delivered is a matter that somebody will ask about."""
    letters = Letters(tmp_path, TABLE)
    letters.add(1, AT, Priority.EMERGENCY)

    async def scene(ending: Ending) -> None:
        for day in range(80, 368):
            await ending.look(AT + day * DAY_MS)
            if day == 357:
                assert lines == []
            if letters.dropped:
                assert day >= 365
                break

    letters.play(scene)
    assert letters.dropped == [1]
    assert [level for level, _ in lines[:-1]] == [logging.ERROR] * (len(lines) - 1)
    assert len(lines) >= 8


@pytest.mark.fault("S9")
def test_a_running_router_ends_them_and_its_books_balance() -> None:
    """With the real parts: told, dropped under the operator's own lock, pruned from the journal and
    overwritten; what is still open stays."""
    table = "[retention]\ndead_days = 30\ndead_emergency_days = 60\ndead_told_days = 0.00002\n"
    hours = "free_bytes_min = 0\nhistory_hours = 0.0005\ndedup_hours = 0.0005\n"
    with RouterProcess(store=hours + table) as router:
        with router.blocking("producer") as bus:
            for number in range(3):
                body = {"patient": WORDS}
                bus.publish(Message.new("test.card.v1", "producer", body, subject=f"call-{number}"))
        with router.blocking("consumer") as bus:
            deliveries = iter(bus.consume("sink", timeout_s=5))
            for _ in range(2):
                bus.reject(next(deliveries), "HTTP 422")
        router.wait_until("check", lambda a: a["destinations"][0]["dead"] == 2)
        router.stop()
        journal = apsw.Connection(str(router.folder / "data" / FILE))
        journal.execute(
            "update outcome set ended_at = ended_at - ? where delivery = 1", (40 * DAY_MS,)
        )
        journal.execute("update message set accepted_at = accepted_at - ?", (40 * DAY_MS,))
        journal.close()
        router.start()
        books = router.wait_until("check", lambda a: a["destinations"][0]["dropped"] == 1)
        assert books["wrong"] == []
        (row,) = books["destinations"]
        assert (row["dead"], row["open"], row["left"]) == (1, 1, 0)
        pruned = partial(router.ask, "trace", subject="call-0")
        router.wait_until("check", lambda _: pruned()["messages"] == [])
        assert router.ask("trace", subject="call-2")["messages"] != []
        told = router.log.read_text()
        assert told.index("скоро будут удалены") < told.index("списано: 1")
