#!/usr/bin/env bash
# PgBouncer 1.18.0, PostgreSQL 15 (Debian 12): in transaction mode LISTEN is accepted, and what is notified goes to others.
#
# Known: LISTEN is of no use in transaction mode. Expected: an error, or that nothing comes. Seen: the answer
# is LISTEN as ever, the listener hears nothing, and a client that has never listened to anything gets the
# notification, with its contents, when it happens to be in a transaction on the server connection that the
# other one used. The server connection goes on listening after the listener has gone.
set -euo pipefail
PATH=$PATH:/usr/sbin
binaries=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
{ [ -n "$binaries" ] && command -v pgbouncer >/dev/null; } \
    || { echo "needs the packages postgresql and pgbouncer: apt-get install postgresql pgbouncer" >&2; exit 2; }
work=$(mktemp -d); cd "$work"
user=()
if [ "$(id -u)" = 0 ]; then  # PostgreSQL refuses to run as root
    chown postgres "$work"
    user=(setpriv --reuid=postgres --regid=postgres --init-groups)
fi
stop() {
    [ -z "${pooler:-}" ] || kill "$pooler" || true
    "${user[@]}" "$binaries/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1 || true
    cd / && rm -rf "$work"
}
trap stop EXIT
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check "psycopg[binary]==3.3.9"
read -r server port < <(python3 -c '
import socket
both = [socket.create_server(("127.0.0.1", 0)) for _ in "ab"]
print(*(one.getsockname()[1] for one in both))')
"${user[@]}" "$binaries/initdb" -A trust -U demo -D data >/dev/null
"${user[@]}" "$binaries/pg_ctl" -D data -w -l server.log -o "-p $server -h 127.0.0.1 -k $work" start >/dev/null
cat > pooler.ini <<END
[databases]
postgres = host=127.0.0.1 port=$server user=demo
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 1
END
"${user[@]}" "$(command -v pgbouncer)" -q "$work/pooler.ini" 2>pooler.log & pooler=$!
pgbouncer --version | head -1
venv/bin/python - "$server" "$port" <<'END'
import sys, time
import psycopg

server, pooler = sys.argv[1:]


def connect(port):
    for _ in range(100):
        try:
            return psycopg.connect(
                f"host=127.0.0.1 port={port} user=demo dbname=postgres", autocommit=True
            )
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise SystemExit("no connection")


direct, listener, other = connect(server), connect(pooler), connect(pooler)
said = listener.execute("LISTEN calls").statusmessage
with other.transaction():
    other.execute("SELECT 1")
    direct.execute("NOTIFY calls, 'call 4711'")
    other.execute("SELECT 1")
heard = {
    name: [note.payload for note in one.notifies(timeout=1)]
    for name, one in (("listener", listener), ("other", other))
}
print(f"LISTEN: {said}; heard: {heard}")
listener.close()
with other.transaction():
    other.execute("SELECT 1")
    direct.execute("NOTIFY calls, 'call 4712'")
    other.execute("SELECT 1")
after = [note.payload for note in other.notifies(timeout=1)]
print(f"after the listener has gone: {after}")
sys.exit((said, heard, after) != (
    "LISTEN", {"listener": [], "other": ["call 4711"]}, ["call 4712"]
))
END
echo "as described"
