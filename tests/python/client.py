"""The client library as an integrator has it, alone: publish, consume, ask, over CURVE.

    python -I client.py ADDRESS KEYS_FOLDER

Run by the interpreter of an environment that holds smpbus-client and what that needs, and beside it
proto-plus, which is imported as `proto`. Every step is a JSON line on stdout.
"""

import asyncio
import json
import sys
from pathlib import Path

from smpbus_client import BlockingBusClient, BusClient, KeyFileError, KeyPair, Message, Refused
from smpbus_client.catalogue import entry

ADDRESS, KEYS = sys.argv[1], Path(sys.argv[2])


def tell(what: str, **facts: object) -> None:
    """Print one step."""
    print(json.dumps({"what": what, **facts}), flush=True)


def options(name: str) -> dict[str, object]:
    """Return how a peer of this name connects."""
    return {"name": name, "key": KEYS / f"{name}.key", "server_key": KEYS / "router.pub"}


def publish_and_ask() -> None:
    """Do what a script does."""
    with BlockingBusClient(ADDRESS, **options("producer")) as bus:
        told = [bus.message("test.call.v1", {"n": n}, subject="112-1") for n in range(3)]
        refused = bus.publish_many([*told, bus.message("other.call.v1", {})])
        tell("published", refused=[one.code if one else None for one in refused])
        answer = bus.request("sink", bus.message("test.question.v1", {"n": 20}), timeout_s=10)
        tell("answered", body=json.loads(answer.body))
        try:
            bus.publish(bus.message("other.call.v1", {}))
        except Refused as refusal:
            tell("refused", code=refusal.code)


async def answer_question(message: Message) -> dict[str, int]:
    """Answer with one more."""
    return {"n": message.json()["n"] + 1}


async def consume_and_answer() -> None:
    """Do what a service does, while the script runs."""
    async with BusClient(ADDRESS, **options("consumer")) as bus:
        bus.serve("sink", answer_question)
        script = asyncio.create_task(asyncio.to_thread(publish_and_ask))
        seen = []
        async for delivery in bus.consume("sink"):
            seen.append(delivery.message.json()["n"])
            delivery.ack("taken")
            if len(seen) == 3:
                break
        await script
        tell("consumed", seen=seen, key=bool(delivery.key))


asyncio.run(consume_and_answer())
tell("catalogue", example=entry("call.status.v1").name)
try:
    KeyPair.load(KEYS / "router.pub.none")
except KeyFileError as error:
    tell("key file", said=str(error).partition(": ")[2])
loaded = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
# What compiled modules leave there, and what Debian loads into every program.
others = ("__", "_cython", "cython", "sitecustomize")
tell("loaded", modules=sorted(name for name in loaded if not name.startswith(others)))

import proto  # noqa: E402  # the neighbour, whose name it is

tell("neighbour", file=str(Path(proto.__file__).parent.name), marks=hasattr(proto, "RepeatedField"))
