"""The SQL door of the ambulance system: PostgreSQL, PgBouncer, router and connector, all real.

The connector reaches the database through PgBouncer in transaction mode in every test. The vendor's
side is plain SQL, as a vendor writes it.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import psycopg
import pytest

from connectors.partners.smpsql.tables import SCHEMA
from connectors.simulators.smp.simulator import LIFE
from proto import catalogue
from proto.message import Message
from tests.integration.bus import SMPBUS
from tests.integration.postgres import BUS, OWNER, PASSWORD, VENDOR, Postgres
from tests.integration.sqlhouse import CARD, ROUTES, STATUS, House, events
from tests.ports import free_port
from tests.until import wait_for


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as started:
        yield started


@pytest.fixture(scope="module")
def started(postgres: Postgres) -> Iterator[House]:
    with House(postgres) as house:
        yield house


@pytest.fixture
def house(started: House) -> House:
    started.clear()
    return started


def at_once(*work: Callable[[], object]) -> None:
    """Do all in threads; raise what one of them raised."""
    with ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(one) for one in work]:
            done.result()


def answer(url: str, body: Any = None) -> Any:
    """What a page answers: its JSON, or its status when it is POSTed to; None when nobody does."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(url, data), timeout=10) as page:
            return page.status if data else json.loads(page.read())
    except URLError:
        return None


def test_an_event_goes_with_the_transaction_that_made_it_or_not_at_all(house: House) -> None:
    house.vendor.execute("CREATE TABLE own_call (status text)")
    with house.vendor.transaction(force_rollback=True):
        house.vendor.execute("INSERT INTO own_call VALUES ('departed')")
        house.publish("112-1", "never")
    with house.vendor.transaction():
        house.vendor.execute("INSERT INTO own_call VALUES ('arrived')")
        id = house.publish("112-1", "first")
        time.sleep(0.3)  # many polls: nothing is seen before the commit
        assert house.ask("status")["open"] == 0
    house.all_accepted(1)
    (message,) = house.read()
    assert message.id == id
    assert (message.type, message.subject, message.priority) == ("call.status.v1", "112-1", 1)
    assert message.source == "ambulance"
    assert json.loads(message.body)["event_id"] == "first"


def test_the_readme_publishes(house: House) -> None:
    readme = SCHEMA.with_name("README.md").read_text(encoding="utf-8")
    (block,) = [one for one in re.findall(r"```sql\n(.*?)```", readme, re.S) if "UPDATE" in one]
    house.vendor.execute("CREATE TABLE call (id integer, status text)")
    house.vendor.execute(block)
    house.vendor.execute("DROP TABLE call")
    house.all_accepted(1)
    (message,) = house.read()
    assert message.subject == "112-99-000001"


def test_everything_a_message_can_have_comes_from_the_row(house: House) -> None:
    house.publish(
        "", "x", id="given-by-us", priority=0, not_before="2026-01-01T00:00:00.123Z",
        expires="2226-01-01T00:00:00Z", correlation_id="2026-4711",
    )  # fmt: skip
    house.publish("", "again", id="given-by-us")  # the same id publishes nothing
    house.all_accepted(1)
    (message,) = house.read()
    assert (message.id, message.priority) == ("given-by-us", 0)
    assert message.not_before == 1_767_225_600_123
    assert message.expires == 8_078_572_800_000
    assert message.correlation_id == "2026-4711"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("'Status', 's', '{}'", "type: is not words"),
        ("NULL, 's', '{}'", "type: is required"),
        ("'a.b', NULL, '{}'", "subject: is required"),
        ("'a.b', repeat('s', 257), '{}'", "subject: is longer"),
        ("'a.b', 's', NULL", "payload: is required"),
        ("'a.b', 's', '{}', priority => 4", "priority: is not 0"),
        ("'a.b', 's', '{}', ''", "id: is empty"),
        ("'a.b', 's', '{}', expires => 'infinity'", "expires: is not between"),
        ("'a.b', 's', '{}', not_before => '1969-12-31'", "not_before: is not between"),
    ],
)
def test_a_wrong_form_is_an_error_in_the_vendors_own_transaction(
    house: House, call: str, told: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=told):
        house.vendor.execute(f"SELECT smpbus.publish({call})")
    assert house.states() == {}


