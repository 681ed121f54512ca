"""What a name gets wrong is bounded by the work it makes: a wrong route bars no emergency."""

import msgspec
import pytest

from proto import frames
from proto.message import Priority
from tests.faults.test_publish_slices import Raw
from tests.integration.bus import RouterProcess

PERMISSIONS = '[peers.producer]\npublish = ["test.*", "astray.*"]\n'
BATCH = 3_000


@pytest.mark.fault("D1")
def test_large_batches_that_no_route_takes_do_not_bar_the_emergency_behind_them() -> None:
    """Seven PUBLISH of 3,000 messages without a route counted as 21,000 errors, and the name was
    not listened to, with its emergencies. Right: a few errors a frame."""
    with (
        RouterProcess(peers=("producer",), permissions=PERMISSIONS) as router,
        Raw(router, "producer") as peer,
    ):
        raw = msgspec.msgpack.encode(
            msgspec.structs.replace(peer.message("astray"), type="astray.message.v1")
        )
        for number in range(7):
            peer.say(frames.PUBLISH, frames.PublishRaw(number, [msgspec.Raw(raw)] * BATCH))
            refused = peer.hear(frames.REFUSED, frames.ERROR)
            assert isinstance(refused, frames.RefusedBatch), refused
            assert len(refused.refusals) == BATCH
            assert {one.code for one in refused.refusals} == {"no_route"}
        emergency = msgspec.structs.replace(peer.message("e"), priority=Priority.EMERGENCY)
        peer.publish(7, emergency)
        assert peer.hear(frames.ACCEPTED, frames.ERROR) == frames.Accepted([7])


@pytest.mark.fault("D1")
def test_a_flood_of_frames_that_hold_nothing_valid_is_still_barred() -> None:
    """A sibling: frames of thousands of messages that are none cost the router far more than one
    error each, and who goes on with them is not listened to."""
    with (
        RouterProcess(peers=("producer",), bus="errors_max = 1000") as router,
        Raw(router, "producer") as peer,
    ):
        nothing = frames.PublishRaw(1, [msgspec.Raw(b"\xc0")] * frames.BATCH_LENGTH_MAX)
        for _ in range(20):  # at one error a frame it would take a thousand
            peer.say(frames.PUBLISH, nothing)
        assert peer.hear(frames.ERROR).code == "too_many_errors"
