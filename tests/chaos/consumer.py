"""A consumer that may be killed at any time: it notes each delivery before it acknowledges it.

    python -m tests.chaos.consumer ADDRESS FOLDER NAME

One delivery in fifty is given back once.
"""

import sys
import time
from pathlib import Path

from proto import BlockingBusClient
from tests.chaos.ledger import Ledger

CREDIT = 40
TIMEOUT_S = 20.0
GIVEN_BACK = 50
AFTER_S = 0.05


def main() -> None:
    """Consume until killed."""
    address, folder, name = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    ledger = Ledger(folder / f"{name}.ledger")
    keys = folder / "keys"
    with BlockingBusClient(address, name="chaos-consumer", key=keys / "chaos-consumer.key",
                           server_key=keys / "router.pub", timeout_s=TIMEOUT_S) as bus:  # fmt: skip
        for delivery in bus.consume("chaos", credit=CREDIT):
            message, body = delivery.message, delivery.message.json()
            assert isinstance(body, dict)
            back = delivery.attempt == 1 and delivery.delivery % GIVEN_BACK == 0
            ledger.add(at=time.monotonic_ns(), delivery=delivery.delivery, id=message.id,
                       subject=message.subject, number=body["number"], back=back)  # fmt: skip
            if back:
                bus.retry(delivery, "once more", AFTER_S)
            else:
                bus.ack(delivery)


if __name__ == "__main__":
    main()
