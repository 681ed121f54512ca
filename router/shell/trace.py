"""The story of a subject, as `smpbus trace` shows it: its messages and what became of each."""

from typing import Any, Final

from proto.message import now_ms
from router.core.delivery import State
from router.shell.engine import Engine
from router.shell.ops import Command, OpsError
from router.store.head import head_of

MESSAGES_MAX: Final = 1000
SUBJECTS_MAX: Final = 10  # of one number
OPEN_WORDS: Final = {
    State.DELAYED: "delayed",
    State.WAITING: "pending",
    State.READY: "pending",
    State.IN_FLIGHT: "in_flight",
    State.RETRYING: "retrying",
}


class Trace:
    """The command, on one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._core = engine.core
        self._writer = engine.writer

    def commands(self) -> dict[str, Command]:
        """Return the command by its name."""
        return {"trace": self._trace}

    async def _trace(self, request: dict[str, Any]) -> dict[str, Any]:
        subject = request.get("subject")
        if not isinstance(subject, str) or not subject:
            raise OpsError("bad_request", "trace needs a subject")
        await self._engine.commit()  # what was settled a moment ago belongs to the story
        hops, earlier = await self._story(subject)
        others: list[str] = []
        if not hops:  # a number by which another system knows it?
            number = subject
            search = self._writer.search(lambda store: store.subject_steps(number, SUBJECTS_MAX))
            found = [one async for step in search for one in step]
            subject, *others = found or [subject]
            hops, earlier = await self._story(subject)
        return {"subject": subject, "others": others, "messages": hops, "earlier": earlier}

    async def _story(self, subject: str) -> tuple[list[dict[str, Any]], int]:
        """Return the newest messages of a subject, in order, and how many earlier ones it has."""
        search = self._writer.search(lambda store: store.trace_steps(subject, MESSAGES_MAX))
        hops: list[dict[str, Any]] = []
        earlier = 0
        async for step in search:
            whole = [row for row in step if "id" in row]
            hops += [self._hop(row) for row in whole]
            earlier += len(step) - len(whole)
        return hops[::-1], earlier

    def _hop(self, row: dict[str, Any]) -> dict[str, Any]:
        message, row["size"] = head_of(row.pop("head"), row["size"])
        row["type"] = message.type
        row["priority"] = message.priority
        row["time"] = message.time
        row["correlation_id"] = message.correlation_id
        for delivery in row["deliveries"]:
            delivery["generation"] = self._core.generations.of(delivery["delivery"])
            state = delivery["state"]
            delivery["settled_at"] = delivery.pop("ended_at")
            delivery["due"] = None
            if state is None:
                self._tell_open(delivery, message.not_before or 0)
            else:
                delivery["state"] = State(state).name.lower()
        return row

    def _tell_open(self, delivery: dict[str, Any], not_before: int) -> None:
        """Say of a delivery that has not ended what the core knows of it, if it has it at hand."""
        held = self._core.find(delivery["delivery"])
        if held is None:
            delayed = not_before > now_ms()
            delivery["state"] = "delayed" if delayed else "pending"
            delivery["due"] = not_before if delayed else None
            return
        delivery["state"] = OPEN_WORDS[held.state]
        delivery["due"] = held.due
        delivery["attempts"] = held.attempts
        delivery["delivered_at"] = held.delivered_at
