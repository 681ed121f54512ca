"""A publisher that may be killed at any time: it notes what it will publish, and what was accepted.

    python -m tests.chaos.publisher ADDRESS FOLDER NAME

After a death it first publishes again, under the same ids, what it never heard of. It ends when
the file `stop` appears in its folder and all it ever noted was accepted.
"""

import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random

from proto import BlockingBusClient, Message
from proto.errors import NotConnected
from proto.identifiers import new_id
from proto.message import now_ms
from tests.chaos.ledger import Ledger, read

SUBJECTS = 12
BATCH_MAX = 20
PAUSE_S = 0.005
TIMEOUT_S = 20.0  # then it asks again; the campaign kills far more often
TYPE = "chaos.message.v1"


def _message(name: str, intent: dict[str, object]) -> Message:
    return Message.new(TYPE, name, {"number": intent["number"]}, id=str(intent["id"]),
                       subject=str(intent["subject"]), priority=2)  # fmt: skip


def _pending(path: Path) -> tuple[list[dict[str, object]], int]:
    """Return what was noted and not accepted, in order, and the next number."""
    noted: dict[str, dict[str, object]] = {}
    number = 0
    for line in read(path):
        if "accepted" in line:
            for id in line["accepted"]:
                noted.pop(id, None)
        else:
            noted[line["id"]] = line
            number = max(number, line["number"] + 1)
    return list(noted.values()), number


def _batches(name: str, ledger: Ledger, path: Path, stop: Path) -> Iterator[list[Message]]:
    pending, start = _pending(path)
    if pending:
        yield [_message(name, intent) for intent in pending]
    random, numbers = Random(), count(start)
    while not stop.exists():
        batch = []
        for _ in range(random.randint(1, BATCH_MAX)):
            number = next(numbers)
            intent = {"id": new_id(), "number": number, "subject": f"{name}-{number % SUBJECTS}"}
            ledger.add(**intent)
            batch.append(_message(name, intent))
        yield batch


def main() -> None:
    """Publish until told to stop."""
    address, folder, name = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    path = folder / f"{name}.ledger"
    ledger = Ledger(path)
    keys = folder / "keys"
    with BlockingBusClient(address, name=name, key=keys / f"{name}.key",
                           server_key=keys / "router.pub", timeout_s=TIMEOUT_S) as bus:  # fmt: skip
        for batch in _batches(name, ledger, path, folder / "stop"):
            while batch:
                try:
                    results = bus.publish_many(batch)
                except NotConnected:
                    continue
                taken = [one for one, refused in zip(batch, results, strict=True) if not refused]
                ledger.add(accepted=[one.id for one in taken], at=now_ms())
                batch = [one for one, refused in zip(batch, results, strict=True) if refused]
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
