"""Turns: a name that has put enough into the transaction being gathered waits for the next one.

An emergency waits for the write in hand and for its own. So, while others publish, one name adds a
slice or two to each write, however much it has to say; and what a peer sends behind a PUBLISH that
is handled in slices waits until that one is done. What waits are frames as libzmq gave them, in
their order; with those that are begun they are bounded in bytes. A name that brings more than its
share is cut off: not before the PUBLISH that is begun is on disk and answered, else it would come
back and begin with the same one for ever.
"""

from collections.abc import Iterator
from typing import Final

import zmq

from router.shell.peers import Party, Peer, Peers

TURN_ROWS: Final = 512
TURN_BYTES: Final = 512 * 1024
FRAME_BYTES: Final = 1024  # what a frame that waits takes, besides its own


class Turns:
    """Whose turn it is. A turn lasts until the gathered transaction goes to the disk."""

    def __init__(self, peers: Peers) -> None:
        self.bytes = 0  # of frames that wait, or are begun
        self._number = 1  # of the transaction that gathers
        self._written = 0  # of the newest that is on disk
        self._peers = peers
        self._waiting: dict[Peer, None] = {}

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def __iter__(self) -> Iterator[Peer]:
        """Yield those that wait and may go on, each once, from who went on longest ago."""
        for peer in list(self._waiting):
            if peer in self._waiting and not self._must_wait(peer):
                del self._waiting[peer]
                self._waiting[peer] = None
                yield peer

    @property
    def is_full(self) -> bool:
        """Whether so much waits that no more should be read."""
        return self.bytes >= self._peers.settings.waiting_bytes_max

    def begin(self) -> None:
        """The gathered transaction is handed over: everybody has a turn."""
        self._number += 1

    def written(self) -> None:
        """The oldest transaction that was handed over is on disk."""
        self._written += 1

    def count(self, party: Party, rows: int, size: int) -> None:
        """Note what one has added to the transaction."""
        if party.turn != self._number:
            party.turn, party.turn_rows, party.turn_bytes = self._number, 0, 0
        party.turn_rows += rows
        party.turn_bytes += size

    def is_over(self, party: Party) -> bool:
        """Whether one has added enough, and others publish."""
        return (
            (party.turn_rows >= TURN_ROWS or party.turn_bytes >= TURN_BYTES)
            and party.turn == self._number
            and self._peers.has_others(party)
        )

    def _must_wait(self, peer: Peer) -> bool:
        party = peer.party
        if party.cut and not peer.begun:
            return party.turn > self._written or any(one.begun for one in party.peers)
        return self.is_over(party)

    def may_go_on(self) -> bool:
        """Whether somebody who waits may go on."""
        return any(not self._must_wait(peer) for peer in self._waiting)

    def wait(self, peer: Peer, size: int) -> None:
        """The core has only begun with a frame of so many bytes."""
        self._waiting[peer] = None
        peer.begun_bytes = size
        self.bytes += size

    def end(self, peer: Peer) -> None:
        """The core is done with what it had begun of a peer."""
        self.bytes -= peer.begun_bytes
        peer.begun_bytes = 0

    def put_off(self, peer: Peer, received: list[zmq.Frame]) -> None:
        """Keep a frame until its peer's turn comes."""
        party, size = peer.party, FRAME_BYTES + len(received[-1])
        if party.waiting_bytes + size > self._peers.share_max and self._peers.has_others(party):
            self.cut(peer)
            return
        self._waiting[peer] = None
        peer.waiting.append(received)
        party.waiting_bytes += size
        self.bytes += size

    def cut(self, peer: Peer) -> None:
        """Read nothing more of a name. It may go when what it has begun is on disk."""
        peer.party.cut = True
        for one in peer.party.peers:
            self._drop(one)
        self._waiting[peer] = None

    def next_of(self, peer: Peer) -> list[zmq.Frame] | None:
        """Return a peer's next frame that waits, None when there is none."""
        if not peer.waiting:
            return None
        received = peer.waiting.popleft()
        size = FRAME_BYTES + len(received[-1])
        peer.party.waiting_bytes -= size
        self.bytes -= size
        return received

    def leave(self, peer: Peer) -> None:
        """A peer is done, or gone: what waits of it is dropped."""
        self._waiting.pop(peer, None)
        self.end(peer)
        self._drop(peer)

    def _drop(self, peer: Peer) -> None:
        while self.next_of(peer) is not None:
            pass
