#!/usr/bin/env bash
# libzmq 4.3.5 (pyzmq 27.3.0): binding an ipc:// path that another process serves takes the path over.
#
# Expected, as for tcp:// (EADDRINUSE) and as bind(2) itself does for an existing file: an error.
# Seen: bind succeeds, the file is a new socket, and the first server is reached by nobody any more. It
# gets no error and no monitor event. libzmq unlinks the path before it binds (ipc_listener).
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check pyzmq==27.3.0
venv/bin/python - <<'END'
import os, sys, zmq

context = zmq.Context()
first, second, client = (context.socket(kind) for kind in (zmq.PULL, zmq.PULL, zmq.PUSH))
for one in (first, second, client):
    one.setsockopt(zmq.LINGER, 0)
first.bind("tcp://127.0.0.1:*")
tcp = first.getsockopt_string(zmq.LAST_ENDPOINT)
try:
    second.bind(tcp)
    in_use = "bound as well"
except zmq.ZMQError as error:
    in_use = os.strerror(error.errno)

watching = first.get_monitor_socket()
first.bind("ipc://path.sock")
before = os.stat("path.sock").st_ino
while watching.poll(300):
    watching.recv_multipart()
second.bind("ipc://path.sock")  # the surprise: no error
after = os.stat("path.sock").st_ino
client.connect("ipc://path.sock")
client.send(b"who has it?")
got = {name: bool(one.poll(1000)) for name, one in (("first", first), ("second", second))}
told = bool(watching.poll(1000))
print(f"libzmq {zmq.zmq_version()}: second bind of {tcp}: {in_use}")
print(f"second bind of ipc://path.sock: no error; same file: {before == after}; reached: {got};")
print(f"first server's monitor said anything: {told}")
seen = (in_use, before == after, got, told)
sys.exit(seen != ("Address already in use", False, {"first": False, "second": True}, False))
END
echo "as described"