@pytest.mark.parametrize(
    ("role", "query"),
    [
        (BUS, "SELECT * FROM smpbus.outbox"),
        (BUS, "SELECT smpbus.publish('a.b', 's', '{}')"),
        (BUS, "SELECT * FROM smpbus.take(1)"),
        (BUS, "SELECT smpbus.allow_bus('smpbus')"),
        (VENDOR, "INSERT INTO smpbus.outbox (id, type) VALUES ('i', 'a.b')"),
        (VENDOR, "SELECT smpbus.bus_accepted('{1}')"),
        (VENDOR, "DELETE FROM smpbus.inbox"),
        (VENDOR, "SELECT smpbus.allow_vendor('ambulance')"),
    ],
)
def test_each_role_may_do_its_own_part_only(house: House, role: str, query: str) -> None:
    wire = house.postgres.connect(house.database, role)
    with contextlib.closing(wire), pytest.raises(psycopg.errors.InsufficientPrivilege):
        wire.execute(query)


def test_what_is_published_is_durable_whatever_the_session_says(house: House) -> None:
    with house.vendor.transaction(force_rollback=True):
        house.vendor.execute("SET LOCAL synchronous_commit = off")
        house.publish("s", "x")
        assert house.vendor.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_one_transaction_may_speak_of_many_subjects(house: House) -> None:
    with house.vendor.transaction(force_rollback=True):
        many = "SELECT count(smpbus.publish('a.b', 's' || n, '{}')) FROM generate_series(1, 9000) n"
        assert house.vendor.execute(many).fetchone() == (9000,)
        held = house.vendor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert held.fetchone() == (256,)


def test_writers_of_one_subject_keep_the_order_of_their_commits(house: House) -> None:
    """Each writer takes its number from a row that the others change, too, after publishing: so
    the number is the order of the commits, and it is not the order in which publish() began."""
    writers, each = 6, 25
    house.vendor.execute("CREATE TABLE number (subject text PRIMARY KEY, last integer)")
    house.vendor.execute("CREATE TABLE told (id text, subject text, number integer)")
    house.vendor.execute("INSERT INTO number VALUES ('112-1', 0), ('112-2', 0)")

    def write(writer: int) -> None:
        subject = f"112-{1 + writer % 2}"
        with contextlib.closing(house.postgres.connect(house.database, VENDOR)) as wire:
            for n in range(each):
                with wire.transaction():
                    id = house.publish(subject, f"{writer}-{n}", on=wire)
                    last = "UPDATE number SET last = last + 1 WHERE subject = %s RETURNING last"
                    number = wire.execute(last, (subject,)).fetchone()[0]
                    wire.execute("INSERT INTO told VALUES (%s, %s, %s)", (id, subject, number))

    at_once(*(partial(write, writer) for writer in range(writers)))
    house.all_accepted(writers * each)
    told = house.vendor.execute("SELECT id, subject FROM told ORDER BY number").fetchall()
    heard = [(message.id, message.subject) for message in house.read()]
    assert len(told) == writers * each
    for subject in ("112-1", "112-2"):
        assert [id for id, of in heard if of == subject] == [id for id, of in told if of == subject]


def test_a_late_commit_is_not_skipped(house: House) -> None:
    with contextlib.closing(house.postgres.connect(house.database, VENDOR)) as late:
        late.execute("BEGIN")
        house.publish("112-late", "early row", on=late)
        for n in range(5):
            house.publish("112-other", f"{n}")
        house.all_accepted(5)
        late.execute("COMMIT")
    house.all_accepted(6)
    assert events(house.read())["112-late"] == ["early row"]


