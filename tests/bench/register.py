"""A register of the insurance fund: `make bench-register ARGS="--cases 200000 --data folder"`.

A real `smpbus register build` of made-up cases; its memory is what the kernel says of the process.
With the fund's schemas at hand (`--data`, as for `make test-contracts`) both files are validated.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from lxml import etree

from tests.integration.bus import SMPBUS
from tests.unit.connectors.tfoms_cases import write_cases

MEMORY_MB_MAX = 300
SCHEMAS = {"H": "OMS-D1-1-NEW.xsd", "L": "OMS-D2-NEW.xsd"}
COMMON = ["--period", "2026-11", "--facility", "990101", "--payer", "99001"]


def main() -> int:
    """Build a register, print what it took; return 1 when that is too much or it is not valid."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.register", description=__doc__)
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--data", type=Path, help="folder of the partners' data: validate as well")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="smpbus-") as folder:
        return measure(Path(folder), asked.cases, asked.data)


def measure(folder: Path, count: int, data: Path | None) -> int:
    """Build a register of `count` cases in a folder."""
    print(f"making up {count:,} cases", flush=True)
    cases = write_cases(folder / "cases.jsonl", count)
    command = [SMPBUS, "register", "build", str(cases), *COMMON, "--profile", "extended"]
    command += ["--out", str(folder), "--ledger", str(folder / "billed.db")]
    began = time.monotonic()
    building = subprocess.Popen(command)
    _, status, used = os.wait4(building.pid, 0)
    took_s = time.monotonic() - began
    building.returncode = os.waitstatus_to_exitcode(status)
    memory_mb = used.ru_maxrss * 1024 / 1e6
    print(f"built in {took_s:.0f} s, {count / took_s:,.0f} cases a second; "
          f"memory {memory_mb:.0f} MB at most (allowed: {MEMORY_MB_MAX})")  # fmt: skip
    good = building.returncode == 0 and memory_mb < MEMORY_MB_MAX
    if data is not None and building.returncode == 0:
        good &= are_valid(folder, data, count)
    print("OK" if good else "FAILED")
    return 0 if good else 1


def are_valid(folder: Path, data: Path, count: int) -> bool:
    """Whether both files of the archive are valid and every case is in the register."""
    (archive,) = folder.glob("*.ZIP")
    good = True
    with zipfile.ZipFile(archive) as opened:
        for name in opened.namelist():
            with opened.open(name) as file:
                document = etree.parse(file, etree.XMLParser(huge_tree=True))
            schema = etree.XMLSchema(etree.parse(data / "tfoms" / SCHEMAS[name[0]]))
            valid = schema.validate(document)
            whole = name[0] != "H" or len(document.findall("{*}ZAP")) == count
            print(
                f"{name}: {'valid' if valid else 'NOT VALID'}, {'whole' if whole else 'NOT WHOLE'}"
            )
            good &= valid and whole
    return good


if __name__ == "__main__":
    sys.exit(main())
