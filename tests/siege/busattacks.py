"""Attacks over the wire of the bus, with and without a key.

One kind is told in words only: a peer that chooses a routing id of the form that libzmq gives by
itself. It could make the router's libzmq abort, and such an input is not kept here; what is tried
are ids of every other form, which must all be refused.
"""

import os
import time
from random import Random
from typing import Any, Final

import msgspec
import zmq

from proto import frames
from tests.siege.battlefield import Field, Peer, attack, connect, is_over, send

MEGABYTE: Final = os.urandom(1_000_000)
BATCH_BIG: Final = 15
STRANGERS: Final = 1500
GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE"  # a ZMTP greeting, not finished
TURN_S: Final = 0.02


@attack
def big_flood(place: Field) -> None:
    """Frames of 15 messages of 1 MB at full speed."""
    peer = Peer(place)
    while place.goes_on:
        peer.publish([peer.message("trap.big.v1", MEGABYTE) for _ in range(BATCH_BIG)])
        peer.drain()


@attack
def big_flood_deaf(place: Field) -> None:
    """The same by one who hears no answer."""
    peer = Peer(place)
    while place.goes_on:
        peer.publish([peer.message("trap.big.v1", MEGABYTE) for _ in range(BATCH_BIG)])


@attack
def small_flood(place: Field) -> None:
    """Frames of 50 small messages from four connections at full speed."""
    peers = [Peer(place, hwm=100) for _ in range(4)]
    while place.goes_on:
        for peer in peers:
            peer.publish([peer.message("trap.small.v1", b"{}") for _ in range(50)])
            peer.drain()


@attack
def feeder(place: Field) -> None:
    """Bring 100 KB messages for those who take them badly."""
    peer = Peer(place)
    body = MEGABYTE[:100_000]
    while place.goes_on:
        peer.publish([peer.message("trap.food.v1", body) for _ in range(20)])
        peer.drain()
        time.sleep(TURN_S)


@attack
def never_reads(place: Field) -> None:
    """HELLO and CREDIT, PING each second to look alive, and nothing is ever received."""
    peers: list[Any] = []
    while place.goes_on:
        if len(peers) < 5:
            peers.append(Peer(place))
            peers[-1].credit("trap", 100_000)
        for number, peer in enumerate(peers):
            peer.say(frames.PING, frames.encode(frames.Ping(number)))
        time.sleep(1.0)


@attack
def never_settles(place: Field) -> None:
    """Takes deliveries and never says what became of them."""
    peer = Peer(place)
    peer.credit("trap", 100_000)
    while place.goes_on:
        peer.hear(wait=True)
        place.done["taken"] += 1


@attack
def retries_without_pause(place: Field) -> None:
    """Settles every delivery as RETRY, to come again at once."""
    peer = Peer(place, hwm=100)
    peer.credit("trap", 10_000)
    while place.goes_on:
        heard = peer.hear(wait=True)
        if isinstance(heard, frames.Deliver):
            again = [frames.Settlement(one.delivery, frames.RETRY, 0) for one in heard.deliveries]
            peer.say(frames.SETTLE, frames.encode(frames.Settle(again)))


@attack
def asks_and_never_reads(place: Field) -> None:
    """Asks without end, and the answers of 15 MB are never received."""
    peer, body = Peer(place, hwm=1000), msgspec.Raw(msgspec.msgpack.encode(None))
    number = 0
    while place.goes_on:
        number += 1
        body = msgspec.Raw(msgspec.msgpack.encode(peer.message("trap.question.v1", b"{}")))
        asked = frames.RequestRaw(number, "trap", 60_000, body)
        peer.say(frames.REQUEST, frames.encode(asked))
        time.sleep(0.01)


@attack
def answers_hugely(place: Field) -> None:
    """Answers each question with 15 MB."""
    peer = Peer(place, hwm=2)
    peer.credit("trap", 0)
    body = MEGABYTE * 15
    while place.goes_on:
        heard = peer.hear(wait=True)
        if isinstance(heard, frames.Request):
            peer.say(frames.REPLY, frames.encode(frames.Reply(heard.request, body=body)))


