"""Two buses and the connector between them, as processes, over CURVE and TCP.

Every route is as naive as can be: everything goes to the sink and to every other bus. The sinks are
read when all is quiet, so that what is counted is what the routers accepted.
"""

import asyncio
import os
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

from proto.keys import KeyPair
from proto.message import Message
from tests.integration.bus import SMPBUS, RouterProcess
from tests.integration.wire import Wire
from tests.ports import free_port
from tests.until import wait_for

PATIENCE_S = 60.0
BACKOFF = "backoff = { attempts_max = 1000000, first_ms = 100, longest_ms = 500 }\n"
PARTNER = """
[connectors.replication]
listen = "127.0.0.1:{figures}"
destination = "{queue}"
[connectors.replication.partner]
url = "{url}"
system = "Шина {name}"
name = "{name}"
key = "keys/replication.key"
server_key = "{name}.pub"
destination = "{there}"
"""


def routes(*queues: str, sink: str = "") -> str:
    """Everything goes everywhere."""
    tables = "".join(f"[destinations.{queue}]\n{BACKOFF}" for queue in queues)
    names = ", ".join(f'"{name}"' for name in ("sink", *queues))
    return f'[destinations.sink]\n{sink}{tables}[[routes]]\ntype = "test.*"\nto = [{names}]\n'


def permissions(**consumes: str) -> str:
    """A producer, a reader, and a relay for each queue."""
    told = '[peers.producer]\npublish = ["*"]\n[peers.reader]\nconsume = ["sink"]\n'
    for name, queue in consumes.items():
        told += f'[peers.{name}]\npublish = ["*"]\nconsume = ["{queue}"]\nrelay = ["*"]\n'
    return told


class Node(RouterProcess):
    """One bus, and the connector that joins it to another one."""

    def __init__(self, name: str, **told: Any) -> None:
        self.name = name
        self.port = free_port()
        super().__init__(
            peers=("producer", "reader", "replication"), tcp=f"tcp://127.0.0.1:{self.port}", **told
        )
        self.connector_log = self.folder / "connector.log"
        self.connector: subprocess.Popen[bytes] | None = None

    def join(
        self, other: "Node", queue: str, name: str, port: int, *, there: str = "",
        known: bool = True,
    ) -> None:  # fmt: skip
        """Make the connector's table: `queue` here, `there` there, where we are `name`; `known`:
        our key is there."""
        shutil.copy(other.keys / "router.pub", self.folder / f"{name}.pub")
        if known:
            self.make_known(other, name)
        url = f"tcp://127.0.0.1:{port}"
        table = PARTNER.format(figures=free_port(), queue=queue, url=url, name=name, there=there)
        self.config.write_text(self.config.read_text() + table)

    def make_known(self, other: "Node", name: str) -> None:
        shutil.copy(self.keys / "replication.pub", other.keys / f"{name}.pub")

    def start_connector(self) -> None:
        command = [SMPBUS, "connector", "replication", "--config", str(self.config)]
        with self.connector_log.open("ab") as log:
            self.connector = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | {"SMPBUS_LANG": "ru"}
            )

    def end_connector(self, *, kill: bool = False) -> int:
        assert self.connector is not None
        process, self.connector = self.connector, None
        (process.kill if kill else process.terminate)()
        return process.wait(20)

    def check(self) -> "subprocess.CompletedProcess[str]":
        command = [SMPBUS, "connector", "replication", "--check", "--config", str(self.config)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60,
            env=os.environ | {"SMPBUS_LANG": "ru"},
        )  # fmt: skip

    def __exit__(self, *told: Any) -> None:
        if self.connector is not None:
            self.end_connector(kill=True)
        if told[1] is not None and self.connector_log.exists():
            print(self.connector_log.read_text())
        super().__exit__(*told)

    def queue(self, name: str) -> dict[str, int]:
        rows = self.ask("status")["queues"]
        return next((row for row in rows if row["destination"] == name), {"pending": 0})

    def open(self, *queues: str) -> int:
        """How many deliveries to these queues are not settled, dead or expired."""
        states = ("pending", "in_flight", "retrying")
        return sum(self.queue(name).get(state, 0) for name in queues for state in states)

    async def publish(self, messages: list[Message], pause_s: float = 0.0) -> None:
        async with self.client("producer") as bus:
            for start in range(0, len(messages), 50):
                assert not any(await bus.publish_many(messages[start : start + 50]))
                await asyncio.sleep(pause_s)

    async def read_sink(self, count: int) -> list[Message]:
        """Take everything that the sink holds, which must be `count` messages."""
        async with self.client("reader") as bus:
            taken = []
            async with asyncio.timeout(PATIENCE_S):
                async for delivery in bus.consume("sink", credit=500):
                    taken.append(delivery.message)
                    delivery.ack()
                    if len(taken) == count:
                        break
        return taken


