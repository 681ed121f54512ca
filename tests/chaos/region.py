"""The house of a small region, with publishers and consumers of the campaign's own in it."""

import subprocess
import sys
from typing import Final

from proto import KeyPair
from tests.integration.house import House

PUBLISHERS: Final = ("chaos-north", "chaos-south")
CONSUMERS: Final = ("chaos-taker-1", "chaos-taker-2")
CONNECTORS: Final = ("smp", "sys112", "ats", "rmis")
SIMULATORS: Final = tuple(f"sim-{name}" for name in CONNECTORS)
OWN_ROUTE: Final = """
[destinations.chaos]
memory_mib = 1
backoff = { attempts_max = 1000000, first_ms = 50, longest_ms = 500 }
[[routes]]
type = "chaos.*"
to = ["chaos"]
"""


class Region(House):
    """All processes; the partners' simulators are the only ones that are never killed."""

    def __init__(self) -> None:
        super().__init__()
        for name in (*PUBLISHERS, "chaos-consumer"):
            KeyPair.new().save(self.folder / "keys", name)
        with (self.folder / "routes.toml").open("a", encoding="utf-8") as routes:
            routes.write(OWN_ROUTE)
        with (self.folder / "permissions.toml").open("a", encoding="utf-8") as permissions:
            for name in PUBLISHERS:
                permissions.write(f'\n[peers.{name}]\npublish = ["chaos.*"]\n')
            permissions.write('\n[peers.chaos-consumer]\nconsume = ["chaos"]\n')

    def start_all(self) -> None:
        """Start everything, the bus first."""
        super().start_all()
        self.start(*PUBLISHERS, *CONSUMERS)

    def start(self, *names: str) -> None:
        """See House.start; publishers and consumers are modules beside this one."""
        own = [name for name in names if name.startswith("chaos-")]
        super().start(*(name for name in names if name not in own))
        for name in own:
            role = "publisher" if name in PUBLISHERS else "consumer"
            address = f"ipc://{self.folder}/bus.sock"
            command = [sys.executable, "-m", f"tests.chaos.{role}"]
            command += [address, str(self.folder), name]
            with self.log_file(name).open("ab") as log:
                self.processes[name] = subprocess.Popen(command, stderr=log, stdout=log)

    def queue(self, name: str) -> dict[str, int]:
        """Return the row of a destination."""
        rows = self.ops("status")["queues"]
        return next((row for row in rows if row["destination"] == name), {})

    def is_drained(self, name: str) -> bool:
        """Whether nothing is open at a destination."""
        row = self.queue(name)
        return bool(row) and not (row["pending"] or row["in_flight"] or row["retrying"])
