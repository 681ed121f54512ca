#!/usr/bin/env bash
# pystrix 1.3.0: of several lines of one key in an AMI packet only the last is kept.
#
# Asterisk repeats keys: each channel variable of an event is a line ChanVariable of its own, and so is each
# line of a command's output (Output, since Asterisk 14). Expected: all of them, as panoramisk 1.4 gives.
# Seen: the last one. Which variables are lost depends on their order; of a listing of a whole exchange
# its last line arrives, and looks like all there is.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check pystrix==1.3.0 panoramisk==1.4
venv/bin/python -W ignore - <<'END'
import socket, sys, threading
from importlib.metadata import version
from panoramisk.message import Message
from pystrix.ami import Manager
from pystrix.ami.core import Command

# What Asterisk 22 says to `Action: Command`, `Command: core show hints`.
LISTING = [
    "Response: Success", "ActionID: {id}", "Message: Command output follows",
    "Output: 201@from-internal: PJSIP/201 State:Idle", "Output: 202@from-internal: PJSIP/202 State:InUse",
    "Output: 2 hints registered",
]
listening = socket.create_server(("127.0.0.1", 0))


def exchange():
    connection = listening.accept()[0]
    connection.sendall(b"Asterisk Call Manager/9.0.0\r\n")
    with connection.makefile("r", newline="\r\n") as reader:
        asked = {}
        for line in reader:
            key, _, value = line.strip().partition(": ")
            asked[key] = value
            if not key:
                packet = "\r\n".join(LISTING).format(id=asked["ActionID"])
                connection.sendall(f"{packet}\r\n\r\n".encode())
                asked = {}


threading.Thread(target=exchange, daemon=True).start()
manager = Manager()
manager.connect("127.0.0.1", listening.getsockname()[1])
answer = manager.send_action(Command("core show hints")).result
seen = answer["Output"]
other = Message.from_line("\r\n".join(LISTING))["Output"]
print(f"pystrix {version('pystrix')}: {seen!r}; panoramisk {version('panoramisk')}: {len(other)} lines")
sys.stdout.flush()
import os
os._exit((seen, answer.data, len(other)) != ("2 hints registered", [], 3))
END
echo "as described"