def test_urgent_rows_go_before_bulk_and_after_what_is_earlier_of_their_subject(
    house: House,
) -> None:
    house.pause()
    with house.vendor.transaction():  # a poll that was under way sees all of it or nothing
        for n in range(60):
            house.publish(f"bulk-{n}", f"{n}", priority=3)
        house.publish("112-1", "before", priority=3)
        house.publish("112-1", "urgent", priority=0)
    house.resume()
    house.all_accepted(62)
    marked = house.owner.execute("SELECT subject FROM smpbus.outbox ORDER BY ended_at, seq")
    # The two are marked by the first round trip, of forty rows.
    assert [subject for (subject,) in marked.fetchall()[:40]].count("112-1") == 2
    assert events(house.read())["112-1"] == ["before", "urgent"]


def test_a_bad_row_is_refused_with_its_reason_and_the_others_go(house: House) -> None:
    publish = "SELECT smpbus.publish(%s, '112-1', %s::jsonb)"
    wrong = json.dumps(STATUS | {"code": "Вымышленная Анна"})
    long = json.dumps(STATUS | {"remark": "x" * 30_000})
    booking = json.dumps(catalogue.entry("hospital.book.v1").example)
    house.publish("112-1", "one")
    house.vendor.execute(publish, ("call.status.v1", wrong))
    house.vendor.execute(publish, ("call.status.v1", long))
    deep = json.dumps(STATUS | {"deep": None}).replace("null", "[" * 5000 + "]" * 5000)
    house.vendor.execute(publish, ("call.status.v1", deep))
    house.vendor.execute(publish, ("odd.type.v1", "{}"))
    house.vendor.execute(publish, ("hospital.book.v1", booking))
    house.publish("112-1", "two")
    wait_for(lambda: house.states() == {"accepted": 2, "refused": 5}, "all seven")
    reasons = house.vendor.execute(
        "SELECT reason FROM smpbus.outbox WHERE state = 'refused' ORDER BY seq"
    ).fetchall()
    assert [reason for (reason,) in reasons] == [
        "code: is not one of the values allowed",
        "payload: is longer than 20000 bytes",
        "payload: is nested too deeply",
        "type: may not be published here (not_permitted)",
        "type: has no route here (no_route)",
    ]
    told = [json.loads(message.body) for message in house.read("admin")]
    assert {(one["operation"], one["path"]) for one in told} == {
        ("call.status.v1", "code"),
        ("call.status.v1", "payload"),
        ("odd.type.v1", "type"),
        ("hospital.book.v1", "type"),
    }
    assert events(house.read()) == {"112-1": ["one", "two"]}
    assert "поле code, правило: is not one of the values allowed" in house.told()
    assert "Вымышленная" not in house.told()
    # Mended, what was refused may go again.
    house.route('[[routes]]\ntype = "hospital.*"\nto = ["sink"]\n')
    again = "SELECT smpbus.publish_again(id) FROM smpbus.outbox WHERE type = 'hospital.book.v1'"
    assert house.vendor.execute(again).fetchone() == (True,)
    wait_for(lambda: house.states() == {"accepted": 3, "refused": 4}, "the mended one")


def test_a_full_queue_holds_its_subjects_in_order_and_lets_others_pass(house: House) -> None:
    house.route(
        '[[routes]]\ntype = "call.ticket.v1"\nto = ["admin"]\n',
        ROUTES.replace("[destinations.sink]", "[destinations.sink]\nopen_max = 4").replace(
            'type = "call.*"', 'type = "call.status.v1"'
        ),
    )
    house.pause()
    body = json.dumps(catalogue.entry("call.ticket.v1").example | {"address": {"text": "-"}})
    with house.vendor.transaction():
        for n in range(8):
            house.publish(f"112-{n % 2}", f"{n}")
        for subject in ("112-1", "112-9"):
            house.vendor.execute("SELECT smpbus.publish('call.ticket.v1', %s, %s)", (subject, body))
    house.resume()
    wait_for(lambda: house.states().get("accepted") == 5, "what there is room for")
    # The ticket of another subject has passed; that of a held one has not.
    assert [message.subject for message in house.read("admin")] == ["112-9"]
    found: list[Message] = []
    while len(found) < 8:
        wait_for(lambda: house.pending("sink"), "more of them")
        found += house.read()
    house.all_accepted(10)
    assert events(found) == {"112-0": list("0246"), "112-1": list("1357")}
    (ticket,) = house.read("admin")
    assert (ticket.subject, ticket.priority) == ("112-1", 2)


