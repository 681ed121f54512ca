"""The connections under the HTTP client, against a server that counts them and cuts them off."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from connectors.runtime.http import HttpClient, Unreachable

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n"


class Counting:
    """A server of its own: answers "ok", and knows how many connections there are."""

    def __init__(self) -> None:
        self.opened = 0
        self.open = 0
        self.most = 0
        self.served = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self.cut_idle = False
        self.server: asyncio.Server | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            while await reader.readline():
                while (await reader.readline()).strip():
                    pass
                await self.hold.wait()
                self.served += 1
                writer.write(HEAD + b"\r\nok")
                await writer.drain()
                if self.cut_idle:
                    break
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()


def play(
    act: Callable[[Counting, HttpClient], Awaitable[None]], connections_max: int = 4, **told: float
) -> Counting:
    async def whole() -> Counting:
        counting = Counting()
        server = await asyncio.start_server(counting.serve, "127.0.0.1", 0)
        counting.server = server
        port = server.sockets[0].getsockname()[1]
        base = f"http://127.0.0.1:{port}"
        async with HttpClient(base, connections_max=connections_max, **told) as client:
            await act(counting, client)
        for _ in range(100):
            if not counting.open:
                break
            await asyncio.sleep(0.01)
        server.close()
        return counting

    return asyncio.run(whole())


def test_one_after_another_share_a_connection() -> None:
    async def act(_: Counting, client: HttpClient) -> None:
        for _ in range(20):
            assert (await client.request("GET", "/")).body == b"ok"

    counting = play(act)
    assert (counting.served, counting.opened, counting.open) == (20, 1, 0)


def test_many_at_once_keep_within_the_limit_and_all_are_answered() -> None:
    async def act(_: Counting, client: HttpClient) -> None:
        answers = await asyncio.gather(*(client.request("GET", "/") for _ in range(50)))
        assert {answer.body for answer in answers} == {b"ok"}

    counting = play(act)
    assert (counting.served, counting.most, counting.opened) == (50, 4, 4)


def test_who_finds_no_room_in_time_hears_of_it_and_room_comes_back() -> None:
    async def act(counting: Counting, client: HttpClient) -> None:
        counting.hold.clear()
        first = asyncio.create_task(client.request("GET", "/"))
        await asyncio.sleep(0.05)
        with pytest.raises(Unreachable, match="timeout"):
            await client.request("GET", "/")
        counting.hold.set()
        with pytest.raises(Unreachable, match="timeout"):
            await first
        assert (await client.request("GET", "/")).body == b"ok"

    play(act, 1, timeout_s=0.2)


def test_who_gives_up_leaves_room_for_the_next() -> None:
    async def act(counting: Counting, client: HttpClient) -> None:
        for _ in range(10):
            counting.hold.clear()
            asking = [asyncio.create_task(client.request("GET", "/")) for _ in range(4)]
            await asyncio.sleep(0.02)
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            counting.hold.set()
            assert (await client.request("GET", "/")).body == b"ok"

    assert play(act, 2).open == 0


def test_a_connection_that_the_partner_closed_is_not_used_again() -> None:
    async def act(counting: Counting, client: HttpClient) -> None:
        counting.cut_idle = True
        for _ in range(10):
            assert (await client.request("GET", "/")).body == b"ok"
            await asyncio.sleep(0.01)

    assert play(act).opened == 10


def test_a_partner_that_is_gone_costs_no_room() -> None:
    async def act(counting: Counting, client: HttpClient) -> None:
        assert counting.server is not None
        counting.server.close()
        for _ in range(5):
            with pytest.raises(Unreachable, match="connect"):
                await client.request("GET", "/")

    play(act, 2)


def test_what_is_under_way_ends_with_the_client() -> None:
    async def act(counting: Counting, client: HttpClient) -> None:
        counting.hold.clear()
        asking = asyncio.create_task(client.request("GET", "/"))
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises(Unreachable, match="broken"):
            await asking
        counting.hold.set()

    play(act)
