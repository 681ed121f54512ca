"""What it costs at a door to ask who calls: requests a second with and without the guard.

    python -m tests.bench.door [--requests 4000] [--rounds 5]

One process serves the same small app three times: as it is, behind the guard of an open door, and
behind the guard of a door with four callers of two tokens each. Each is asked in turns over eight
connections. Prints the median requests a second and processor time of a request (client and server
together); the last line is one JSON object, in which 1.0 is the app without a guard.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from connectors.runtime.door.callers import Callers, Guard, scope_by
from connectors.runtime.door.doorsettings import CallerSettings
from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.door.token import make_token
from tests.ports import free_ports

CONNECTIONS = 8
CALLERS = 4
BODY = b'{"status":"taken"}'


async def take(request: Request) -> Response:
    """Read a body, and answer as a door does."""
    await request.body()
    return Response(b'{"accepted":true}', 202, None, "application/json")


def guarded(app: ASGIApp, folder: Path) -> tuple[ASGIApp, str]:
    """Return the app behind callers, and a token of the last of them."""
    settings, token = {}, ""
    for number in range(CALLERS):
        file = folder / f"caller{number}.token"
        for _ in range(2):
            token = make_token(file, "add" if file.exists() else None)
        settings[f"caller{number}"] = CallerSettings(token_file=file, scopes=("cards",))
    scopes = {"/cards": "cards", "/figures": "figures"}
    callers = Callers(settings, set(scopes.values()), "bench")
    return Guard(app, callers, scope_by(scopes), ()), token


async def ask(port: int, token: str, count: int) -> None:
    """Ask so many times, one after the other, over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /cards HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(BODY)}\r\n"
    if token:
        head += f"Authorization: Bearer {token}\r\n"
    request = f"{head}\r\n".encode() + BODY
    for _ in range(count):
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 202"):
            raise SystemExit(f"the door answers {answer[:40]!r}")
        await reader.readexactly(int(answer.lower().split(b"content-length: ")[1].split(b"\r")[0]))
    writer.close()
    await writer.wait_closed()


async def measure(requests: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Return requests a second and microseconds of a request for each door."""
    app = Starlette(routes=[Route("/cards", take, methods=["POST"])])
    with tempfile.TemporaryDirectory() as folder:
        behind, token = guarded(app, Path(folder))
        doors: dict[str, tuple[ASGIApp, str]] = {
            "no guard": (app, ""),
            "open": (Guard(app, None, scope_by({}), ()), ""),
            "four callers": (behind, token),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in doors}
        servers = []
        try:
            ports = dict(zip(doors, free_ports(len(doors)), strict=True))
            for name, (one, _) in doors.items():
                server = HttpServer(one, bind(f"127.0.0.1:{ports[name]}", "bench"))
                await server.start()
                servers.append(server)
            for number in range(rounds + 1):  # the first warms up
                for name, (_, shown) in doors.items():
                    began, cpu = time.perf_counter(), time.process_time()
                    each = requests // CONNECTIONS
                    await asyncio.gather(
                        *(ask(ports[name], shown, each) for _ in range(CONNECTIONS))
                    )
                    took, used = time.perf_counter() - began, time.process_time() - cpu
                    count = each * CONNECTIONS
                    if number:
                        found[name].append((count / took, used / count * 1e6))
        finally:
            for server in servers:
                await server.stop()
    return {
        name: (statistics.median(one[0] for one in rows), statistics.median(one[1] for one in rows))
        for name, rows in found.items()
    }


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.door")
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    found = uvloop.run(measure(asked.requests, asked.rounds))
    print(f"{asked.rounds} rounds of {asked.requests} requests, {CONNECTIONS} connections, medians")
    for name, (per_s, us) in found.items():
        print(f"{name:<14} {per_s:8.0f} requests/s {us:8.1f} us of processor a request")
    bare = found["no guard"]
    ratios = {
        name: {"requests_per_s": round(per_s / bare[0], 3), "cpu": round(us / bare[1], 3)}
        for name, (per_s, us) in found.items()
    }
    print(json.dumps(ratios))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