def test_a_killed_connector_loses_nothing_and_doubles_nothing(house: House) -> None:
    """Both ways under load, kill -9 at odd moments; the inbox is emptied by a program that keeps
    what it took in the transaction that took it."""
    rows, cards = 1000, 300
    ids: list[str] = []
    sent: list[str] = []
    house.vendor.execute("CREATE TABLE taken (n serial, id text)")

    def publish() -> None:
        with contextlib.closing(house.postgres.connect(house.database, VENDOR)) as wire:
            ids.extend(house.publish(f"112-{n % 20}", f"{n:05}", on=wire) for n in range(rows))

    def take() -> None:
        into = "INSERT INTO taken (id) SELECT id FROM smpbus.take(7) RETURNING id"
        with contextlib.closing(house.postgres.connect(house.database, VENDOR)) as wire:
            taken = 0
            while taken < cards:
                found = wire.execute(into).fetchall()
                taken += len(found)
                time.sleep(0 if found else 0.01)

    def kill() -> None:
        for _ in range(4):
            before = house.progress()
            wait_for(lambda before=before: house.progress() != before, "progress")  # type: ignore[misc]
            house.end_connector(kill=True)
            house.start_connector()

    at_once(
        publish, take, kill,
        lambda: sent.extend(house.send_cards([f"112-{n % 20}" for n in range(cards)])),
    )  # fmt: skip
    house.all_accepted(rows)
    wait_for(lambda: not house.pending("ambulance"), "the last of the inbox")
    taken = house.vendor.execute("SELECT id FROM taken ORDER BY n").fetchall()
    inbox = [id for (id,) in taken]
    outbox = house.read()
    assert sorted(message.id for message in outbox) == sorted(ids)
    for told in events(outbox).values():
        assert told == sorted(told)
    assert sorted(inbox) == sorted(sent)
    assert house.owner.execute("SELECT count(*) FROM smpbus.inbox").fetchone() == (cards,)
    for at in range(20):  # of each subject, in the order sent
        subject = set(sent[at::20])
        assert [id for id in inbox if id in subject] == sent[at::20]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "crash"])
def test_a_database_that_is_away_is_waited_for_and_told_of_once(
    house: House, number: signal.Signals
) -> None:
    house.publish("112-1", "before")
    house.all_accepted(1)
    start = len(house.told())
    house.postgres.stop(number)
    (card,) = house.send_cards(["112-1"])
    wait_for(lambda: "Unable to complete network request" in house.told()[start:], "the line")
    house.postgres.start()
    house.reconnect()
    house.publish("112-1", "after")
    wait_for(lambda: house.received(card), "the card")
    wait_for(lambda: "снова отвечает" in house.told()[start:], "the end of the outage")
    told = house.told()[start:]
    assert told.count("ОШИБКА") == 1
    assert "Система: ИС СМП" in told
    house.all_accepted(2)
    assert events(house.read()) == {"112-1": ["before", "after"]}


def test_a_database_that_hangs_is_given_up_and_asked_again(house: House) -> None:
    assert house.postgres.pooler is not None
    start = len(house.told())
    house.postgres.pooler.send_signal(signal.SIGSTOP)
    try:
        (card,) = house.send_cards(["112-1"])
        wait_for(lambda: "Unable to complete network request" in house.told()[start:], "the line")
        figures = f"http://127.0.0.1:{house.figures_port}/figures"
        assert answer(figures)["refused"] >= 0  # the connector itself does not hang
    finally:
        house.postgres.pooler.send_signal(signal.SIGCONT)
    house.publish("112-1", "after")
    house.all_accepted(1)
    wait_for(lambda: house.received(card), "the card")


