#!/usr/bin/env bash
# httpx 0.28.1 (httpcore 1.0.9, anyio 4.16.0): a TLS alert after the handshake is no httpx.HTTPError.
#
# Expected, as httpx documents ("HTTPError: base class for RequestError and HTTPStatusError", raised by a
# request): with a server that wants a client certificate, httpx.ReadError. Seen: with httpx.Client it is;
# with httpx.AsyncClient ssl.SSLError comes out as it is. In TLS 1.3 the client's side of the handshake is
# over before the server has looked at the certificate, so the refusal comes with the first read.
set -euo pipefail
command -v openssl >/dev/null || { echo "needs the package openssl: apt-get install openssl" >&2; exit 2; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check httpx==0.28.1 httpcore==1.0.9 anyio==4.16.0
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost 2>/dev/null
venv/bin/python - <<'END'
import asyncio, socket, ssl, sys, threading, time
import httpcore, httpx

wanting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
wanting.load_cert_chain("cert.pem", "key.pem")
wanting.load_verify_locations("cert.pem")
wanting.verify_mode = ssl.CERT_REQUIRED
listening = socket.create_server(("127.0.0.1", 0))


def serve(connection):
    kept = connection.dup()  # the alert is on its way: a closed connection could overtake it
    try:
        wanting.wrap_socket(connection, server_side=True)
    except ssl.SSLError:
        time.sleep(5)
    finally:
        kept.close()


def listen():
    while True:
        threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()


threading.Thread(target=listen, daemon=True).start()
url = f"https://localhost:{listening.getsockname()[1]}/"
trusting = ssl.create_default_context(cafile="cert.pem")


async def ask_asynchronously():
    async with httpx.AsyncClient(verify=trusting) as client:
        await client.get(url)


def ask():
    with httpx.Client(verify=trusting) as client:
        client.get(url)


seen = {}
for name, way in (("Client", ask), ("AsyncClient", lambda: asyncio.run(ask_asynchronously()))):
    try:
        way()
    except Exception as error:
        kind = type(error)
        seen[name] = (f"{kind.__module__}.{kind.__name__}", isinstance(error, httpx.HTTPError))
print(f"httpx {httpx.__version__}, httpcore {httpcore.__version__}: raised, and is it an HTTPError: {seen}")
sys.exit(seen != {"Client": ("httpx.ReadError", True), "AsyncClient": ("ssl.SSLError", False)})
END
echo "as described"
