"""What the manager's user of the exchange may do, and whether that is enough.

The exchange tells which actions it lets its user ask (ListCommands), and of events only by sending
them: a class that nobody may read is silence. So what is listed is compared with what was heard,
and `--check` has the exchange make a channel that goes nowhere, and listens for it.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from connectors.partners.ats.ami import Packet
from connectors.partners.ats.session import AmiSession, LinkLost
from proto.wording import text


class _Action(NamedTuple):
    """`write`: the classes of which one is enough."""

    write: str
    is_needed: bool


ACTIONS: Final[Mapping[str, _Action]] = {
    "CoreShowChannels": _Action("reporting", True),
    "QueueStatus": _Action("", True),
    "Originate": _Action("originate", True),
    "Getvar": _Action("reporting", False),
    "Ping": _Action("", True),
}
CLASSES: Final = ("call", "agent", "dialplan")
PROBE: Final = {
    "Channel": "Local/s@smpbus-check", "Application": "NoOp", "Async": "true", "Timeout": "1000",
    "Variable": "MIXMONITOR_FILENAME=smpbus-check",
}  # fmt: skip
LISTEN_S: Final = 1.0
SETTLED_S: Final = 3  # what is older than this, and began since our login, was told of


def missing_actions(known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the actions that are not among those that the exchange lists, each with a sentence."""
    for name, action in ACTIONS.items():
        if name not in known:
            yield name, text(
                "connector.ats_no_action", action=name, right=action.write or "-",
                loss=text(f"connector.ats_loss_{name.lower()}"),
            )  # fmt: skip


def unread_classes(
    heard: Iterable[str], channels: Iterable[Packet], members: Iterable[Packet], since_s: float
) -> Iterator[str]:
    """Yield a sentence for each class of events that cannot have been missed by chance: the lists
    show what began in the `since_s` seconds since our login, and nobody told of it."""
    if "call" not in heard and any(_is_new(one["Duration"], since_s) for one in channels):
        yield no_class("call")
    waits = [one["Wait"] for one in members if one.event == "QueueEntry"]
    if "agent" not in heard and any(_is_new(wait, since_s) for wait in waits):
        yield no_class("agent")


def no_class(name: str) -> str:
    """Return what it means that events of a class do not come."""
    return text("connector.ats_no_class", name=name, loss=text(f"connector.ats_loss_{name}"))


def _is_new(duration: str, since_s: float) -> bool:
    seconds = 0
    try:
        for part in duration.split(":"):
            seconds = seconds * 60 + int(part)
    except ValueError:
        return False
    return SETTLED_S <= seconds < since_s - SETTLED_S


async def look(session: AmiSession, heard: list[Packet]) -> list[tuple[bool, str]]:
    """Return what is found of the rights of who is logged in; `heard` fills with events meanwhile.
    Raises LinkLost."""
    known = await session.actions()
    if known is None:
        return [(False, text("connector.ats_no_commands"))]
    found = [(False, sentence) for _, sentence in missing_actions(known)]
    found += [
        (True, text("connector.ats_action", action=name)) for name in ACTIONS if name in known
    ]
    if "Originate" not in known:
        return found
    try:
        await session.ask("Originate", PROBE)
    except LinkLost:
        return [*found, (False, text("connector.ats_no_probe"))]
    await asyncio.sleep(LISTEN_S)
    classes = {packet["Privilege"].partition(",")[0] for packet in heard}
    for name in ("call", "dialplan"):
        sentence = text("connector.ats_class", name=name) if name in classes else no_class(name)
        found.append((name in classes, sentence))
    found.append((True, text("connector.ats_agent_later")))
    return found
