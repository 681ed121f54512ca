"""The good caller: System-112 hands in a card every half second, each on a new connection, and
repeats it until it is answered 2xx.

    python -m tests.siege.caller FOLDER

It ends when the file `stop` appears; a card that is not taken yet is still brought, for a while.
"""

import http.client
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

from connectors.simulators.demo.callers import token_of
from connectors.simulators.sys112.samples import day_of_cards
from tests.chaos.ledger import Ledger

EVERY_S: Final = 0.5
AGAIN_S: Final = 0.3
TIMEOUT_S: Final = 5.0
PATIENCE_S: Final = 20.0
CARDS: Final = 4000


def put(port: int, token: str, id112: str, body: dict[str, Any]) -> int:
    """Return the status of the answer, 0 when there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("PUT", f"/112/cards/{id112}", json.dumps(body),
                           {"content-type": "application/json",
                            "authorization": f"Bearer {token}"})  # fmt: skip
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def main() -> None:
    """Hand in cards until told to stop."""
    folder = Path(sys.argv[1])
    port = json.loads((folder / "siege.json").read_text(encoding="utf-8"))["ports"]["sys112_door"]
    token = token_of(folder, "sys112").read_text(encoding="ascii")
    ledger = Ledger(folder / "caller.ledger")
    samples = [one for one in day_of_cards(11, CARDS, malformed=False) if one.kind == "new"]
    stop = folder / "stop"
    for number, sample in enumerate(samples):
        if stop.exists():
            return
        began, tries, status = time.monotonic(), 0, 0
        body = sample.body
        while status // 100 != 2:
            tries += 1
            status = put(port, token, sample.id112, body)
            if status // 100 == 2:
                break
            if 400 <= status < 500 and status not in (408, 429):
                raise SystemExit(f"card {number} was refused with {status}")
            if stop.exists() and time.monotonic() - began > PATIENCE_S:
                raise SystemExit(f"card {number} was not taken in {tries} tries")
            time.sleep(AGAIN_S)
        ledger.add(card=sample.id112, began=began, ended=time.monotonic(), tries=tries)
        time.sleep(max(0.0, EVERY_S - (time.monotonic() - began)))


if __name__ == "__main__":
    main()
