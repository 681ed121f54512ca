"""One attacker: a process of its own, bounded in time, memory and rank.

    python -m tests.siege.attacker FOLDER NAME SECONDS

NAME is one of `ATTACKERS`. It ends by itself when the time is over, or at SIGTERM.
"""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.siege import busattacks, httpattacks, opsattacks
from tests.siege.battlefield import Field

MEMORY_BYTES: Final = 3 * 1024**3  # of addresses, most of them never used
NICE: Final = 10  # a foreign machine would not take our processor
GRACE_S: Final = 3
READY: Final = "ready"
Attacker = Callable[[Field], None]
ATTACKERS: Final[dict[str, Attacker]] = {
    function.__name__: function
    for module in (busattacks, httpattacks, opsattacks)
    for function in vars(module).values()
    if callable(function) and getattr(function, "attacks", False)
}


def main() -> None:
    """Attack."""
    folder, name, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.alarm(int(seconds) + GRACE_S)
    told = json.loads((folder / "siege.json").read_text(encoding="utf-8"))
    print(READY, flush=True)
    field = Field(folder, told["ports"], told["token"], tuple(told["connectors"]),
                  time.monotonic() + seconds)  # fmt: skip
    try:
        ATTACKERS[name](field)
    finally:
        print(json.dumps({"attacker": name, **field.done}), flush=True)
        os._exit(0)  # nothing of libzmq's is to be waited for


if __name__ == "__main__":
    main()