def made(prefix: str, count: int, subjects: int = 50) -> list[Message]:
    return [
        Message.new("test.message.v1", "producer", {"n": n}, subject=f"{prefix}-{n % subjects}",
                    id=f"{prefix}/{n}" if "2" in prefix else f"{n}")
        for n in range(count)
    ]  # fmt: skip


def numbers(messages: list[Message]) -> dict[str, list[int]]:
    """What came of each subject, in order."""
    found = defaultdict(list)
    for message in messages:
        found[message.subject].append(message.json()["n"])  # type: ignore[index]
    return found


def wanted(*published: list[Message]) -> dict[str, list[int]]:
    return numbers([message for part in published for message in part])


class Pair:
    """The substation, the network, and the central bus."""

    def __init__(self, stack: ExitStack, *, known: bool = True, central: str = "") -> None:
        self.central = Node(
            "central", routes=central or routes("north"), permissions=permissions(north="north")
        )
        self.north = Node(
            "north",
            routes=routes("central"),
            permissions=permissions(replication="central"),
        )
        self.wire = Wire(self.central.port)
        self.north.join(self.central, "central", "north", self.wire.port, known=known)
        for part in (self.central, self.north, self.wire):
            stack.enter_context(part)

    def wait_quiet(self, sinks: int) -> None:
        """Until both sinks hold so many, and nothing is on its way from one to the other."""
        ways = ((self.north, "central"), (self.central, "north"))

        def quiet() -> bool:
            there = all(node.queue("sink")["pending"] >= sinks for node, _ in ways)
            return there and not any(node.open(queue) for node, queue in ways)

        wait_for(quiet, f"{sinks} in both sinks: {[n.ask('status')['queues'] for n, _ in ways]}")

    def check(self, *published: list[Message]) -> None:
        """Both sinks hold everything, each once, in the order of its subject."""
        count = sum(len(part) for part in published)
        for node in (self.north, self.central):
            assert node.queue("sink")["pending"] == count
            assert numbers(asyncio.run(node.read_sink(count))) == wanted(*published)
            assert node.queue("sink")["dead"] == 0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def test_both_ways_whole_and_never_back(stack: ExitStack) -> None:
    """Routes send everything to the other bus, also what came from there."""
    pair = Pair(stack)
    north, central = pair.north, pair.central
    north.start_connector()
    out, home = made("out", 200), made("home", 200)
    whole = Message.new(
        "test.message.v1", "producer", {"n": 0}, subject="whole", priority=0,
        correlation_id="c-1", traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        expires=9_000_000_000_000,
    )  # fmt: skip
    asyncio.run(north.publish([*out, whole]))
    asyncio.run(central.publish(home))
    pair.wait_quiet(401)
    totals = [node.ask("status")["counters"] for node in (north, central)]
    assert [one["accepted"] for one in totals] == [401, 401]
    assert [one["duplicates"] for one in totals] == [0, 0]

    taken = asyncio.run(central.read_sink(401))
    bus = north.ask("status")["bus"]
    (came,) = [message for message in taken if message.subject == "whole"]
    assert came.source == f"{bus}.producer"
    assert came == msgspec.structs.replace(whole, source=came.source)
    # Both producers used the same ids, and neither swallowed the other's.
    assert numbers(taken) == wanted(out, [whole], home)
    assert numbers(asyncio.run(north.read_sink(401))) == wanted(out, [whole], home)
    assert north.end_connector() == 0


def outages(node: Node) -> tuple[int, int]:
    """How often the connector told that the link is down, and that it is up again."""
    log = node.connector_log.read_text()
    return log.count("Unable to complete network request"), log.count("снова отвечает: неудачных")


