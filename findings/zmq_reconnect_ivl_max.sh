#!/usr/bin/env bash
# libzmq 4.3.5 (pyzmq 27.3.0): ZMQ_RECONNECT_IVL_MAX does not act where the connection is taken and closed.
#
# Expected, after zmq_setsockopt(3): the pause before a reconnection doubles from ZMQ_RECONNECT_IVL up
# to ZMQ_RECONNECT_IVL_MAX. Seen: it does while nobody listens; where somebody accepts and closes (as a
# TCP proxy does while its backend is down) the pause begins anew with each connection, so a client
# comes back at 1 / ZMQ_RECONNECT_IVL for ever.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check pyzmq==27.3.0
venv/bin/python - <<'END'
import socket, sys, threading, time, zmq
from zmq.utils.monitor import parse_monitor_message

FIRST_MS, LONGEST_MS, WARM_S, WATCHED_S = 50, 1000, 4, 4


def attempts(port):
    """Attempts of one client in WATCHED_S, after WARM_S."""
    context = zmq.Context()
    client = context.socket(zmq.DEALER)
    client.setsockopt(zmq.LINGER, 0)
    client.setsockopt(zmq.RECONNECT_IVL, FIRST_MS)
    client.setsockopt(zmq.RECONNECT_IVL_MAX, LONGEST_MS)
    monitor = client.get_monitor_socket(zmq.EVENT_CONNECT_DELAYED)  # one at each attempt
    client.connect(f"tcp://127.0.0.1:{port}")
    begun, count = time.monotonic(), 0
    while (now := time.monotonic() - begun) < WARM_S + WATCHED_S:
        if monitor.poll(100):
            parse_monitor_message(monitor.recv_multipart())
            count += now >= WARM_S
    client.disable_monitor()
    client.close()
    return count


closing = socket.create_server(("127.0.0.1", 0))


def accept_and_close():
    while True:
        closing.accept()[0].close()


threading.Thread(target=accept_and_close, daemon=True).start()
with socket.create_server(("127.0.0.1", 0)) as free:
    nobody = free.getsockname()[1]
silent, taken = attempts(nobody), attempts(closing.getsockname()[1])
print(f"libzmq {zmq.zmq_version()}, IVL {FIRST_MS} ms, IVL_MAX {LONGEST_MS} ms, {WATCHED_S} s after")
print(f"{WARM_S} s: nobody listens: {silent} attempts; somebody accepts and closes: {taken}")
sys.exit(not (silent <= 2 * WATCHED_S and taken >= 5 * WATCHED_S))
END
echo "as described"
