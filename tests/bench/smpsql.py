"""`make bench-sql`: rows a second from an outbox to the router, and from the router to an inbox.

    python -m tests.bench.smpsql [--rows 20000] [--ended 1000000]

Everything is a process of its own: PostgreSQL, PgBouncer in transaction mode, router, connector.
First the tables are filled with rows that ended long ago. Prints each figure, and as its last line
one JSON object.
"""

import argparse
import json
import os
import platform
import statistics
import time

from proto import catalogue
from tests.integration.postgres import Postgres
from tests.integration.sqlhouse import STATUS, House
from tests.until import wait_for

SUBJECTS = 1000
CARD = catalogue.entry("incident.card.v1").example
ENDED = """
INSERT INTO smpbus.outbox (id, type, subject, priority, payload, bytes, state, ended_at)
SELECT 'old-' || n, 'call.status.v1', '112-' || n %% 5000, 1, %s::jsonb, 500, 'accepted', now()
FROM generate_series(1, %s) n
"""
PUBLISH = """
SELECT count(smpbus.publish('call.status.v1', '112-' || n %% %s, %s::jsonb))
FROM generate_series(1, %s) n
"""


def _out(house: House, rows: int) -> float:
    """Publish rows while the connector stands still; return rows a second once it goes."""
    house.pause()
    house.vendor.execute(PUBLISH, (SUBJECTS, json.dumps(STATUS), rows))
    before = house.ask("status")["counters"]["accepted"]
    begun = time.monotonic()
    house.resume()
    wait_for(lambda: not house.waiting(), "the outbox to be empty")
    took_s = time.monotonic() - begun
    assert house.ask("status")["counters"]["accepted"] - before == rows
    return rows / took_s


def _in(house: House, rows: int) -> float:
    """Fill the queue while the connector stands still; return rows a second once it goes."""
    assert house.connector is not None
    house.end_connector()
    house.send_cards([f"112-{n % SUBJECTS}" for n in range(rows)])
    house.start_connector()
    wait_for(lambda: house.queue("ambulance")["settled"], "the first")
    first, begun = house.queue("ambulance")["settled"], time.monotonic()
    wait_for(lambda: not house.pending("ambulance"), "all")
    return (rows - first) / (time.monotonic() - begun)


def _latency_ms(house: House, times: int) -> float:
    """Return the median from a lone commit to the router's disk."""
    found = []
    accepted = house.ask("status")["counters"]["accepted"]
    for n in range(times):
        begun = time.monotonic()
        house.publish("112-1", f"lone-{begun}")
        while house.ask("status")["counters"]["accepted"] == accepted + n:
            time.sleep(0.001)
        found.append((time.monotonic() - begun) * 1000)
        time.sleep(0.1)
    return statistics.median(found)


def main() -> None:
    """Measure both ways, and how soon a lone row is seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.smpsql")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--ended", type=int, default=1_000_000)
    asked = parser.parse_args()
    print(f"settings: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python"
          f" {platform.python_version()}, rows of 500 B, {SUBJECTS} subjects, fsync of PostgreSQL"
          f" off, {asked.ended:,} ended rows in the outbox", flush=True)  # fmt: skip
    result: dict[str, float] = {}
    with Postgres() as postgres:
        for heard in (False, True):
            with House(postgres, poll_s=0.5, heard=heard, batch_rows=500) as house:
                house.owner.execute(ENDED, (json.dumps(STATUS), asked.ended))
                house.start_connector()
                wait_for(lambda house=house: house.ask("status")["sessions"], "the session")  # type: ignore[misc]
                time.sleep(1)
                name = "lone_row_heard_ms" if heard else "lone_row_polled_ms"
                result[name] = round(_latency_ms(house, 20), 1)
                if heard:
                    result["out_per_s"] = round(_out(house, asked.rows))
                    result["in_per_s"] = round(_in(house, asked.rows))
                    result["poll_blocks"] = house.blocks_of_a_poll()
            print(result, flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
