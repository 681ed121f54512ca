"""Questions and answers: each question is answered once, by who was asked, or in time by a no."""

from proto import frames
from tests.simulation.promise import broken

FORGED = b"forged"
HONEST = b"honest"


class Questions:
    """What was asked in one life of the router."""

    def __init__(self) -> None:
        self._void: set[tuple[bytes, int]] = set()  # their asker's session is over
        self.pending: dict[tuple[bytes, int], int] = {}  # (asker, number) -> deadline, mono ms
        self.received: dict[bytes, list[int]] = {}  # server -> the router's numbers
        self._servers: dict[int, bytes] = {}  # the router's number -> who was asked
        self._bodies: dict[bytes, tuple[bytes, int]] = {}  # what was asked -> by whom

    def ask(self, peer: bytes, number: int, timeout_ms: int, raw: bytes, mono_ms: int) -> None:
        """A peer asks."""
        self.pending[peer, number] = mono_ms + timeout_ms
        self._bodies[raw] = peer, number

    def forwarded(self, peer: bytes, request: frames.RequestRaw, serves: bool) -> None:
        """The router passes a question on to `peer`; `serves`: it consumes that destination."""
        if bytes(request.message) not in self._bodies:
            broken("questions", "a question that nobody asked")
        if not serves:
            broken("questions", f"{peer!r} does not serve {request.destination}")
        if request.request in self._servers:
            broken("questions", f"question {request.request} was passed on twice")
        self._servers[request.request] = peer
        self.received.setdefault(peer, []).append(request.request)

    def answered(self, peer: bytes, reply: frames.Reply, mono_ms: int) -> None:
        """The router answers `peer`."""
        if (peer, reply.request) in self._void:
            return
        deadline = self.pending.pop((peer, reply.request), None)
        if deadline is None:
            broken("questions", f"{peer!r} hears an answer to {reply.request} again or unasked")
        if reply.body == FORGED:
            broken("questions", f"{peer!r} hears an answer from one that was not asked")
        if reply.code == "timeout" and deadline > mono_ms:
            broken("questions", f"a timeout {deadline - mono_ms} ms early")

    def check(self, mono_ms: int) -> None:
        """Every question whose time is over was answered; to be asked after a tick."""
        for (peer, number), deadline in self.pending.items():
            if deadline <= mono_ms:
                broken("questions", f"question {number} of {peer!r} was never answered")

    def gone(self, peer: bytes) -> None:
        """A session ended: its questions are nobody's, and what it was asked must be answered."""
        for key in [key for key in self.pending if key[0] == peer]:
            del self.pending[key]
            self._void.add(key)
        self.received.pop(peer, None)
