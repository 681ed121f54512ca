#!/usr/bin/env bash
# httpcore 1.0.9 (under httpx 0.28.1): what a request costs grows faster than the number of idle connections.
#
# Expected: a pool keeps connections in order to save time, so that with more of them a request is not
# slower. Seen: around each request every connection is asked whether it is closed, expired and idle, with a
# system call for those that are idle, and for each idle one all of them are counted again. With some
# hundred, as after a burst, a request takes ten times as much processor time and more, in the thread of
# the loop, until `keepalive_expiry` has closed them.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check httpcore==1.0.9 anyio==4.16.0 h11==0.16.0
venv/bin/python - <<'END'
import asyncio, sys, time
import httpcore

FEW, MANY, REQUESTS = 5, 200, 50


async def answer(reader, writer):
    while await reader.readline():
        while (await reader.readline()).strip():
            pass
        if not gate.is_set():
            waiting.append(None)
            await gate.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    writer.close()


async def cost(url, connections):
    """Processor milliseconds of one request beside so many idle connections."""
    gate.clear()
    waiting.clear()
    limits = {"max_connections": connections, "max_keepalive_connections": connections}
    async with httpcore.AsyncConnectionPool(**limits) as pool:
        burst = [asyncio.create_task(pool.request("GET", url)) for _ in range(connections)]
        while len(waiting) < connections:
            await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(*burst)
        assert len(pool.connections) == connections
        begun = time.process_time()
        for _ in range(REQUESTS):
            await pool.request("GET", url)
        return (time.process_time() - begun) / REQUESTS * 1000


async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=MANY)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    costs = await cost(url, FEW), await cost(url, MANY)
    await asyncio.sleep(0.5)  # the server's ends of the connections
    return costs


gate, waiting = asyncio.Event(), []
few, many = asyncio.run(main())
print(f"httpcore {httpcore.__version__}: processor time of a request: {few:.1f} ms beside {FEW} idle")
print(f"connections, {many:.1f} ms beside {MANY}: {many / few:.0f} times as much")
sys.exit(many < 5 * few)
END
echo "as described"
