"""A client in another language: PHP with Debian's php-zmq, from the specification alone."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from bus import RouterProcess

SCRIPT = Path(__file__).parents[1] / "php" / "client.php"
ROUTES = (
    "[destinations.php]\n[destinations.watch]\n"
    '[[routes]]\ntype = "php.*"\nto = ["php", "watch"]\n'
    '[[routes]]\ntype = "test.*"\nto = ["php"]\n'
)
PERMISSIONS = (
    '[peers.php]\npublish = ["php.*"]\nconsume = ["php"]\n'
    '[peers.python]\npublish = ["test.*"]\nconsume = ["watch"]\n'
)


def run_client(router: RouterProcess) -> list[dict[str, Any]]:
    """Run the script to its end; return what it told."""
    php = shutil.which("php")
    assert php, "php is not installed: apt-get install php-cli php-zmq, or run make test"
    ended = subprocess.run(
        [php, str(SCRIPT), router.address, "php", str(router.keys)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    return [json.loads(line) for line in ended.stdout.splitlines()]


async def publish_and_watch(router: RouterProcess) -> tuple[list[dict[str, Any]], list[Any]]:
    """Publish one message for PHP, let PHP run, and take what it published."""
    async with router.client("python") as bus:
        await bus.publish(bus.message("test.message.v1", {"text": "от Python"}, id="python-1"))
        told = await asyncio.to_thread(run_client, router)
        watched = []
        async for delivery in bus.consume("watch"):
            watched.append((delivery.message.id, delivery.message.json()))
            delivery.ack()
            if len(watched) == 3:
                break
    return told, watched


def test_php_greets_publishes_consumes_settles_and_leaves() -> None:
    peers = ("php", "python")
    with RouterProcess(peers=peers, routes=ROUTES, permissions=PERMISSIONS) as router:
        told, watched = asyncio.run(publish_and_watch(router))
        status = router.wait_until(
            "status", lambda s: not s["open"] and all(q["settled"] for q in s["queues"])
        )
    assert told[0] == {"what": "welcome", "version": 1, "as": "php"}
    assert told[1] == {"what": "error", "code": "bad_frame", "verb": "HELLO"}
    assert told[2] == {"what": "accepted", "batches": [1]}
    assert told[-1] == {"what": "bye", "acknowledged": 4}

    delivered = [one for one in told if one["what"] == "delivered"]
    first = delivered[0]
    repeat = next(one for one in delivered[1:] if one["id"] == first["id"])
    assert (first["attempt"], repeat["attempt"]) == (1, 2)
    assert first["key"] == repeat["key"], "the idempotency key is the same at every attempt"
    own = [one["body"]["status"] for one in delivered if one["source"] == "php"]
    assert list(dict.fromkeys(own)) == ["принят", "назначен", "завершён"]
    assert {"text": "от Python"} in [one["body"] for one in delivered]

    statuses = ["принят", "назначен", "завершён"]
    assert watched == [(f"php-{n}", {"status": status}) for n, status in enumerate(statuses)]
    assert status["counters"]["retried"] == 1
    assert [(row["destination"], row["settled"]) for row in status["queues"]] == [
        ("php", 4),
        ("watch", 3),
    ]
