#!/usr/bin/env bash
# hl7apy 1.3.5: parse_message() loses Z segments, without a word.
#
# HL7 v2 gives segments of one's own the letter Z, and a reader that does not know them has to let them
# pass. Expected: they are in the message, as with find_groups=False. Seen: with the usual find_groups=True
# a Z segment is not in the tree and not in to_er7(), at the end of a message or within a group; every
# other segment is. What a partner says in its own segments (here: which ambulance call it is about) does
# not exist for the program that reads it.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check hl7apy==1.3.5
venv/bin/python - <<'END'
import sys
from importlib.metadata import version
from hl7apy.parser import parse_message

ADMITTED = (
    "MSH|^~\\&|MIS|CLINIC|BUS|REGION|20261130101500||ADT^A01^ADT_A01|1|P|2.5\r"
    "EVN|A01|20261130101500\rPID|1||4711\rPV1|1|E\rZSM|1|call-4711\r"
)
RESULT = (
    "MSH|^~\\&|LAB|CLINIC|BUS|REGION|20261130101500||ORU^R01^ORU_R01|1|P|2.5\r"
    "PID|1||4711\rOBR|1|||718-7\rOBX|1|NM|718-7||141\rZSM|1|call-4711\rOBX|2|NM|718-8||5\r"
)


def names(message, **options):
    return [line[:3] for line in parse_message(message, **options).to_er7().split("\r") if line]


usual = (names(ADMITTED), names(RESULT))
flat = (names(ADMITTED, find_groups=False), names(RESULT, find_groups=False))
print(f"hl7apy {version('hl7apy')}: read and written again: {usual}")
print(f"with find_groups=False: {flat}")
sys.exit(
    usual != (["MSH", "EVN", "PID", "PV1"], ["MSH", "PID", "OBR", "OBX", "OBX"])
    or flat != ([*usual[0], "ZSM"], ["MSH", "PID", "OBR", "OBX", "ZSM", "OBX"])
)
END
echo "as described"
