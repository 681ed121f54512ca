#!/usr/bin/env bash
# apsw 3.54.1.0: a statement of 16,384 bytes or more is prepared anew at each execution.
#
# Expected: the cache of prepared statements helps most where parsing is dearest, with long statements. Seen:
# it leaves out all that are not shorter than 16 KiB, without a word; an INSERT of many rows that grows by
# one row may lose its preparation. (connection.cache_stats() counts them: too_big.)
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check apsw==3.54.1.0
venv/bin/python - <<'END'
import sys
import apsw

TIMES = 50
database = apsw.Connection(":memory:")
database.execute("create table calls (number)")
base = "insert into calls values"


def kept(length):
    """How often of TIMES a statement of so many bytes was found prepared."""
    rows = ",".join(["(1)"] * ((length - len(base)) // 4))
    sql = (base + rows).ljust(length)
    before = database.cache_stats()["hits"]
    for _ in range(TIMES):
        database.execute(sql)
    return database.cache_stats()["hits"] - before


seen = {length: kept(length) for length in (16_000, 16_383, 16_384, 20_000)}
print(f"apsw {apsw.apsw_version()}: found prepared, of {TIMES} executions, by length: {seen}")
sys.exit(seen != {16_000: TIMES - 1, 16_383: TIMES - 1, 16_384: 0, 20_000: 0})
END
echo "as described"
