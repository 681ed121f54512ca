"""Memcached as a cache that may be away, slow, empty or lying: a counted failure, never an error.

The client library blocks, so it runs in threads of its own; whoever asks waits for at most
`timeout_s`, whatever the other side does. After several failures in a row memcached is left alone
for a while, so that its absence does not cost every lookup the whole time.
"""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from pymemcache.client.base import PooledClient

from connectors.runtime.partner.breaker import Breaker, BreakerSettings

# What a server takes as one item unless it is told otherwise (-I).
VALUE_BYTES_MAX: Final = 1_000_000
ANSWER_BYTES_MAX: Final = 2_000_000
# A longer time means a date to memcached.
EXPIRE_S_MAX: Final = 30 * 86_400
WAITING_MAX: Final = 1000
REST: Final = BreakerSettings(failures_max=3, open_s=1.0, open_max_s=30.0)

Result = TypeVar("Result")


class Away(Exception):
    """Memcached did not answer; its text is one of the words that `Memcached.failures` counts."""


class Memcached:
    """One server: "HOST:PORT" or "unix:/PATH". Everything but `close` raises Away."""

    def __init__(self, server: str, timeout_s: float, connections_max: int) -> None:
        self.timeout_s = timeout_s
        self.failures: Counter[str] = Counter()
        self.breaker = Breaker(REST)
        self._waiting = 0
        self._threads = ThreadPoolExecutor(connections_max, "lookup")
        self._deadline = _Deadline()
        self._client = PooledClient(
            server,
            connect_timeout=timeout_s,
            timeout=timeout_s,
            no_delay=True,
            socket_module=_Sockets(self._deadline),
            max_pool_size=connections_max,
        )

    async def get(self, key: str) -> bytes | None:
        """Return what is under `key`, None for nothing."""
        found = await self._do(lambda: self._client.get(key))
        if found is not None and not isinstance(found, bytes):
            raise self._failed("broken")
        return found

    async def put(self, key: str, value: bytes, expire_s: float) -> None:
        """Store `value` for `expire_s` seconds."""
        if len(value) > VALUE_BYTES_MAX:
            self.failures["too_large"] += 1
            raise Away("too_large")
        seconds = max(1, min(int(expire_s), EXPIRE_S_MAX))
        await self._do(lambda: self._client.set(key, value, seconds, noreply=False))

    async def forget(self, key: str) -> None:
        """Delete what is under `key`."""
        await self._do(lambda: self._client.delete(key, noreply=False))

    def close(self) -> None:
        """Let go of the connections; what is under way ends by itself within its time."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def _do(self, call: Callable[[], Result]) -> Result:
        if self.breaker.wait_s(time.monotonic()):
            self.failures["resting"] += 1
            raise Away("resting")
        if self._waiting >= WAITING_MAX:
            self.failures["busy"] += 1
            raise Away("busy")
        deadline = time.monotonic() + self.timeout_s
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._run, call, deadline)
        self._waiting += 1
        work.add_done_callback(self._done)
        try:
            async with asyncio.timeout(self.timeout_s):
                result = await asyncio.shield(work)
        except TimeoutError:
            raise self._failed("timeout") from None
        except ConnectionRefusedError:
            raise self._failed("refused") from None
        except Exception:  # the library trusts what it reads: a lie may raise anything in it
            raise self._failed("broken") from None
        self.breaker.succeeded()
        return result

    def _run(self, call: Callable[[], Result], deadline: float) -> Result:
        if time.monotonic() >= deadline:
            raise TimeoutError  # nobody waits for it any more
        self._deadline.at = deadline
        self._deadline.room = ANSWER_BYTES_MAX
        return call()

    def _done(self, work: "asyncio.Future[Any]") -> None:
        self._waiting -= 1
        if not work.cancelled():
            work.exception()  # seen, even if whoever asked has gone

    def _failed(self, cause: str) -> Away:
        self.failures[cause] += 1
        self.breaker.failed(time.monotonic())
        return Away(cause)


class _Deadline(threading.local):
    """Until when the call of this thread may last (monotonic), and how much it may still read."""

    at = 0.0
    room = 0


class _Socket(socket.socket):
    """A socket whose whole answer has one deadline: else a byte at a time would hold a thread."""

    deadline: _Deadline

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """See socket.recv. Raises TimeoutError at the deadline, OSError when it is too much."""
        left_s = self.deadline.at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self.settimeout(left_s)
        data = super().recv(size, flags)
        self.deadline.room -= len(data)
        if self.deadline.room < 0:
            raise OSError("the answer is too long")
        return data


class _Sockets:
    """The socket module as the client library sees it."""

    def __init__(self, deadline: _Deadline) -> None:
        self._deadline = deadline

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)

    def socket(self, *arguments: Any) -> _Socket:
        """Return a socket with the deadline of the calling thread."""
        made = _Socket(*arguments)
        made.deadline = self._deadline
        return made
