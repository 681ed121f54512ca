"""What an operator does to a running bus: replay, drop, hold, release, check, explain."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.integration.bus import SMPBUS, RouterProcess


@pytest.fixture
def router() -> Iterator[RouterProcess]:
    with RouterProcess() as running:
        yield running


def smpbus(router: RouterProcess, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [SMPBUS, *arguments, "--config", str(router.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def told(router: RouterProcess, *arguments: str) -> Any:
    """Return what a command prints for a machine."""
    ended = smpbus(router, *arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


async def publish(router: RouterProcess, *subjects: str) -> None:
    async with router.client("producer") as bus:
        for number, subject in enumerate(subjects):
            await bus.publish(bus.message("test.message.v1", {"n": number}, subject=subject))


async def take(
    router: RouterProcess, count: int, reject: bool = False, reason: str = "HTTP 422"
) -> list[Any]:
    """Take and settle; return (delivery, attempt, n) of each."""
    taken = []
    async with router.client("consumer") as bus:
        async for delivery in bus.consume("sink"):
            body: Any = delivery.message.json()
            taken.append((delivery.id, delivery.attempt, body["n"]))
            if reject:
                delivery.reject(reason)
            else:
                delivery.ack("HTTP 200")
            if len(taken) == count:
                break
    return taken


def books(router: RouterProcess) -> dict[str, int]:
    (row,) = told(router, "check")["destinations"]
    return {word: count for word, count in row.items() if word != "destination" and count}


@pytest.mark.parametrize("lang", ["ru", "en"])
def test_what_status_and_sessions_show_fits_80_columns(router: RouterProcess, lang: str) -> None:
    """The bounds were one line of 170 columns, and the table of sessions cut off the time."""
    addresses = ("ipc://", "tcp://", str(router.folder))  # as long as they are
    with router.blocking("producer"):
        for command in ("status", "sessions"):
            shown = smpbus(router, command, "--lang", lang)
            assert shown.returncode == 0, shown.stderr
            lines = [
                line for line in shown.stdout.splitlines() if not any(a in line for a in addresses)
            ]
            assert max(map(len, lines)) <= 80, lines
            assert not any("…" in line for line in lines), lines


@pytest.mark.fault("A11")
@pytest.mark.parametrize("change", ["replay", "drop"])
def test_a_rehearsal_shows_the_letters_that_are_then_taken(
    router: RouterProcess, change: str
) -> None:
    """With --limit the rehearsal showed the newest letters, and the oldest were dropped."""
    asyncio.run(publish(router, "call-1", "call-2", "call-3", "call-4"))
    asyncio.run(take(router, 4, reject=True))
    chosen = ("dead", change, "--destination", "sink", "--limit", "2", "--reason", "ok")
    shown = {one["delivery"] for one in told(router, *chosen, "--dry-run")}
    told(router, *chosen)
    left = {one["delivery"] for one in told(router, "dead", "list")}
    assert shown == {1, 2, 3, 4} - left == {1, 2}


def test_dead_letters_are_shown_replayed_in_order_and_dropped(router: RouterProcess) -> None:
    asyncio.run(publish(router, "call-1", "call-2", "call-1", "call-3"))
    asyncio.run(take(router, 4, reject=True))
    letters = told(router, "dead", "list", "--destination", "sink")
    assert [(one["delivery"], one["subject"], one["reason"]) for one in letters] == [
        (1, "call-1", "HTTP 422"),
        (2, "call-2", "HTTP 422"),
        (3, "call-1", "HTTP 422"),
        (4, "call-3", "HTTP 422"),
    ]
    shown = smpbus(router, "dead", "list")
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "…" not in shown.stdout, "what the number is and why is what one looks for"

    chosen = ("dead", "replay", "--destination", "sink", "--subject", "call-1", "--reason", "ok")
    assert [one["delivery"] for one in told(router, *chosen, "--dry-run")] == [1, 3]
    assert books(router) == {"accepted": 4, "dead": 4}
    assert told(router, *chosen) == {"replayed": 2, "passed_over": 0}
    assert told(router, "dead", "drop", "2", "--reason", "дубль") == {
        "dropped": 1,
        "passed_over": 0,
    }
    assert books(router) == {"accepted": 4, "dead": 1, "dropped": 1, "open": 2}

    assert asyncio.run(take(router, 2)) == [(1, 1, 0), (3, 1, 2)]
    assert books(router) == {"accepted": 4, "settled": 2, "dead": 1, "dropped": 1}
    (first, _) = router.ask("trace", subject="call-1")["messages"]
    (delivery,) = first["deliveries"]
    assert delivery["state"] == "settled"
    assert [(one["outcome"], one["note"]) for one in delivery["history"]] == [("replayed", "ok")]
    (dropped,) = router.ask("trace", subject="call-2")["messages"]
    assert dropped["deliveries"][0]["note"] == "HTTP 422; дубль"
    assert "→ sink: списано: HTTP 422; дубль" in smpbus(router, "trace", "call-2").stdout
    assert "→ sink: возвращено в очередь: ok" in smpbus(router, "trace", "call-1").stdout


def test_what_was_replayed_survives_a_kill(router: RouterProcess) -> None:
    asyncio.run(publish(router, "call-1"))
    asyncio.run(take(router, 1, reject=True))
    told(router, "dead", "replay", "1", "--reason", "ok")
    router.kill()
    router.start()
    assert books(router) == {"accepted": 1, "open": 1}
    assert asyncio.run(take(router, 1)) == [(1, 1, 0)]


def test_letters_must_be_named_and_a_reason_given(router: RouterProcess) -> None:
    assert smpbus(router, "dead", "replay", "--reason", "ok").returncode == 64
    assert smpbus(router, "dead", "replay", "1").returncode == 64
    ended = smpbus(router, "dead", "drop", "4711", "--reason", "no such letter")
    assert ended.returncode == 1
    blank = smpbus(router, "dead", "drop", "1", "--reason", "  ")
    assert blank.returncode == 1
    assert "нужна причина" in blank.stderr


def test_a_held_destination_accepts_and_waits_even_through_a_restart(
    router: RouterProcess,
) -> None:
    assert told(router, "hold", "sink", "--reason", "работы")["hold"] == "работы"
    asyncio.run(publish(router, "call-1"))
    router.kill()
    router.start()
    assert router.ask("queues")["queues"][0]["hold"] == "работы"
    assert "выдача остановлена: работы" in smpbus(router, "queues").stdout

    async def wait_and_release() -> list[Any]:
        taking = asyncio.create_task(take(router, 1))
        await asyncio.to_thread(router.wait_until, "sessions", lambda a: a["sessions"])
        await asyncio.sleep(0.3)
        assert not taking.done()
        await asyncio.to_thread(told, router, "release", "sink")
        return await taking

    assert asyncio.run(wait_and_release()) == [(1, 1, 0)]
    assert smpbus(router, "hold", "nowhere", "--reason", "x").returncode == 1


def test_a_journal_at_rest_is_read_whole(router: RouterProcess) -> None:
    asyncio.run(publish(router, "call-1", "call-2"))
    asyncio.run(take(router, 1))
    busy = smpbus(router, "check", "--at-rest")
    assert busy.returncode == 75, "the running router holds the journal"
    router.stop()
    assert told(router, "check", "--at-rest") == {"wrong": []}
    journal = apsw.Connection(str(router.folder / "data" / "journal.db"))
    journal.execute("update message set raw = x'00' where n = 2")
    journal.execute("update total set count = count + 1 where state = 'settled'")
    journal.close()
    ended = smpbus(router, "check", "--at-rest")
    assert ended.returncode in (1, 74)
    assert "message 2 is damaged" in ended.stderr


def test_explain_says_what_publishing_would_do(router: RouterProcess, tmp_path: Path) -> None:
    file = tmp_path / "message.json"
    file.write_text('{"type": "test.message.v1"}')
    verdict = told(router, "route", "explain", str(file), "--name", "producer")[0]
    assert verdict["destinations"] == ["sink"]
    assert [one["mismatch"] for one in verdict["routes"]] == [""]
    file.write_text('{"type": "other.message.v1"}')
    ended = smpbus(router, "route", "explain", str(file), "--name", "producer")
    assert ended.returncode == 1
    assert "не вправе" in ended.stdout


def test_a_reason_is_a_code_in_the_journal_and_words_for_each_reader(router: RouterProcess) -> None:
    """It was a sentence in the language of the router, for whoever read it and whenever."""
    asyncio.run(publish(router, "call-1"))
    asyncio.run(take(router, 1, reject=True, reason=""))
    (letter,) = told(router, "dead", "list")
    assert letter["reason"] == "bus.rejected"
    for lang, words in (
        ("ru", "потребитель отказался принять"),
        ("en", "rejected by its consumer"),
    ):
        for command in (("dead", "list"), ("trace", "call-1")):
            shown = smpbus(router, *command, "--lang", lang).stdout
            assert words in " ".join(shown.split())
