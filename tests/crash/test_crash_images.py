"""The crash campaign in short: every scenario, every place in the store that calls the system."""

import math

import pytest

from router.store.sqlite import SqliteStore
from tests.crash import broken
from tests.crash.campaign import Place, Tally, explore, recorded, replay
from tests.crash.disk import Disk
from tests.crash.scenarios import SCENARIOS
from tests.crash.sweep import SWEPT, Harvest, cases, sweep, touching
from tests.crash.wreck import KEPT, LOST, WAYS, Fate, Platter, fates

IMAGES_MIN = 5_000
SEED = 20
WEIGHTS = sum(scenario.weight for scenario in SCENARIOS.values())
# They ask for what the statements before have just brought into SQLite's cache.
NEVER_FROM_DISK = {"_find_duplicates", "_find_imbalance"}
# It saves what it can of a journal that somebody has removed: tests/faults/test_disk_room.py.
# What was told about dead letters: lost, it is told once more (tests/security/test_retention.py).
NO_PROMISE = {"rescue", "note", "noted"}


def share(name: str) -> int:
    """Return how many images of a scenario are looked at."""
    return math.ceil(IMAGES_MIN * SCENARIOS[name].weight / WEIGHTS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_power_loss_takes_or_breaks_anything(name: str) -> None:
    tally = explore(name, SEED, share(name))
    assert tally.violations == []
    assert tally.images == share(name)
    assert tally.points > 40


def test_there_are_enough_of_them() -> None:
    assert len(SCENARIOS) >= 8
    assert sum(map(share, SCENARIOS)) >= IMAGES_MIN


@pytest.fixture(scope="module")
def harvest() -> Harvest:
    """One failure of each kind at every place in the store that calls the system."""
    harvest = Harvest()
    seen: set[object] = set()
    for name in SWEPT:
        harvest.add(sweep(name, SEED, list(cases(name, SEED, seen))))
    return harvest


def test_no_failed_call_takes_or_breaks_anything(harvest: Harvest) -> None:
    assert harvest.violations == []
    assert harvest.errors > 300


def test_every_function_that_calls_the_system_has_met_a_failure(harvest: Harvest) -> None:
    contract = {
        "open",
        "filed",
        "recent",
        "_load",
        "write",
        "_numbers",
        "_tell",
        "_dead_at",
        "tidy",
        "prune",
        "size_bytes",
        "close",
    }
    assert touching() >= contract | {"_create", "_connect", "_recover", "_sync_folder"}
    assert touching() - harvest.functions <= NEVER_FROM_DISK | NO_PROMISE


def test_nothing_is_accepted_over_a_log_that_could_not_be_written(harvest: Harvest) -> None:
    logged = {
        (site, answer)
        for site, answer in harvest.hit
        if site.stack[-1][0] in {"write", "tidy", "prune"}
        and site.file.endswith("-wal")
        and site.kind in {"write", "sync"}
    }
    assert len(logged) >= 6
    assert {site for site, answer in logged if answer == "none"} == set()


# -- whether it would find anything ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("store", "name", "kind"),
    [
        (broken.SyncsCheckpointsOnly, "steady", "lost"),
        (broken.SyncsCheckpointsOnly, "checkpoint", "lost"),
        (broken.NeverSyncs, "steady", "lost"),
        (broken.NeverSyncs, "checkpoint", "corrupt"),
        (broken.BornInPlace, "birth", "corrupt"),
        (broken.WritesTwice, "steady", "corrupt"),
        (broken.TrustsTheLog, "failed-sync", "lost"),
    ],
)
def test_a_broken_store_is_found_out(store: type[SqliteStore], name: str, kind: str) -> None:
    tally = Tally()
    for seed in range(12):
        tally.add(explore(name, seed, 300, store, stop_at=100))
        if tally.kinds[kind]:
            break
    assert tally.kinds[kind]
    place, text = tally.violations[-1]
    assert str(place) in f"--scenario {name} --seed {place.seed} {place}"
    assert text.startswith(("lost: ", "corrupt: "))


def test_a_store_that_accepts_over_a_failure_is_found_out() -> None:
    writing = list(cases("steady", SEED))[-200::9]  # when it is past its birth
    found = sweep("steady", SEED, writing, broken.SaysYes)
    assert found.violations


# -- the harness itself ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["steady", "restart", "recovery", "failed-sync"])
def test_a_run_is_the_same_each_time(name: str) -> None:
    logs = []
    for _ in range(2):
        with recorded(name, SEED) as stage:
            logs.append([(op.kind, op.inode, op.offset, len(op.data)) for op in stage.log])
    assert logs[0] == logs[1]
    *_, last = replay(Place(name, SEED, len(logs[0]) // 2, 7))
    assert last == "as promised"


def test_what_is_synced_stays_and_the_rest_may_go() -> None:
    disk = Disk()
    old = disk.create("old")
    disk.write(old, 0, b"a" * 1024)
    disk.sync(old)
    disk.sync_folder()
    disk.write(old, 512, b"b" * 1024)
    disk.rename("old", "new")
    platter = Platter({}).replay(disk.log)
    assert [op.kind for op in platter.waiting] == ["write", "rename"]
    for fated, files in (
        ([LOST, LOST], {"old": b"a" * 1024}),
        ([KEPT, LOST], {"old": b"a" * 512 + b"b" * 1024}),
        ([LOST, KEPT], {"new": b"a" * 1024}),
        ([Fate(0b10), KEPT], {"new": b"a" * 1024 + b"b" * 512}),
    ):
        assert platter.image(fated, None) == files
    assert disk.files() == {"new": b"a" * 512 + b"b" * 1024}
    disk.detach()


def test_a_file_that_was_synced_without_its_name_may_be_gone() -> None:
    disk = Disk()
    inode = disk.create("a")
    disk.write(inode, 0, b"x")
    disk.sync(inode)
    platter = Platter({}).replay(disk.log)
    assert platter.image([LOST], None) == {}
    assert platter.image([KEPT], None) == {"a": b"x"}
    disk.detach()


def test_there_is_a_fate_for_every_change_in_every_way() -> None:
    with recorded("checkpoint", SEED) as stage:
        platter = Platter(stage.born)
        for upto in range(40, 60):
            platter = Platter(stage.born).replay(stage.log[:upto])
            if platter.waiting:
                break
        for variant in range(2 * len(WAYS)):
            place = Place("checkpoint", SEED, 40, variant)
            fated = fates(platter.waiting, variant, place.chance())
            assert len(fated) == len(platter.waiting) > 0