def test_a_broken_link_is_waited_for(stack: ExitStack) -> None:
    """2,000 messages of 50 subjects, while the network is cut, and while it swallows."""
    pair = Pair(stack)
    north, central = pair.north, pair.central
    north.start_connector()
    first = [made("out", 100), made("home", 100)]
    asyncio.run(north.publish(first[0]))
    asyncio.run(central.publish(first[1]))
    pair.wait_quiet(200)

    async def both(out: list[Message], home: list[Message]) -> None:
        await asyncio.gather(north.publish(out, 0.05), central.publish(home, 0.05))

    out, home = made("out2", 1000), made("home2", 1000)
    pair.wire.be("cut")
    asyncio.run(both(out[:500], home[:500]))
    wait_for(lambda: outages(north)[0] == 1, "the line that the link is down")
    assert north.open("central") == 500  # they wait where they were accepted
    assert central.open("north") == 500
    assert north.end_connector() == 0  # an orderly end and a start, while nobody is there
    north.start_connector()
    wait_for(lambda: outages(north) == (2, 0), "the line of the new process")
    pair.wire.be("carries")
    wait_for(lambda: outages(north) == (2, 1), "the line that it is up")

    async def flapping() -> None:
        published = asyncio.create_task(both(out[500:], home[500:]))
        for mode in ("swallows", "carries", "cut", "carries", "swallows"):
            await asyncio.sleep(0.2)
            await asyncio.to_thread(pair.wire.be, mode)
        await published

    asyncio.run(flapping())
    wait_for(lambda: outages(north)[0] == 3, "the line that the link is down again")
    pair.wire.be("carries")
    pair.wait_quiet(2200)
    pair.check(*first, out, home)
    wait_for(lambda: outages(north) == (3, 2), "the line that it is up again")
    for queue, node in (("central", north), ("north", central)):
        assert node.queue(queue)["dead"] == 0


def test_lost_answers_double_nothing(stack: ExitStack) -> None:
    """The centre has it on disk, and the substation never heard: it says it again."""
    pair = Pair(stack)
    north, central = pair.north, pair.central
    north.start_connector()
    first, out = made("out", 1), made("out2", 40)
    asyncio.run(north.publish(first))
    pair.wait_quiet(1)
    pair.wire.be("loses answers")
    asyncio.run(north.publish(out))
    wait_for(lambda: central.queue("sink")["pending"] == 41, "all at the centre")
    assert north.open("central") == 40
    pair.wire.be("carries")
    wait_for(lambda: not north.open("central"), "the answers")
    assert central.ask("status")["counters"]["duplicates"] == 40
    assert numbers(asyncio.run(central.read_sink(41))) == wanted(first, out)


def test_what_began_here_is_known_before_the_own_router_is_there(stack: ExitStack) -> None:
    pair = Pair(stack)
    north, central = pair.north, pair.central
    central.ask("hold", destination="north", reason="until the own router is away")
    north.start_connector()
    out = made("out", 20)
    asyncio.run(north.publish(out))
    wait_for(lambda: central.queue("sink")["pending"] == 20 and not north.open("central"), "20")
    assert north.end_connector() == 0
    north.kill()
    north.start_connector()
    central.ask("release", destination="north")
    wait_for(lambda: central.queue("north")["in_flight"] == 20, "all in the connector's hands")
    north.start()
    pair.wait_quiet(20)
    pair.check(out)
    assert central.queue("north")["dead"] == 0


def test_kill_9_of_either_router_and_of_the_connector(stack: ExitStack) -> None:
    pair = Pair(stack)
    north, central = pair.north, pair.central
    north.start_connector()
    out, home = made("out", 1000), made("home", 1000)

    def strike() -> None:
        for blow in range(6):
            time.sleep(0.4)
            if blow % 3 == 0:
                north.end_connector(kill=True)
                north.start_connector()
            else:
                node = north if blow % 3 == 1 else central
                node.kill()
                node.start()

    async def work() -> None:
        await asyncio.gather(
            north.publish(out, 0.1), central.publish(home, 0.1), asyncio.to_thread(strike)
        )

    asyncio.run(work())
    pair.wait_quiet(2000)
    pair.check(out, home)
    assert north.end_connector() == 0


