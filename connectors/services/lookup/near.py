"""The cache inside the process: bounded by entries and by bytes, the least used goes first."""

from collections import OrderedDict
from dataclasses import dataclass

from connectors.services.lookup.entry import Entry


@dataclass(frozen=True)
class _Held:
    entry: Entry
    size: int
    since: float


class Near:
    """Entries by key. Pure: the clock is an argument, in seconds."""

    def __init__(self, entries_max: int, bytes_max: int) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: str, now: float) -> tuple[Entry, float] | None:
        """Return an entry that has not expired and for how long it has been here, or None."""
        held = self._held.get(key)
        if held is None:
            return None
        if held.entry.expires <= now:
            self.forget(key)
            return None
        self._held.move_to_end(key)
        return held.entry, now - held.since

    def put(self, key: str, entry: Entry, size: int, now: float) -> None:
        """Hold `entry`, which takes about `size` bytes; what is larger than all is not held."""
        self.forget(key)
        if size > self._bytes_max:
            return
        self._held[key] = _Held(entry, size, now)
        self.bytes += size
        while len(self._held) > self._entries_max or self.bytes > self._bytes_max:
            _, gone = self._held.popitem(last=False)
            self.bytes -= gone.size

    def size(self, key: str) -> int:
        """Return the bytes that `key` takes."""
        held = self._held.get(key)
        return 0 if held is None else held.size

    def forget(self, key: str) -> None:
        """Hold nothing under `key`."""
        held = self._held.pop(key, None)
        if held is not None:
            self.bytes -= held.size
