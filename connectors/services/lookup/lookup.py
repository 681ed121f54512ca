"""Lookups of every connector: this process, then memcached, then the partner, asked once.

    person = await lookup.get(PATIENT, ("snils", digits), lambda: ask_the_register(digits))

A cache that fails is a counted miss. Only the partner's own failure is raised.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, TypeVar

import msgspec

from connectors.runtime.outside import Hung, Outside
from connectors.services.lookup.entry import PRESSED_FROM, Entry, new_entry, pack, seal, unseal
from connectors.services.lookup.figures import Figures
from connectors.services.lookup.kind import KINDS, Kind
from connectors.services.lookup.memcached import Away, Memcached
from connectors.services.lookup.near import Near
from connectors.services.lookup.secret import Secret
from proto.configuration.declared import SecretFile
from proto.exits import StartError
from proto.wording import text

Value = TypeVar("Value")
Load = Callable[[], Awaitable[Value | None]]

# An answer that another process corrected in memcached is seen here at the latest after this.
NEAR_S: Final = 30.0
CLOSE_S: Final = 1.0
PRESS_S: Final = 10.0  # for sealing or reading a long value: computing, in a thread
ENTRY_OVERHEAD_BYTES: Final = 500


class LookupSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The lookup layer. `server` is memcached, "HOST:PORT" or "unix:/PATH"; "" keeps answers in
    this process only. All processes that share a server share the file of the secret.

    `ttl_s` changes for how many seconds answers of a kind are fresh.
    """

    server: str = ""
    secret_file: SecretFile | None = None
    timeout_ms: Annotated[float, msgspec.Meta(gt=0, le=50)] = 50.0
    connections_max: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    entries_max: Annotated[int, msgspec.Meta(ge=1)] = 20_000
    bytes_max: Annotated[int, msgspec.Meta(ge=1024)] = 64 * 1024 * 1024
    ttl_s: dict[str, Annotated[float, msgspec.Meta(gt=0)]] = {}

    def __post_init__(self) -> None:
        """Raises StartError for settings that cannot work."""
        _check(self)