def test_three_buses_in_a_ring(stack: ExitStack) -> None:
    """Each reaches each by two ways, and everything goes everywhere: once, and it ends."""
    after = {"a": "b", "b": "c", "c": "a"}  # whose connector joins whom
    nodes = {}
    for name, after_me in after.items():
        before_me = after[after_me]
        rights = permissions(**{"replication": after_me, f"from-{before_me}": before_me})
        nodes[name] = Node(name, routes=routes(after_me, before_me), permissions=rights)
    for name, node in nodes.items():
        other = nodes[after[name]]
        node.join(other, other.name, f"from-{name}", other.port, there=name)
    for node in nodes.values():
        stack.enter_context(node)
    published = {name: made(name, 60, subjects=6) for name in nodes}
    for node in nodes.values():
        node.start_connector()
    for name, node in nodes.items():
        asyncio.run(node.publish(published[name]))

    def quiet() -> bool:
        return all(
            node.queue("sink")["pending"] == 180
            and not node.open(*(other for other in nodes if other != node.name))
            for node in nodes.values()
        )

    wait_for(quiet, "180 in each sink")
    for node in nodes.values():
        taken = asyncio.run(node.read_sink(180))
        assert numbers(taken) == wanted(*published.values())
        assert node.ask("status")["counters"]["dead"] == 0


def test_what_the_other_bus_refuses(stack: ExitStack) -> None:
    """For good: a dead letter with the code. For now: it waits, and the others with it."""
    wider = routes("central") + '[[routes]]\ntype = "other.*"\nto = ["central"]\n'
    whole = "open_max = 10\nemergency_percent = 0\nsender_percent = 100\n"
    small = routes("north", sink=whole).replace(', "north"]', "]")
    pair = Pair(stack, central=small)
    north, central = pair.north, pair.central
    (north.folder / "routes.toml").write_text(wider)
    north.ask("reload")
    north.start_connector()
    nowhere = Message.new("other.message.v1", "producer", {"n": 1}, subject="nowhere")
    asyncio.run(north.publish([nowhere, *made("out", 30, subjects=30)]))
    wait_for(lambda: north.queue("central")["dead"] == 1, "a dead letter")
    (letter,) = north.ask("dead", destination="central")["letters"]
    assert "no_route" in letter["reason"]
    wait_for(lambda: central.queue("sink")["pending"] == 10, "ten there")
    wait_for(lambda: north.queue("central")["retrying"] == 20, "twenty waiting")
    taken = asyncio.run(central.read_sink(30))
    assert sorted(message.json()["n"] for message in taken) == list(range(30))  # type: ignore[index]
    assert north.queue("central")["dead"] == 1


def test_a_link_that_is_not_let_in_yet(stack: ExitStack) -> None:
    """It says what is missing, once, and comes up by itself when it is there."""
    pair = Pair(stack, known=False)
    north, central = pair.north, pair.central
    refused = north.check()
    assert refused.returncode == 69
    assert "не принимает" in refused.stderr
    north.start_connector()
    out = made("out", 20)
    asyncio.run(north.publish(out))
    wait_for(lambda: "не принимает north" in north.connector_log.read_text(), "the line")
    north.make_known(central, "north")
    central.ask("reload")
    wait_for(lambda: "снова принимает north" in north.connector_log.read_text(), "the link")
    pair.wait_quiet(20)
    assert north.connector_log.read_text().count("не принимает") == 1

    good = north.check()
    assert (good.returncode, good.stderr) == (0, "")
    for node, queue in ((north, "central"), (central, "north")):
        assert f"{node.ask('status')['bus']} по адресу" in good.stdout
        assert f"даёт очередь {queue}" in good.stdout
    permission = central.folder / "permissions.toml"
    permission.write_text(permission.read_text().replace('consume = ["north"]', "consume = []"))
    central.ask("reload")
    wrong = north.check()
    assert wrong.returncode == 69
    assert "не даёт очередь north: not_permitted" in wrong.stderr
    permission.write_text(permission.read_text().replace("consume = []", 'consume = ["north"]'))
    central.ask("reload")
    asyncio.run(central.publish(made("home", 20)))
    pair.wait_quiet(40)
    log = north.connector_log.read_text()
    assert log.count(f"не даёт очередь tcp://127.0.0.1:{pair.wire.port} north: not_permitted") == 1


def test_both_ends_on_one_bus_is_a_wrong_setting(stack: ExitStack) -> None:
    node = stack.enter_context(
        Node("one", routes=routes("one"), permissions=permissions(replication="one", other="one"))
    )
    node.join(node, "one", "other", node.port, known=False)
    KeyPair.new().save(node.keys, "other")  # else it would be told that the key has another name
    node.config.write_text(node.config.read_text().replace("replication.key", "other.key"))
    node.ask("reload")
    node.start_connector()
    process = node.connector
    assert process is not None
    assert process.wait(30) == 78
    assert "одна и та же шина" in node.connector_log.read_text()