@pytest.mark.parametrize(
    ("broken", "mended", "told"),
    [
        (
            "UPDATE smpbus.version SET version = 7",
            "UPDATE smpbus.version SET version = 1",
            "Схема smpbus в базе версии 7, нужна 1",
        ),
        (
            "ALTER SCHEMA smpbus RENAME TO away",
            "ALTER SCHEMA away RENAME TO smpbus",
            "В базе нет схемы smpbus",
        ),
        (
            f"REVOKE EXECUTE ON FUNCTION smpbus.bus_deliver FROM {BUS}",
            f"SELECT smpbus.allow_bus('{BUS}')",
            "Нет прав на функции smpbus",
        ),
        (
            f"ALTER ROLE {BUS} SET default_transaction_read_only = on",
            f"ALTER ROLE {BUS} RESET default_transaction_read_only",
            "База открыта только на чтение",
        ),
    ],
    ids=["version", "schema", "rights", "read-only"],
)
def test_what_is_wrong_in_the_database_is_told_with_its_remedy(
    house: House, broken: str, mended: str, told: str
) -> None:
    start = len(house.told())
    house.owner.execute(broken)
    house.postgres.restart_pooler()
    try:
        wait_for(lambda: told in house.told()[start:], "the line")
        house.send_cards(["112-1"])
    finally:
        house.owner.execute(mended)
        house.postgres.restart_pooler()
    wait_for(lambda: house.owner.execute("SELECT FROM smpbus.inbox").fetchall(), "the card")


def test_a_delivery_that_cannot_be_stored_is_a_dead_letter_and_the_others_go(house: House) -> None:
    house.pause()
    with house.blocking("sys112") as bus:
        bodies = ['{"a": 1}', '{"a": "\\u0000"}', "no JSON", '{"a": 2}']
        for n, body in enumerate(bodies):
            bus.publish(bus.message("incident.odd.v1", body.encode(), subject=f"{n}"))
    house.resume()
    rows = "SELECT payload->>'a' FROM smpbus.inbox ORDER BY 1"
    wait_for(lambda: house.owner.execute(rows).fetchall() == [("1",), ("2",)], "the good ones")
    wait_for(lambda: house.queue("ambulance")["dead"] == 2, "the dead letters")


def test_what_is_taken_is_done_with_the_transaction_and_goes_in_order(house: House) -> None:
    cards = house.send_cards(["112-1", "112-1", "112-2", ""])
    wait_for(lambda: len(house.owner.execute("SELECT FROM smpbus.inbox").fetchall()) == 4, "all")
    take = "SELECT id FROM smpbus.take(10)"
    first = [cards[0], cards[2], cards[3]]
    other = house.postgres.connect(house.database, VENDOR)
    with contextlib.closing(other):
        with house.vendor.transaction(force_rollback=True):
            assert sorted(house.vendor.execute(take).fetchall()) == sorted((id,) for id in first)
            # Nobody else gets those, nor what comes after them.
            assert other.execute(take).fetchall() == []
        assert sorted(other.execute(take).fetchall()) == sorted((id,) for id in first)
    assert house.vendor.execute(take).fetchall() == [(cards[1],)]
    aside = "SELECT smpbus.fail(seq, 'no such call') FROM smpbus.inbox WHERE id = %s"
    assert house.vendor.execute(aside, (cards[1],)).fetchall() == [(True,)]
    assert house.vendor.execute(take).fetchall() == []
    again = "SELECT smpbus.take_again(seq) FROM smpbus.inbox WHERE state = 'failed'"
    assert house.vendor.execute(again).fetchall() == [(True,)]
    assert house.vendor.execute(take).fetchall() == [(cards[1],)]
    row = house.vendor.execute(
        "SELECT type, source, subject, payload, state FROM smpbus.inbox WHERE id = %s", (cards[0],)
    ).fetchone()
    assert row == ("incident.card.v1", "sys112", "112-1", CARD, "done")


