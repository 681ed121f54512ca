"""One call's journey, checked from three sides: the bus, the ambulance and System-112."""

from dataclasses import dataclass
from typing import Any

from connectors.simulators.demo.billing import REGISTERED
from connectors.simulators.demo.day import Day
from proto.ops import OpsError, ops_request
from proto.wording import text


@dataclass(frozen=True)
class Proof:
    """What is known of one call; `missing` are sentences about what is not as it must be.

    `numbers` are those by which the systems know the call: each of them finds it.
    """

    subject: str
    call_id: str
    status: str
    reactions: int
    missing: list[str]
    numbers: list[str]


def choose(day: Day) -> str:
    """Return the Id112 to show: a finished call, whose patient is known and was taken to hospital,
    and whose card was corrected, as far as there is one."""
    calls: dict[str, Any] = {
        card: call for call in day.ambulance.get("calls", []) for card in call["cards"][:1]
    }
    finished = [card for card, call in calls.items() if "finished" in call["events"]]
    treated = [card for card in finished if calls[card]["hospital"] and calls[card]["patient"]]
    finished = treated or finished
    plain = [card for card in finished if len(calls[card]["cards"]) == 1]
    corrected = [card for card in plain if calls[card]["version"] > 1]
    samples: list[str] = [sample.id112 for sample in day.samples if sample.kind == "new"]
    return next(iter([*corrected, *plain, *finished, *samples]))


def prove(day: Day, id112: str) -> Proof:
    """Compare what the bus, the ambulance and System-112 know of one card."""
    subject = f"112-{id112}"
    call = _call_of(day, id112)
    try:
        messages = ops_request(day.folder.ops, "trace", subject=subject)["messages"]
    except OpsError as error:
        return Proof(subject, "", "", 0, [text("demo.no_trace", reason=error.sentence)], [])
    entries = day.system112.get("entries", [])
    heard = [entry["operation"] for entry in entries if entry["id112"] == id112]
    statuses = [one for one in messages if one["type"] == "call.status.v1"]
    missing = [*_unsettled(messages)]
    if not any(one["type"] == "incident.card.v1" for one in messages):
        missing.append(text("demo.no_card"))
    if len(statuses) != len(call["events"]) or not statuses:
        counts = {"bus": len(statuses), "smp": len(call["events"])}
        missing.append(text("demo.statuses_differ", **counts))
    if "FinishReaction" not in heard:
        missing.append(text("demo.no_finish"))
    missing += _clinical(call)
    numbers = _numbers(messages)
    missing += _not_found(day, subject, [id112, call["id"], *numbers])
    return Proof(subject, call["id"], call["status"], len(heard), missing, numbers)


def _clinical(call: dict[str, Any]) -> list[str]:
    """What the other systems should have told the ambulance of this call."""
    told, missing = call.get("told", []), []
    if "TransferState card confirmed" not in told:
        missing.append(text("demo.not_confirmed"))
    if call.get("hospital") and not any(one.startswith("HospitalOutcome") for one in told):
        missing.append(text("demo.no_outcome"))
    if "DocumentState remd registered" not in told:
        missing.append(text("demo.not_registered"))
    if call.get("patient") and not call.get("insured"):
        missing.append(text("demo.not_insured"))
    if call.get("insured") and not any(one.startswith(REGISTERED) for one in told):
        missing.append(text("demo.not_billed"))
    return missing


def _numbers(messages: list[dict[str, Any]]) -> list[str]:
    """Return the numbers that the systems gave to the call, its documents and its patient."""
    words = [word for one in messages for word in (one["correlation_id"] or "").split()]
    return list(dict.fromkeys(words))


def _not_found(day: Day, subject: str, numbers: list[str]) -> list[str]:
    missing = []
    for number in dict.fromkeys(numbers):
        found = ops_request(day.folder.ops, "trace", subject=number)
        if subject not in (found["subject"], *found["others"]):
            missing.append(text("demo.not_found_by", number=number))
    return missing


def _call_of(day: Day, id112: str) -> dict[str, Any]:
    for call in day.ambulance.get("calls", []):
        if id112 in call["cards"]:
            return dict(call)
    return {"id": "?", "status": "?", "events": [], "told": []}


def _unsettled(messages: list[dict[str, Any]]) -> list[str]:
    return [
        text("demo.not_settled", type=one["type"], destination=delivery["destination"])
        for one in messages
        for delivery in one["deliveries"]
        if delivery["state"] != "settled"
    ]
