"""One message that the other bus can never take: a dead letter here, and the link goes on."""

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from proto import frames
from proto.message import Message
from tests.integration.test_replication import Node, permissions, routes
from tests.until import wait_for

FRAME = 65_000
LIMITS = f"body_bytes_max = {FRAME - 40}\nframe_bytes_max = {FRAME}"


@pytest.fixture
def joined() -> Iterator[tuple[Node, Node]]:
    """A substation and the centre, both with frames of one length, and the link between them."""
    west = Node(
        "west", bus=LIMITS, routes=routes("centre"), permissions=permissions(replication="centre")
    )
    centre = Node("centre", bus=LIMITS, routes=routes("west"), permissions=permissions(west="west"))
    with centre, west:
        west.join(centre, "centre", "west", centre.port, there="west")
        west.start_connector()
        yield west, centre


def fitting(id: str, subject: str) -> Message:
    """A message that fills a frame to the last byte."""
    message = Message("big/" + id, "test.message.v1", "producer", subject, 1, body=b"")
    empty = len(frames.encode(frames.Publish(1, [message])))
    size = FRAME - frames.FRAME_SPARE - empty - 2  # the length of the body takes two more
    return msgspec.structs.replace(message, body=b"x" * size)


@pytest.mark.fault("D9")
def test_a_message_that_outgrows_the_other_bus_is_set_aside_and_what_is_behind_it_goes_on(
    joined: tuple[Node, Node],
) -> None:
    """Seen: the envelope grows by the bus's name beyond the other's frame limit, and the link
    dropped and came back for ever, with nothing in the log: it is a dead letter with its reason,
    in one line, and what came with it and after it is passed on. Both ways."""
    west, centre = joined
    for here, there, queue in ((west, centre, "centre"), (centre, west, "west")):
        small = [
            Message(f"{here.name}{n}", "test.message.v1", "producer", f"112-{n % 2}", 1)
            for n in range(6)
        ]
        big = fitting(here.name, "112-0")
        before = there.queue("sink")["pending"]
        asyncio.run(here.publish([*small[:3], big, *small[3:]]))
        wait_for(lambda t=there, b=before: t.queue("sink")["pending"] == b + 6, "the others")  # type: ignore[misc]
        wait_for(lambda h=here, q=queue: h.queue(q)["dead"] == 1, "the dead letter")  # type: ignore[misc]
        (letter,) = here.ask("dead", destination=queue)["letters"]
        assert letter["id"] == big.id
        assert "body_too_large" in str(letter)
        told = [one for one in west.connector_log.read_text().splitlines() if big.id in one]
        assert len(told) == 1
        assert "body_too_large" in told[0]
