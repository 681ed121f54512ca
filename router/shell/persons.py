"""What an operator may ask and do about one person in the journal: `person_find`, `person_erase`.

The words that identify the person stay in the request: no answer, log or event has them.
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Final

import msgspec

from proto.note import coded
from proto.person import Search, Wanted
from router.core.delivery import State
from router.shell.engine import Engine
from router.shell.operator import Operator
from router.shell.ops import Command, OpsError
from router.store.contract import Store
from router.store.head import head_of

SEARCH_S: Final = 3.0  # for one request
FOUND_MAX: Final = 200  # told in one answer
SUBJECTS_MAX: Final = 10  # of one number
NOTE: Final = coded("bus.erased")


class Asked(msgspec.Struct, frozen=True):
    """By words, from the message after `after` on; or by the calls that have these numbers."""

    words: Wanted | None = None
    numbers: Annotated[list[str], msgspec.Meta(max_length=100)] = []
    after: Annotated[int, msgspec.Meta(ge=0)] = 0


class Doomed(msgspec.Struct, frozen=True):
    """Which messages to erase, and why that is done."""

    messages: Annotated[list[int], msgspec.Meta(max_length=FOUND_MAX)] = []
    reason: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Persons:
    """The commands, on one engine."""

    def __init__(self, engine: Engine, operator: Operator) -> None:
        self._engine = engine
        self._core = engine.core
        self._writer = engine.writer
        self._operator = operator

    def commands(self) -> dict[str, Command]:
        """Return the commands by name."""
        return {"person_find": self._find, "person_erase": self._erase}

    async def _find(self, request: dict[str, Any]) -> dict[str, Any]:
        """Messages in which the words are, and `next` to ask from when not all were looked at."""
        asked = _read(request, Asked)
        await self._engine.commit()
        if asked.words is not None:
            numbers, following = await self._by_words(Search(asked.words), asked.after)
        else:
            numbers, following = await self._by_numbers(asked.numbers), None
        rows = await self._writer.query(lambda store: store.told(numbers[:FOUND_MAX]))
        answer: dict[str, Any] = {"messages": [_row(row) for row in rows], "next": following}
        if len(numbers) > FOUND_MAX:
            answer["next"] = numbers[FOUND_MAX - 1] if asked.words is not None else None
            answer["more"] = len(numbers) - FOUND_MAX
        return answer

    async def _by_words(self, search: Search, after: int) -> tuple[list[int], int | None]:
        until, numbers = time.monotonic() + SEARCH_S, list[int]()
        steps = self._writer.search(lambda store: store.person_steps(search, after))
        async for after, found in steps:
            numbers += found
            if len(numbers) > FOUND_MAX or time.monotonic() > until:
                return numbers, after
        return numbers, None

    async def _by_numbers(self, numbers: list[str]) -> list[int]:
        found: dict[int, None] = {}
        for number in numbers:
            subjects = [number]
            async for step in self._writer.search(partial(_subjects, number=number)):
                subjects += step
            for subject in dict.fromkeys(subjects):
                async for run in self._writer.search(partial(_messages, subject=subject)):
                    found.update(dict.fromkeys(run))
        return sorted(found)

    async def _erase(self, request: dict[str, Any]) -> dict[str, Any]:
        """What is dead is given up first: its books are balanced, and nobody can replay it. What is
        still on its way is left for later, and named."""
        doomed = _read(request, Doomed)
        async with self._operator.changing:
            await self._engine.commit()
            rows = await self._writer.query(lambda store: store.told(doomed.messages))
            ends = [row for row in rows if _has_ended(row)]
            dead = [
                (one["delivery"], one["destination"])
                for row in ends
                for one in row["deliveries"]
                if one["state"] == State.DEAD
            ]
            dropped = self._core.drop(dead, NOTE)
            await self._engine.commit()
            numbers = [row["n"] for row in ends]
            erased = await self._writer.query(lambda store: store.erase(numbers, NOTE))
        left = sorted({row["n"] for row in rows} - set(erased))
        return {"erased": erased, "in_work": left, "dropped": dropped}


def _subjects(store: Store, number: str) -> Iterator[list[str]]:
    return store.subject_steps(number, SUBJECTS_MAX)


def _messages(store: Store, subject: str) -> Iterator[list[int]]:
    return store.subject_numbers(subject)


def _has_ended(row: dict[str, Any]) -> bool:
    return all(one["state"] is not None for one in row["deliveries"])


def _read(request: dict[str, Any], shape: type[Any]) -> Any:
    fields = {name: request[name] for name in shape.__struct_fields__ if name in request}
    try:
        return msgspec.convert(fields, shape)
    except msgspec.ValidationError as error:
        raise OpsError("bad_request", str(error)) from None


def _row(row: dict[str, Any]) -> dict[str, Any]:
    message, size = head_of(row["head"], row["size"])
    states = {None: "open"} | {state: state.name.lower() for state in State}
    return {
        "n": row["n"],
        "id": message.id,
        "type": message.type,
        "source": message.source,
        "subject": message.subject,
        "numbers": message.correlation_id,
        "accepted_at": row["accepted_at"],
        "size": size,
        "deliveries": [
            {"destination": one["destination"], "state": states[one["state"]],
             "due": one["history"][-1]["due"] if one["history"] else None}
            for one in row["deliveries"]
        ],
    }  # fmt: skip