def test_a_repeated_delivery_is_in_the_inbox_once(house: House) -> None:
    deliver = (
        "SELECT smpbus.bus_deliver(%s, '{a,b}', '{t.v1,t.v1}', '{s,s}', '{1,1}', '{0,0}', '{1,1}',"
        " '{NULL,0}', '{NULL,c}', '{1,2}')"
    )
    with contextlib.closing(house.postgres.connect(house.database, BUS)) as wire:
        assert wire.execute(deliver, (["bus-1", "bus-2"],)).fetchone() == (2,)
        assert wire.execute(deliver, (["bus-2", "bus-3"],)).fetchone() == (1,)
    rows = house.owner.execute("SELECT key, payload FROM smpbus.inbox ORDER BY seq").fetchall()
    assert rows == [("bus-1", 1), ("bus-2", 2), ("bus-3", 2)]


def test_what_ended_long_ago_is_pruned_and_nothing_else(house: House) -> None:
    add = (
        "INSERT INTO smpbus.outbox (id, type, subject, priority, payload, bytes, state, ended_at)"
        " SELECT %s || n, 'a.b', '', 1, '{}', 2, %s, now() - make_interval(hours => %s)"
        " FROM generate_series(1, 30) n"
    )
    for kind, state, hours in [
        ("old", "accepted", 200),
        ("new", "accepted", 100),
        ("bad", "refused", 200),
        ("worse", "refused", 800),
        ("open", "waiting", None),
    ]:
        house.owner.execute(add, (kind, state, hours))
    with contextlib.closing(house.postgres.connect(house.database, BUS)) as wire:
        gone = [wire.execute("SELECT smpbus.bus_prune(168, 25)").fetchone()[0] for _ in range(4)]
    assert gone == [25, 25, 10, 0]
    left = house.owner.execute("SELECT DISTINCT rtrim(id, '0123456789') FROM smpbus.outbox")
    assert {kind for (kind,) in left.fetchall()} >= {"new", "bad"}
    assert house.states()["refused"] >= 30


def test_a_poll_reads_what_waits_however_long_the_table_is(house: House) -> None:
    """Also with statistics of a time when nothing waited."""
    house.pause()
    add = (
        "INSERT INTO smpbus.outbox (id, type, subject, priority, payload, bytes, state, ended_at)"
        " SELECT gen_random_uuid(), 'a.b', 's' || n, 3, '{}', 2, %s, %s"
        " FROM generate_series(1, 50000) n"
    )
    house.owner.execute(add, ("accepted", "2026-11-26T00:00:00Z"))
    house.owner.execute("ANALYZE smpbus.outbox")
    assert house.blocks_of_a_poll() < 100
    house.owner.execute(add, ("waiting", None))
    assert house.blocks_of_a_poll() < 1500
    house.owner.execute("TRUNCATE smpbus.outbox")
    house.resume()


def test_the_ear_is_faster_than_the_poll_and_without_it_the_poll_is_enough(
    postgres: Postgres,
) -> None:
    with House(postgres, poll_s=60, heard=True) as house:
        house.start_connector()
        told = house.check()
        assert f"база 127.0.0.1:{postgres.pooler_port}: схема smpbus версии 1, права есть" in told
        assert f"уведомления с 127.0.0.1:{postgres.port} приходят" in told
        wait_for(lambda: house.ask("status")["sessions"], "the session")
        for n in range(3):
            house.publish("112-1", f"{n}")
            house.all_accepted(n + 1)  # the next poll is a minute away
        ears = "FROM pg_stat_activity WHERE query ~ '^LISTEN|^SELECT 1'"
        house.owner.execute(f"SELECT pg_terminate_backend(pid) {ears}")
        wait_for(lambda: "уведомления PostgreSQL не приходят" in house.told(), "the warning")
        wait_for(lambda: "уведомления PostgreSQL снова приходят" in house.told(), "the ear")
        house.publish("112-1", "3")
        house.all_accepted(4)
        assert house.end_connector() == 0
        # Through the pooler nothing would be heard, and the check says so.
        text = house.config.read_text()
        direct, pooled = (postgres.url(house.database, pooled=way) for way in (False, True))
        house.config.write_text(
            text.replace(f'listen_url = "{direct}"', f'listen_url = "{pooled}"')
        )
        assert "не приходят: listen_url должен вести прямо в PostgreSQL" in house.check(69)


