"""No number that the bus gives means two things, whatever old copy of its journal it starts on."""

import asyncio
import lzma
import os
import shutil
import signal
from pathlib import Path

import pytest

from proto import frames
from proto.client import BusClient, Consumer, Delivery
from proto.message import Message
from router.core.delivery import State
from router.core.generations import Generations
from router.core.output import Batch
from router.store.sqlite import FILE, SqliteStore
from tests.crash.ledger import open_deliveries
from tests.integration.bus import RouterProcess
from tests.unit.test_store import batch_of

# A journal of version 2 at rest, with one delivery each that is settled, dead, retrying, out when
# the router stopped, and replayed.
OLD_JOURNAL = Path(__file__).with_name("journal-2.db.xz")
OLD_BUS = "75fc2301acc8"
CARDS = 12
WAIT_S = 20


def put_old_journal(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_bytes(lzma.decompress(OLD_JOURNAL.read_bytes()))


async def publish(router: RouterProcess, ids: list[str]) -> None:
    async with router.client("producer") as bus:
        for id in ids:
            await bus.publish(Message.new("test.card.v1", "producer", {}, subject=id, id=id))


async def take(bus: BusClient, count: int) -> list[Delivery]:
    """Return the next deliveries, not settled."""
    return await next_of(bus.consume("sink", credit=100), count)


async def next_of(consumer: Consumer, count: int) -> list[Delivery]:
    """Return the next deliveries of a consumer, not settled."""
    taken: list[Delivery] = []
    async with asyncio.timeout(WAIT_S):
        async for delivery in consumer:
            taken.append(delivery)
            if len(taken) == count:
                break
    return taken


async def work(router: RouterProcess, ids: list[str]) -> dict[str, str]:
    """Publish, take and settle; return the key of each message."""
    await publish(router, ids)
    async with router.client("consumer") as bus:
        taken = await take(bus, len(ids))
        for delivery in taken:
            delivery.ack("taken")
        await asyncio.sleep(0)
    router.wait_until("check", lambda books: not any(row["open"] for row in books["destinations"]))
    return {delivery.message.id: delivery.key for delivery in taken}


def cards(word: str) -> list[str]:
    return [f"{word}-{number}" for number in range(CARDS)]


def copy(router: RouterProcess, frozen: bool = False) -> Path:
    """Copy the journal's folder, of a running router as a snapshot of its disk would."""
    target = router.folder / "copy"
    if frozen:
        os.kill(router.pid, signal.SIGSTOP)
    shutil.copytree(router.folder / "data", target)
    if frozen:
        os.kill(router.pid, signal.SIGCONT)
    return target


def put_back(router: RouterProcess, copied: Path) -> None:
    shutil.rmtree(router.folder / "data")
    shutil.copytree(copied, router.folder / "data")


@pytest.mark.fault("A1")
@pytest.mark.parametrize("frozen", [False, True], ids=["stopped", "running"])
def test_a_restored_journal_gives_no_key_twice(frozen: bool) -> None:
    """Seen: a copy of the journal was put back, and twelve new cards got the keys of twelve old
    ones, so that partners answered what they had answered before. Right: no key comes twice."""
    with RouterProcess() as router:
        given = [asyncio.run(work(router, cards("before")))]
        if frozen:
            copied = copy(router, frozen=True)
        else:
            router.stop()
            copied = copy(router)
            router.start()
        given.append(asyncio.run(work(router, cards("lost"))))
        for life in range(2):
            router.stop()
            put_back(router, copied)
            router.start()
            given.append(asyncio.run(work(router, cards(f"life-{life}"))))
        keys = [key for life in given for key in life.values()]
        assert len(keys) == 4 * CARDS
        assert len(set(keys)) == len(keys)
        assert not router.ask("check")["wrong"]


@pytest.mark.fault("A1")
def test_the_epoch_grows_over_a_restored_journal() -> None:
    """Seen: `epoch` went back with the copy. Right: it grows with each start, as SPEC 4.2 says."""
    with RouterProcess() as router:
        epochs = [router.ask("status")["epoch"]]
        router.stop()
        copied = copy(router)
        for _ in range(2):
            router.start()
            epochs.append(router.ask("status")["epoch"])
            router.stop()
        put_back(router, copied)
        router.start()
        epochs.append(router.ask("status")["epoch"])
        assert epochs == sorted(set(epochs))


@pytest.mark.fault("A1")
def test_an_open_delivery_keeps_its_key_over_restarts() -> None:
    """A delivery that was open before a start has the key that it always had."""
    with RouterProcess() as router:
        asyncio.run(publish(router, ["card"]))

        async def look() -> str:
            async with router.client("consumer") as bus:
                (delivery,) = await take(bus, 1)
                return delivery.key

        keys = {asyncio.run(look())}
        for _ in range(2):
            router.kill()
            router.start()
            keys.add(asyncio.run(look()))
        assert len(keys) == 1


@pytest.mark.fault("A1")
def test_an_acknowledgement_from_another_life_settles_nothing() -> None:
    """A sibling: a consumer that outlives the restoring acknowledges what it took before; the same
    number is another card's now, which must not count as delivered for that, nor be passed over as
    one that the consumer holds already."""

    async def scene(router: RouterProcess) -> None:
        async with router.client("consumer") as bus:
            consumer = bus.consume("sink", credit=100)
            router.stop()
            copied = copy(router)
            router.start()
            await publish(router, ["old"])
            (old,) = await next_of(consumer, 1)
            router.kill()
            put_back(router, copied)
            router.start()
            await publish(router, ["new"])
            (new,) = await next_of(consumer, 1)
            assert (new.id, new.message.id) == (old.id, "new")
            old.ack("HTTP 200")
            await asyncio.sleep(0)
            await bus.publish(Message.new("test.done.v1", "consumer"))  # it is behind the ack
            assert router.ask("check")["destinations"][0]["settled"] == 0
            new.ack("HTTP 200")
            await asyncio.sleep(0)
            router.wait_until("check", lambda books: books["destinations"][0]["settled"] == 1)

    permissions = (
        '[peers.producer]\npublish = ["test.*"]\n'
        '[peers.consumer]\nconsume = ["sink"]\npublish = ["test.done.v1"]\n'
    )
    routes = (
        '[destinations.sink]\n[destinations.zeal]\n[[routes]]\ntype = "test.card.v1"\n'
        'to = ["sink"]\n[[routes]]\ntype = "test.done.v1"\nto = ["zeal"]\n'
    )
    with RouterProcess(permissions=permissions, routes=routes) as router:
        asyncio.run(scene(router))


@pytest.mark.fault("A1")
def test_a_journal_of_the_version_before_goes_on_with_its_keys() -> None:
    """What was accepted before there were generations keeps its key for ever; what is new is told
    apart from whatever another life of that journal gives."""
    with RouterProcess() as router:
        router.stop()
        shutil.rmtree(router.folder / "data")
        put_old_journal(router.folder / "data")
        router.start()
        wrong = router.ask("check")["wrong"]
        (letter,) = router.ask("dead")["letters"]
        assert (wrong, letter["subject"]) == ([], "golden-dead")
        router.ask("replay", subject="golden-dead", reason="again")

        async def keys(wanted: set[str]) -> dict[str, str]:
            found: dict[str, str] = {}
            async with router.client("consumer") as bus, asyncio.timeout(WAIT_S):
                async for delivery in bus.consume("sink", credit=100):
                    found[delivery.message.id] = delivery.key
                    if wanted <= found.keys():
                        break
            return found

        # The one that was retrying is out again or not, by the clock of the machine.
        known = {f"golden-{word}": f"{OLD_BUS}-{n}" for n, word in
                 ((2, "dead"), (3, "retrying"), (4, "open"), (5, "replayed"))}  # fmt: skip
        wanted = known.keys() - {"golden-retrying"}
        assert asyncio.run(keys(wanted)).items() <= known.items()
        router.kill()
        router.start()
        assert asyncio.run(keys(wanted)).items() <= known.items()
        traced = router.ask("trace", subject="R-2")  # a number by which others know it
        assert [hop["id"] for hop in traced["messages"]] == ["golden-retrying"]
        history = traced["messages"][0]["deliveries"][0]["history"]
        assert [one["note"] for one in history][:1] == ["HTTP 503"]

        async def new() -> str:
            await publish(router, ["golden-settled", "new"])  # the first one is a repeat
            return (await keys({"new"}))["new"]

        bus, generation, number = asyncio.run(new()).split("-")
        assert (bus, len(generation), number) == (OLD_BUS, 12, "7")


@pytest.mark.fault("A1")
def test_each_start_draws_a_generation_and_forgets_those_without_deliveries(
    tmp_path: Path,
) -> None:
    """A start that numbers nothing leaves no row: a night of restarts does not fill the table."""
    put_old_journal(tmp_path)
    for _ in range(5):
        store = SqliteStore(tmp_path)
        opened = store.open()
        store.close()
    ((first, word),) = opened.generations
    assert (first, len(word)) == (opened.next_delivery, 12)
    generations = Generations(opened.generations)
    assert (generations.of(first - 1), generations.of(first)) == ("", word)
    assert frames.key_of(OLD_BUS, 5, generations.of(5)) == f"{OLD_BUS}-5"


@pytest.mark.fault("A1")
def test_repeats_without_number_hide_no_later_message(tmp_path: Path) -> None:
    """A sibling: ten thousand repeats in a row moved the frontier beyond the last stored message;
    the next start numbered new messages below it, where the start after that did not look."""
    store = SqliteStore(tmp_path)
    store.open()
    store.write(batch_of(1, ["a"]))
    store.write(Batch(outcomes=[(1, 1, "sink", State.SETTLED, 1, 1, 1, None)], frontier=50_000))
    store.close()
    again = SqliteStore(tmp_path)
    opened = again.open()
    again.write(batch_of(opened.next_n, ["b"]))
    again.close()
    last = SqliteStore(tmp_path)
    last.open()
    assert [row.n for row in open_deliveries(last)] == [opened.next_n]
    assert last.verify() == []