class Lookup:
    """The cached questions of one process. `clock` gives seconds since 1970-01-01 UTC."""

    def __init__(self, settings: LookupSettings, clock: Callable[[], float] = time.time) -> None:
        """Raises StartError for a secret that cannot be read."""
        self._clock = clock
        self._ttl_s: Mapping[str, float] = settings.ttl_s
        self._secret = Secret.load(settings.secret_file)
        self._near = Near(settings.entries_max, settings.bytes_max)
        self._far: Memcached | None = None
        if settings.server:
            timeout_s = settings.timeout_ms / 1000
            self._far = Memcached(settings.server, timeout_s, settings.connections_max)
        self._flights: dict[str, asyncio.Task[Any]] = {}
        self._reads: dict[str, asyncio.Task[Entry | None]] = {}
        self._writes: dict[str, asyncio.Task[None]] = {}
        self._figures = Figures()
        self._pressing = Outside("lookup", PRESS_S)
        self._invalid = 0

    async def get(
        self, kind: Kind[Value], question: tuple[str, ...], load: Load[Value]
    ) -> Value | None:
        """Return the answer, None when the partner knows none. Raises what `load` raises.

        `question` is in one fixed spelling (digits only, upper case), since another spelling is
        another question. However many ask at once, `load` runs once.
        """
        began = time.perf_counter()
        key = self._secret.key(kind.name, question)
        outcome = "failed"
        try:
            entry, outcome = await self._cached(kind, key)
            if entry is None:
                flying = key in self._flights
                answer = await asyncio.shield(self._flight(kind, key, load))
                outcome = "joined" if flying else "missed"
                return answer
            if outcome == "stale":
                self._flight(kind, key, load)
            found: Value | None = entry.value
            return found
        finally:
            self._figures.count(kind.name, outcome, (time.perf_counter() - began) * 1000)

    async def put(self, kind: Kind[Value], question: tuple[str, ...], value: Value | None) -> None:
        """Remember an answer that came by itself; an answer still being asked for is not kept."""
        key = self._secret.key(kind.name, question)
        self._flights.pop(key, None)
        await asyncio.shield(self._store(kind, key, value))

    async def peek(self, kind: Kind[Value], question: tuple[str, ...]) -> Value | None:
        """Return the answer that is cached, None when there is none; nobody is asked or counted."""
        entry, _ = await self._cached(kind, self._secret.key(kind.name, question))
        found: Value | None = None if entry is None else entry.value
        return found

    async def forget(self, kind: Kind[Any], question: tuple[str, ...]) -> None:
        """Ask the partner the next time."""
        key = self._secret.key(kind.name, question)
        self._flights.pop(key, None)
        self._near.forget(key)
        await asyncio.shield(self._write(key, None, 0.0))

    def figures(self) -> dict[str, Any]:
        """Return the counters: by kind, of the cache in this process, of memcached."""
        far = self._far
        return {
            "kinds": self._figures.report(),
            "near": {"entries": len(self._near), "bytes": self._near.bytes},
            "memcached": None
            if far is None
            else {
                "answers": far.breaker.closed,
                "invalid": self._invalid,
                "failures": dict(sorted(far.failures.items())),
            },
        }

    async def drain(self) -> None:
        """Wait until everything under way is loaded and stored."""
        while tasks := [*self._flights.values(), *self._writes.values()]:
            await asyncio.wait(tasks)
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Stop asking; give what is being stored a moment."""
        for flight in list(self._flights.values()):
            flight.cancel()
        if self._writes:
            await asyncio.wait(list(self._writes.values()), timeout=CLOSE_S)
        if self._far is not None:
            self._far.close()

    # -- reading --------------------------------------------------------------------------------

    async def _cached(self, kind: Kind[Any], key: str) -> tuple[Entry | None, str]:
        """Return the entry and where it was found; the one in this process also serves while
        memcached is away."""
        now = self._clock()
        held, since_s = self._near.get(key, now) or (None, 0.0)
        if held is not None and now < held.fresh_until and (self._far is None or since_s < NEAR_S):
            return held, "near"
        where = "near"
        try:
            found = await self._read_once(kind, key, now)
        except Away:
            found = held
        else:
            if found is not None:
                where = "far"
            elif kind.stale_s:
                found = held  # an old code list is better than none
        if found is None:
            return None, "failed"
        return found, where if now < found.fresh_until else "stale"

    async def _read_once(self, kind: Kind[Any], key: str, now: float) -> Entry | None:
        """Join whoever reads `key` already. Raises Away."""
        if self._far is None:
            raise Away
        read = self._reads.get(key)
        if read is None:
            read = asyncio.ensure_future(self._read(self._far, kind, key, now))
            self._reads[key] = read
            read.add_done_callback(lambda done: self._was_read(key, done))
        return await asyncio.shield(read)

    def _was_read(self, key: str, read: "asyncio.Task[Entry | None]") -> None:
        del self._reads[key]
        if not read.cancelled():
            read.exception()  # seen, even if whoever asked has gone

    async def _read(self, far: Memcached, kind: Kind[Any], key: str, now: float) -> Entry | None:
        sealed = await far.get(key)
        if sealed is None:
            return None
        arguments = (sealed, kind, key, self._secret, now)
        if len(sealed) < PRESSED_FROM:
            entry = unseal(*arguments)
        else:  # long enough to be felt by everybody else on the loop
            try:
                entry = await self._pressing.call(unseal, *arguments)
            except Hung:
                raise Away("slow") from None
        if entry is None:
            self._invalid += 1
            raise Away("invalid")
        self._near.put(key, entry, len(sealed) + ENTRY_OVERHEAD_BYTES, now)
        return entry

    # -- asking the partner ---------------------------------------------------------------------

    def _flight(self, kind: Kind[Any], key: str, load: Load[Value]) -> "asyncio.Task[Value | None]":
        """Return the one task that asks the partner for `key`."""
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.ensure_future(_ask(load))
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(kind, key, done))
        return flight

    def _landed(self, kind: Kind[Any], key: str, flight: "asyncio.Task[Any]") -> None:
        if self._flights.get(key) is not flight:
            return  # a newer answer has come by itself, or the question was withdrawn
        del self._flights[key]
        if flight.cancelled():
            return
        if flight.exception() is None:
            self._store(kind, key, flight.result())
        else:
            self._keep_stale(key)

    def _keep_stale(self, key: str) -> None:
        """Let an old answer serve a little longer before the partner is asked for it again."""
        now = self._clock()
        held = self._near.get(key, now)
        if held is not None and held[0].fresh_until <= now:
            until = min(now + NEAR_S, held[0].expires)
            self._near.put(key, replace(held[0], fresh_until=until), self._near.size(key), now)

    # -- writing --------------------------------------------------------------------------------

    def _store(self, kind: Kind[Any], key: str, value: Any) -> "asyncio.Task[None]":
        now = self._clock()
        entry = new_entry(kind, value, now, self._ttl_s.get(kind.name, kind.ttl_s))
        packed = pack(entry, kind)
        self._near.put(key, entry, len(packed) + ENTRY_OVERHEAD_BYTES, now)
        return self._write(key, packed, entry.expires - now)

    def _write(self, key: str, packed: bytes | None, expire_s: float) -> "asyncio.Task[None]":
        """Write (None: delete) after whatever is being written under the same key."""
        before = self._writes.get(key)
        write = asyncio.ensure_future(self._write_after(before, key, packed, expire_s))
        self._writes[key] = write
        write.add_done_callback(lambda done: self._written(key, done))
        return write

    async def _write_after(
        self, before: "asyncio.Task[None] | None", key: str, packed: bytes | None, expire_s: float
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
        if self._far is None:
            return
        try:
            if packed is None:
                await self._far.forget(key)
            elif len(packed) < PRESSED_FROM:
                await self._far.put(key, seal(packed, key, self._secret), expire_s)
            else:
                sealed = await self._pressing.call(seal, packed, key, self._secret)
                await self._far.put(key, sealed, expire_s)
        except (Away, Hung):
            pass  # counted there; memcached will be asked again when it is back

    def _written(self, key: str, write: "asyncio.Task[None]") -> None:
        if self._writes.get(key) is write:
            del self._writes[key]


async def _ask(load: Load[Value]) -> Value | None:
    return await load()


def _check(settings: LookupSettings) -> None:
    """Raises StartError."""
    if settings.server and settings.secret_file is None:
        raise StartError(text("lookup.secret_missing"))
    known = {kind.name for kind in KINDS}
    for name in settings.ttl_s.keys() - known:
        raise StartError(text("lookup.no_such_kind", name=name, known=", ".join(sorted(known))))
    if settings.server.startswith("unix:/"):
        return
    host, _, port = settings.server.rpartition(":")
    if settings.server and not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise StartError(text("lookup.bad_server", server=settings.server))