def test_a_wrong_password_is_told_and_never_shown(house: House) -> None:
    secret = house.passwords[BUS]
    kept = secret.read_text()
    secret.write_text(f"{BUS}:quite-another-word\n")
    told = house.check(69)
    assert "не пускает" in told
    assert "quite-another-word" not in told
    secret.write_text(kept)
    secret.chmod(0o644)
    assert "chmod 600" in house.check(78)
    secret.chmod(0o600)


def test_the_schema_is_installed_again_over_data(house: House) -> None:
    house.publish("112-1", "kept")
    direct = house.postgres.url(house.database, pooled=False)
    install = ("sql", "install", "--url", direct, "--credentials-file", str(house.passwords[OWNER]))
    told = house.smpbus(*install, "--vendor", VENDOR, "--bus", BUS)
    assert told == f"схема smpbus установлена: 127.0.0.1:{house.postgres.port}\n"
    house.all_accepted(1)
    assert "не установлена" in house.smpbus(*install, "--bus", "nobody", code=69)


def test_an_older_schema_is_not_installed_over_a_newer_one(house: House) -> None:
    house.pause()
    house.owner.execute("UPDATE smpbus.version SET version = 7")
    script = house.smpbus("sql", "schema")
    with pytest.raises(psycopg.errors.RaiseException, match="newer than this script"):
        house.owner.execute(script)
    house.owner.execute("ROLLBACK")
    house.owner.execute("UPDATE smpbus.version SET version = 1")
    house.resume()


def test_the_simulated_ambulance_lives_its_calls_through_the_database(house: House) -> None:
    port = free_port()
    ledger = f"http://127.0.0.1:{port}/ledger"
    secret = house.folder / "pgpass"
    secret.touch(mode=0o600)
    secret.write_text(f"127.0.0.1:*:*:{VENDOR}:{PASSWORD}\n")
    url = house.postgres.url(house.database).replace("//", f"//{VENDOR}@")
    command = [SMPBUS, "sim", "smpsql", "--listen", f"127.0.0.1:{port}", "--connector", url]
    with house.connector_log.open("ab") as log:
        ambulance = subprocess.Popen(
            [*command, "--pace", "0.01"], stdout=log, stderr=log,
            env=os.environ | {"PGPASSFILE": str(secret)},
        )  # fmt: skip
    try:
        wait_for(lambda: answer(ledger), "the ambulance")
        assert answer(ledger.replace("ledger", "drive"), {"calls": 2}) == 202
        house.send_cards(["112-1"])
        wait_for(lambda: len(answer(ledger)["calls"]) == 3, "three calls")
        wait_for(lambda: not answer(ledger)["living"], "their end")
        calls = answer(ledger)["calls"]
    finally:
        ambulance.terminate()
        assert ambulance.wait(30) == 0
    assert [call["events"] for call in calls] == [list(LIFE)] * 3
    house.all_accepted(3 + 3 * len(LIFE))
    heard: dict[str, list[str]] = defaultdict(list)
    for message in house.read():
        catalogue.entry(message.type).read(message.body)
        body = json.loads(message.body)
        heard[message.subject].append(body.get("code", message.type))
    assert len(heard) == 3
    for told in heard.values():
        assert [code for code in told if code != "call.ticket.v1"] == list(LIFE)
