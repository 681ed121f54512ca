"""Questions that wait for their replies: in memory only, each with one session that was asked."""

from collections import Counter
from dataclasses import dataclass


@dataclass(slots=True)
class Question:
    """A request that waits for its reply; `number` is the asker's own."""

    asker: bytes
    number: int
    server: bytes
    deadline_ms: int


class Questions:
    """The open ones, by the router's number."""

    def __init__(self) -> None:
        self._open: dict[int, Question] = {}
        self._asking: Counter[bytes] = Counter()
        self._last = 0

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, number: int) -> bool:
        return number in self._open

    def asked_by(self, peer: bytes) -> int:
        """Return how many of a session are open."""
        return self._asking[peer]

    def open(self, question: Question) -> int:
        """Return the number of a question that goes on its way; no other has had it."""
        self._last += 1
        self._open[self._last] = question
        self._asking[question.asker] += 1
        return self._last

    def get(self, number: int) -> Question | None:
        """Return an open question."""
        return self._open.get(number)

    def close(self, number: int) -> Question | None:
        """Return a question that is over from now on, or None if it was already."""
        question = self._open.pop(number, None)
        if question is not None:
            self._asking[question.asker] -= 1
        return question

    def close_all_of(self, peer: bytes) -> list[Question]:
        """Forget what a session that has ended asked; return what it was asked, over as well."""
        over = [number for number, one in self._open.items() if peer in (one.asker, one.server)]
        ended = [one for number in over if (one := self.close(number))]
        del self._asking[peer]
        return [one for one in ended if one.asker != peer]
