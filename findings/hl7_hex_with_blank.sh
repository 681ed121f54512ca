#!/usr/bin/env bash
# hl7 0.4.5 (python-hl7): escape() writes a line feed as "\X a\": a blank in place of a hexadecimal digit.
#
# HL7 v2 (chapter 2.7.6) wants pairs of hexadecimal digits, \X0A\. Seen: every character below 16 (line feed,
# tab) is written with a blank before its one digit. The library reads that itself, so that a round trip
# shows nothing; a partner's reader that holds to the standard finds no hexadecimal there.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check hl7==0.4.5
venv/bin/python - <<'END'
import re, sys
from importlib.metadata import version
import hl7

message = hl7.parse("MSH|^~\\&|A|B|C|D|20261130101500||ORU^R01^ORU_R01|1|P|2.5\r")
written = {text: message.escape(text) for text in ("one\ntwo", "one\ttwo", "one\x1ftwo")}
own = {text: message.unescape(escaped) == text for text, escaped in written.items()}
standard = {text: bool(re.search(r"\\X([0-9A-Fa-f]{2})+\\", word)) for text, word in written.items()}
print(f"hl7 {version('hl7')}: written: {written}; by the standard: {list(standard.values())};")
print(f"read by itself: {list(own.values())}")
sys.exit(
    list(written.values())[:2] != ["one\\X a\\two", "one\\X 9\\two"]
    or list(standard.values()) != [False, False, True]
    or not all(own.values())
)
END
echo "as described"
