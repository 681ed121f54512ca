#!/usr/bin/env bash
# msgspec 0.22.0: the last tenth of a microsecond of a day is read as the next day, of a time as 00:00.
#
# RFC 3339 and XML Schema allow any number of digits after the seconds; .NET writes seven, so its end of a
# day is 23:59:59.9999999, and its "for ever" 9999-12-31T23:59:59.9999999. Expected, as of Python's own
# fromisoformat: the digits beyond a microsecond are cut off. Seen: they are rounded. The end of a year
# becomes the next year, the time of day 23:59:59.9999999 becomes 00:00:00, a day less, and "for ever" is
# refused as no RFC 3339.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check msgspec==0.22.0
venv/bin/python - <<'END'
import sys
from datetime import datetime, time
import msgspec


def read(text, type):
    try:
        return str(msgspec.convert(text, type))
    except msgspec.ValidationError as error:
        return str(error)


year = read("2026-12-31T23:59:59.9999999Z", datetime)
clock = read("23:59:59.9999999", time)
ever = read("9999-12-31T23:59:59.9999999Z", datetime)
# Python 3.11 and newer read seven digits.
own = str(datetime.fromisoformat("2026-12-31T23:59:59.9999999+00:00"))
print(f"msgspec {msgspec.__version__}: the end of 2026: {year}; of a day: {clock}; for ever: {ever}")
print(f"datetime.fromisoformat: {own}")
sys.exit((year, clock, ever, own) != (
    "2027-01-01 00:00:00+00:00", "00:00:00", "Invalid RFC3339 encoded datetime",
    "2026-12-31 23:59:59.999999+00:00",
))
END
echo "as described"