@attack
def invalid_by_the_thousand(place: Field) -> None:
    """A name without rights: four connections of frames of 4,096 messages that are none."""
    peers = [Peer(place, "norights", hwm=100) for _ in range(4)]
    nothing: list[Any] = [None] * frames.BATCH_LENGTH_MAX
    while place.goes_on:
        for peer in peers:
            peer.publish(nothing)


@attack
def broken_frames(place: Field) -> None:
    """Verbs and payloads that are none, and what needs rights, from a name without any."""
    random, peer = Random(5), Peer(place, "norights", hwm=100)
    verbs = [*frames.ROUTER_READS, b"NONSENSE", b"", b"\xff" * 300]
    while place.goes_on:
        for _ in range(50):
            verb = random.choice([one for one in verbs if one != frames.BYE])
            peer.say(verb, random.randbytes(random.randrange(200)))
        peer.drain()


@attack
def sessions_without_end(place: Field) -> None:
    """A new session every few milliseconds, and none is ever ended."""
    peers: list[Peer] = []
    while place.goes_on and len(peers) < 400:
        peers.append(Peer(place))
        time.sleep(0.005)
    while place.goes_on:
        for peer in peers:
            peer.drain(3)
        time.sleep(0.5)


@attack
def chosen_ids(place: Field) -> None:
    """Routing ids that others might have: names, numbers, noise; never of libzmq's own form."""
    random = Random(3)
    known = [b"good", b"smp", b"sys112", b"router", b"admin", b"1", b"\x01\x02\x03\x04\x05"]
    while place.goes_on:
        chosen = random.choice([*known, b"x" + random.randbytes(random.randrange(1, 200))])
        peer = Peer(place, routing_id=chosen)
        peer.credit("trap", 10)
        time.sleep(TURN_S)
        peer.drain(10)
        peer.socket.close(0)


@attack
def strangers(place: Field) -> None:
    """Connections without a key to the CURVE port, more than the router has descriptors: silent
    ones, noise, greetings that are never finished. What is closed is opened anew."""
    said = (b"", b"GET / HTTP/1.1\r\n\r\n", GREETING, os.urandom(64), b"\xff" * 9)
    held: list[Any] = []
    number = 0
    while place.goes_on:
        held = [one for one in held if not is_over(one) or one.close()]
        for _ in range(100):
            if len(held) >= STRANGERS or not place.goes_on:
                break
            channel = connect(place.ports["bus"], place.done)
            if channel is None:
                time.sleep(0.01)
                continue
            number += 1
            held.append(channel)
        time.sleep(0.01)
        for at, channel in enumerate(held[-100:]):
            send(channel, said[at % len(said)])
        time.sleep(0.05)


@attack
def foreign_keys(place: Field) -> None:
    """Peers with a key that nobody knows, over TCP, again and again."""
    public, secret = zmq.curve_keypair()
    server = (place.folder / "keys" / "router.pub").read_bytes().strip()
    held: list[Any] = []
    while place.goes_on:
        socket = Peer.context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RECONNECT_IVL, 20)
        socket.curve_publickey, socket.curve_secretkey = public, secret
        socket.curve_serverkey = server
        socket.connect(f"tcp://127.0.0.1:{place.ports['bus']}")
        held.append(socket)
        place.done["sockets"] += 1
        if len(held) > 200:
            held.pop(0).close(0)
        time.sleep(0.01)


@attack
def bulk(place: Field) -> None:
    """One peer's bulk fills whatever takes it: the queue that it shares, then the disk."""
    peer, body = Peer(place, hwm=10), MEGABYTE[:20_000]
    kept_ms = max(1, int((place.ends - time.monotonic()) * 1000))
    while place.goes_on:
        peer.publish([
            peer.message("bulk.export.v1", body, priority=3, kept_ms=kept_ms) for _ in range(50)
        ])  # fmt: skip
        for _ in range(20):
            heard = peer.hear()
            if isinstance(heard, frames.RefusedBatch):
                for refused in heard.refusals[:1]:
                    place.done[refused.code] += 1
            elif heard is None:
                break
        time.sleep(0.01)
