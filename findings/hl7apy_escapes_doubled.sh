#!/usr/bin/env bash
# hl7apy 1.3.5: a line break in a text becomes the letters "\.br\" for whoever reads what it has written.
#
# HL7 v2 (chapter 2.7) writes a line break within formatted text as \.br\ and any byte as \Xhh\. Expected: a
# message that is read and written again says the same. Seen: hl7apy knows \F\ \S\ \T\ \R\ \E\ \H\ \N\ only;
# of any other sequence it takes the backslashes for text and escapes them, \.br\ -> \E\.br\E\. The next
# system shows the letters ".br" between backslashes in place of a line break.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check hl7apy==1.3.5
venv/bin/python - <<'END'
import sys
from importlib.metadata import version
from hl7apy.parser import parse_segment

seen = {
    text: parse_segment(f"OBX|1|FT|||{text}||||||F").to_er7().split("|")[5]
    for text in (r"one\.br\two", r"one\X0D\two", r"one\T\two", r"\H\one\N\ two")
}
print(f"hl7apy {version('hl7apy')}: a text, and what it is when read and written again: {seen}")
sys.exit(seen != {
    r"one\.br\two": r"one\E\.br\E\two",
    r"one\X0D\two": r"one\E\X0D\E\two",
    r"one\T\two": r"one\T\two",
    r"\H\one\N\ two": r"\H\one\N\ two",
})
END
echo "as described"
