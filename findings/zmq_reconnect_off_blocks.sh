#!/usr/bin/env bash
# libzmq 4.3.5 (pyzmq 27.3.0): with ZMQ_RECONNECT_IVL = -1 a DEALER cannot send once its connection ended.
#
# Expected, after zmq_setsockopt(3) ("-1 means no reconnection"): no reconnection; a message that is sent
# meanwhile waits or is dropped, as while a connection is being made again. Seen: with the connection its
# pipe goes, a DEALER without a pipe blocks in zmq_send, without a time limit unless ZMQ_SNDTIMEO is set.
# Whoever paces attempts to connect by himself, and so switches libzmq's off, has to send with
# ZMQ_DONTWAIT and to take EAGAIN for "not connected".
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check pyzmq==27.3.0
venv/bin/python - <<'END'
import sys, time, zmq
from zmq.utils.monitor import parse_monitor_message


def after_the_end(ivl):
    """What a DEALER's send does after its only connection has ended."""
    context = zmq.Context()
    server, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    for one in (server, client):
        one.setsockopt(zmq.LINGER, 0)
    client.setsockopt(zmq.RECONNECT_IVL, ivl)
    client.setsockopt(zmq.SNDTIMEO, 2000)
    server.bind("tcp://127.0.0.1:*")
    monitor = client.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    client.connect(server.getsockopt_string(zmq.LAST_ENDPOINT))
    client.send(b"before")
    server.recv_multipart()
    server.close()
    assert monitor.poll(10_000) and parse_monitor_message(monitor.recv_multipart())
    time.sleep(0.5)  # the event comes a little before the pipe goes
    try:
        client.send(b"after")
        return "queued"
    except zmq.Again:
        return "blocked until SNDTIMEO"
    finally:
        client.disable_monitor()
        client.close()


seen = {ivl: after_the_end(ivl) for ivl in (100, -1)}
print(f"libzmq {zmq.zmq_version()}: send after the end, by ZMQ_RECONNECT_IVL: {seen}")
sys.exit(seen != {100: "queued", -1: "blocked until SNDTIMEO"})
END
echo "as described"
