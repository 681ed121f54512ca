#!/usr/bin/env bash
# libzmq 4.3.5 (pyzmq 27.3.0): binding tcp://ADDRESS:PORT opens a netlink socket, tcp://*:PORT does not.
#
# Before it reads the address as a number libzmq takes it for a possible name of a network interface and
# lists the interfaces (getifaddrs, so AF_NETLINK). Where a sandbox keeps AF_NETLINK out, such as
# RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX of systemd, the error is not returned by zmq_bind: an
# assertion of libzmq ends the process, while tcp://* and ipc:// go on working in the same sandbox. Shown
# here without a sandbox, by the system calls alone.
set -euo pipefail
command -v strace >/dev/null || { echo "needs the package strace: apt-get install strace" >&2; exit 2; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check pyzmq==27.3.0
netlinks() {
    strace -f -e trace=socket -o calls venv/bin/python -c \
        "import zmq; zmq.Context().socket(zmq.ROUTER).bind('$1')"
    grep -c AF_NETLINK calls || true
}
number=$(netlinks 'tcp://127.0.0.1:*')
star=$(netlinks 'tcp://*:*')
ipc=$(netlinks 'ipc://path.sock')
echo "netlink sockets at bind: tcp://127.0.0.1:* $number, tcp://*:* $star, ipc://path.sock $ipc"
[ "$number" -gt 0 ] && [ "$star" = 0 ] && [ "$ipc" = 0 ]
echo "as described"
