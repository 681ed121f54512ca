"""How many connections a door holds, for how long each may be silent, and how many bytes of bodies
it keeps. Pure: who connects and what time it is comes from outside.

A place is never held by silence. When there is none left, the connection that has been silent
longest goes, of the address that has the most: so a stranger cannot keep a card out.
"""

import ipaddress
import resource
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol

import msgspec

RESERVE: Final = 256  # descriptors that are no connection of a door: the bus, files, partners
STRANGERS_MAX: Final = 16  # from where nobody may call: enough to be told so
DESCRIPTORS_MAX: Final = 65_536
SLOW_S: Final = 0.25  # who has needed longer for a body may have to make room
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
# It has to say what it wants; it is saying it; we answer; it may say more.
Phase = Literal["head", "body", "answer", "idle"]


class HttpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.NAME.http]: the limits of a door. A head is to be there within `head_s` and is no
    longer than `head_bytes_max`, a body within `body_s`, an answer is to be read within `answer_s`;
    between two requests a connection is kept for `idle_s`, longer than any client does: who closes
    first is to be the one that asks, else a request goes into a connection being closed. All bodies
    that are held together have `bodies_bytes_max`. `forwarded_from` are the proxies in front, whose
    X-Forwarded-For is believed, and who must send one; nobody else's is. Unset, that of loopback is
    where `allow` lets loopback in: whoever could use it may call anyway. With a `proxy_secret_file`
    every request must have come by a proxy that knows the secret; what it tells in
    X-Client-Certificate is believed then."""

    connections_max: Annotated[int, msgspec.Meta(ge=8, le=DESCRIPTORS_MAX)] = 1024
    connections_per_address: Annotated[int, msgspec.Meta(ge=1, le=DESCRIPTORS_MAX)] = 512
    head_s: Seconds = 10.0
    head_bytes_max: Annotated[int, msgspec.Meta(ge=1024, le=1024 * 1024)] = 16 * 1024
    body_s: Seconds = 30.0
    bodies_bytes_max: Annotated[int, msgspec.Meta(ge=64 * 1024)] = 32 * 1024 * 1024
    answer_s: Seconds = 30.0
    idle_s: Seconds = 75.0
    forwarded_from: tuple[str, ...] | None = None
    proxy_secret_file: Path | None = None


class Connection(Protocol):
    """What the gate knows of a connection; times are monotonic seconds."""

    peer: str
    phase: Phase
    since: float
    held: int
    writing_since: float | None

    @property
    def unsent(self) -> int:
        """How many bytes of answers wait to be read."""

    def drop(self, status: int) -> None:
        """Close it, with this status if no answer has begun."""


class Gate:
    """The connections of one door. `tell(limit, peer)` is called as a limit bites."""

    def __init__(
        self,
        settings: HttpSettings,
        tell: Callable[[str, str], None],
        known: Callable[[str], bool] = lambda _: True,
        places: int | None = None,
    ) -> None:
        """`known` tells from which addresses one may call; `places` is what the process can bear,
        when that is less than the settings say."""
        self.settings = settings
        self.held = 0
        self.tell = tell
        self._known = known
        self._places = min(settings.connections_max, places or settings.connections_max)
        self._share = min(settings.connections_per_address, self._places)
        self._owners: dict[Connection, str] = {}  # in whose share it has its place
        # Of each owner, those that were heard of longest ago first.
        self._owned: dict[str, dict[Connection, None]] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def admit(self, connection: Connection, now: float) -> bool:
        """Give a place, another's if there is none left; return False when nobody can go."""
        owner = connection.peer if self._known(connection.peer) else ""
        share = self._share if owner else min(STRANGERS_MAX, self._share)
        own = len(self._owned.get(owner, ()))
        if own >= share and not self._make_place(owner, "connections_per_address", now):
            return False
        if len(self) >= self._places:
            most = max(self._owned, key=lambda one: len(self._owned[one]))
            if not self._make_place(most, "connections_max", now):
                return False
        self._owners[connection] = owner
        self._owned.setdefault(owner, {})[connection] = None
        return True

    def heard(self, connection: Connection) -> None:
        """It asks something: it is silent no longer."""
        owner = self._owners.get(connection)
        if owner is not None:
            del self._owned[owner][connection]
            self._owned[owner][connection] = None

    def _make_place(self, owner: str, limit: str, now: float) -> bool:
        peers = self._owned[owner]
        victim = next((one for one in peers if one.phase in ("head", "idle")), None)
        if victim is None:
            slow = (one for one in peers if one.phase == "body" and now - one.since >= SLOW_S)
            victim = next(slow, None)
        if victim is None or victim.phase != "idle":  # an idle one loses nothing worth a line
            self.tell(limit, owner if victim is None else victim.peer)
        if victim is None:
            return False
        victim.drop(503)
        self.leave(victim)
        return True

    def leave(self, connection: Connection) -> None:
        """It is closed; once is enough."""
        owner = self._owners.pop(connection, None)
        if owner is None:
            return
        self.release(connection)
        del self._owned[owner][connection]
        if not self._owned[owner]:
            del self._owned[owner]

    # -- bytes ----------------------------------------------------------------------------------

    def hold(self, connection: Connection, size: int) -> None:
        """It has brought `size` bytes more of a body. Whoever holds most and is not done goes when
        that is too much in all."""
        connection.held += size
        self.held += size
        while self.is_full:
            slow = (one for one in self._owners if one.phase == "body" and one.held)
            victim = max(slow, key=lambda one: one.held, default=None)
            if victim is None:
                return
            self.tell("bodies_bytes_max", victim.peer)
            victim.drop(503)
            self.leave(victim)

    @property
    def is_full(self) -> bool:
        """Whether too many bytes of bodies are held."""
        return self.held > self.settings.bodies_bytes_max

    def release(self, connection: Connection) -> None:
        """Its body is done with."""
        self.held -= connection.held
        connection.held = 0

    # -- time -----------------------------------------------------------------------------------

    @property
    def look_s(self) -> float:
        """How often to look."""
        limits = self.settings
        return min(1.0, min(limits.head_s, limits.body_s, limits.answer_s, limits.idle_s) / 4)

    def look(self, now: float) -> None:
        """Drop whoever was silent for too long."""
        for connection, limit in list(self._late(now)):
            if limit != "idle_s":
                self.tell(limit, connection.peer)
            connection.drop(0 if limit in ("idle_s", "answer_s") else 408)
            self.leave(connection)

    def _late(self, now: float) -> Iterator[tuple[Connection, str]]:
        limits = self.settings
        allowed = {"head": limits.head_s, "body": limits.body_s, "idle": limits.idle_s}
        for one in self._owners:
            if not one.unsent:
                one.writing_since = None
            elif one.writing_since is None:
                one.writing_since = now
            elif now - one.writing_since > limits.answer_s:
                yield one, "answer_s"
                continue
            within_s = allowed.get(one.phase)
            if within_s is not None and now - one.since > within_s:
                yield one, f"{one.phase}_s"


def places() -> int:
    """Allow this process all the descriptors that it may have, and return for how many connections
    there are enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft == resource.RLIM_INFINITY:
        return DESCRIPTORS_MAX
    return max(8, soft - min(RESERVE, soft // 2))


def plain_address(host: str) -> str:
    """Return an address as it is written in lists: one of IPv4 that came by an IPv6 listener is one
    of IPv4."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def membership(networks: Sequence[str]) -> Callable[[str], bool]:
    """Return what tells whether an address is in one of `networks`. Raises ValueError for what is
    no network."""
    allowed = [ipaddress.ip_network(network) for network in networks]

    def known(host: str) -> bool:
        try:
            address = ipaddress.ip_address(plain_address(host))
        except ValueError:
            return False
        return any(address in network for network in allowed)

    return known
