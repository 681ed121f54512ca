"""The peer's half of the conversation, without sockets, clock or threads.

`Peer` knows what was published and not yet accepted, which credit was granted, and what to say
after a reconnect. `BusClient` and `BlockingBusClient` are two shells around it.

States: `greeting` (HELLO said, nothing else may be) -> `welcomed` -> `greeting` again after the
connection or the router was lost. What is published while greeting waits here, in order.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from . import frames
from .errors import FATAL, BusError, Code, Refused, RequestFailed
from .message import UNREADABLE, Message

Frames = list[bytes]
# What becomes of deliveries without anybody's doing: notes as proto/note.py has them.
CLOSED_NOTE: Final = "client.closed"
STOPPED_NOTE: Final = "client.stopped"
UNREADABLE_NOTE: Final = "client.unreadable"
# What encoding a message may raise: text that is no text, a number without end, not of the shape.
SETTLED_LAST_MAX: Final = 4096
UNSPEAKABLE: Final = (ValueError, OverflowError, TypeError, RecursionError)


@dataclass(slots=True)
class Batch:
    """Messages published together and what became of them; `refused` is by index.

    What is too long for one frame goes as several batches, each a part of the `whole` one from
    index `at` on; `parts` of a whole are still without an answer.
    """

    number: int
    messages: Sequence[Message]
    refused: dict[int, Refused] = field(default_factory=dict)
    whole: "Batch | None" = None
    at: int = 0
    parts: int = 0
    done: bool = False


@dataclass(slots=True)
class Completed:
    """Every message of `batch` is accepted or refused."""

    batch: Batch


@dataclass(slots=True)
class Disconnected:
    """The router does not know this session any more: open a new connection and say HELLO."""

    reason: str


@dataclass(slots=True)
class Granting:
    """The router does not give this peer `destination` (`code` and `sentence` say why), or gives
    it again (`code` is "")."""

    destination: str
    code: str = ""
    sentence: str = ""


Event = (
    frames.Welcome | Completed | Disconnected | Granting | frames.Deliver | frames.Request
    | frames.Reply | frames.Error
)  # fmt: skip


class Peer:
    """One peer's state. Methods return frames to send; `receive` returns what happened."""

    def __init__(self, name: str, software: str) -> None:
        self.name = name
        self.software = software
        self.welcome: frames.Welcome | None = None
        self.fatal: BusError | None = None
        self.unaccepted: dict[int, Batch] = {}
        self.windows: dict[str, int] = {}
        self._served: set[str] = set()  # to these questions are answered
        self.refused: dict[str, str] = {}  # destination -> the code by which it is not given
        self._said: dict[str, str] = {}  # the same, as it was said last; outlives a consumer
        self._asked: deque[tuple[int, str]] = deque()  # PINGs behind a CREDIT, and its destination
        self._given: set[str] = set()  # asked for, and no ERROR so far
        self._nonce = 0
        self._alone = 0  # the number of the one message that is under way then
        self._careful = False  # messages go one by one: the router could not read some frame
        self._plain = False  # settlements go without their notes: the router did not take one
        self._settled_away: list[frames.Settlement] = []
        # what was said last in this session, which may be over without our knowing
        self._settled_last: deque[tuple[int, bytes]] = deque()  # how many, as they were sent
        self._settled_count = 0
        self._report: bytes | None = None
        self._reports_known = True  # until a router says that it knows no REPORT
        self._batch_number = 0
        self._frame_max = frames.FRAME_BYTES_MAX - frames.FRAME_SPARE
        self._length_max = frames.BATCH_LENGTH_MAX
        self._outbox: list[Frames] = []
        self.ready: list[Event] = []  # what happened without a frame of the router

    def take_outbox(self) -> list[Frames]:
        """Return the frames to send now, in order, and forget them."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def take_ready(self) -> list[Event]:
        """Return what happened without a frame of the router, and forget it: messages that no
        frame can hold."""
        ready, self.ready = self.ready, []
        return ready

    def unsent(self, outbox: list[Frames]) -> None:
        """Frames that the connection did not take any more: settlements wait for the next one,
        everything else is said again or is of no use."""
        for verb, payload in outbox:
            if verb == frames.SETTLE:
                settle = frames.ROUTER_READS[frames.SETTLE].decode(payload)
                self._settled_away.extend(settle.settlements)

    def lost(self) -> None:
        """The connection is gone: what comes now waits for the next greeting."""
        self.welcome = None

    def greet(self) -> None:
        """Begin on a fresh connection: HELLO first, everything else after WELCOME."""
        self.welcome = None
        self._asked.clear()
        hello = frames.Hello([frames.PROTOCOL_VERSION], self.name, self.software)
        self._outbox = [[frames.HELLO, frames.encode(hello)]]

    # -- publishing ---------------------------------------------------------------------------

    def publish(self, messages: Sequence[Message]) -> Batch:
        """Publish now, or as soon as welcomed; kept until the router has accepted it.

        What no frame can hold is refused; see `take_ready`.
        """
        batch = self._new_batch(messages)
        self.unaccepted[batch.number] = batch
        if self.welcome is not None:
            if self._careful:
                self._send_next()
            else:
                self._send_batch(batch)
        return batch

    def refuse_all(self, refusal: Refused) -> list[Event]:
        """Refuse whatever has no answer, since none will come."""
        events: list[Event] = []
        for batch in list(self.unaccepted.values()):
            batch.refused = dict.fromkeys(range(len(batch.messages)), refusal)
            events += self._end(batch)
        return events

    def forget(self, batch: Batch) -> None:
        """Repeat a batch, or what is left of its parts, no more."""
        for one in list(self.unaccepted.values()):
            whole: Batch | None = one
            while whole is not None and whole is not batch:
                whole = whole.whole
            if whole is batch:
                del self.unaccepted[one.number]

    def _new_batch(self, messages: Sequence[Message]) -> Batch:
        self._batch_number += 1
        return Batch(self._batch_number, messages)

    def _send_batch(self, batch: Batch) -> None:
        batch.refused.clear()
        try:
            payload = frames.encode(frames.Publish(batch.number, list(batch.messages)))
        except UNSPEAKABLE as error:
            if len(batch.messages) == 1:
                # The text of the exception may quote the message.
                sentence = f"the message cannot be encoded: {type(error).__name__}"
                self._refuse(batch, Refused(Code.BAD_MESSAGE, sentence))
            else:
                self._send_halves(batch)
            return
        if len(payload) <= self._frame_max and len(batch.messages) <= self._length_max:
            self._outbox.append([frames.PUBLISH, payload])
        elif len(batch.messages) > 1:
            self._send_halves(batch)
        else:
            sentence = (
                f"the message is {len(payload)} bytes with its envelope, "
                f"a frame of this router holds {self._frame_max}"
            )
            self._refuse(batch, Refused(Code.BODY_TOO_LARGE, sentence))

    def _send_halves(self, batch: Batch) -> None:
        for half in self._divide(batch):
            self._send_batch(half)

    def _divide(self, batch: Batch) -> list[Batch]:
        """Make two of a batch, in its place."""
        middle = len(batch.messages) // 2
        batch.parts = 2
        parts = (batch.messages[:middle], batch.messages[middle:])
        halves = [self._new_batch(part) for part in parts]
        halves[1].at = middle
        kept = self.unaccepted
        self.unaccepted = {}
        for number, other in kept.items():
            if other is not batch:
                self.unaccepted[number] = other
                continue
            for half in halves:
                half.whole = batch
                self.unaccepted[half.number] = half
        return halves

    def _send_next(self) -> None:
        """Send the first message that has no answer, alone, unless it is under way."""
        while self.unaccepted:
            batch = next(iter(self.unaccepted.values()))
            if len(batch.messages) == 1:
                if batch.number != self._alone:
                    self._alone = batch.number
                    self._send_batch(batch)
                return
            self._divide(batch)
        self._careful = False

    def _refuse(self, batch: Batch, refusal: Refused) -> None:
        batch.refused = dict.fromkeys(range(len(batch.messages)), refusal)
        self.ready += self._end(batch)

    def _end(self, batch: Batch) -> list[Event]:
        """A batch has its answers; return what is completed by that."""
        self.unaccepted.pop(batch.number, None)
        batch.done = True
        if self._careful and self.welcome is not None:
            self._send_next()
        whole = batch.whole
        if whole is None:
            return [Completed(batch)]
        for index, refusal in batch.refused.items():
            whole.refused[batch.at + index] = refusal
        whole.parts -= 1
        return [] if whole.parts else self._end(whole)

    # -- consuming ----------------------------------------------------------------------------

    def credit(self, destination: str, window: int) -> None:
        """Say how many unsettled deliveries of `destination` this peer will hold."""
        self.windows[destination] = window
        if self.welcome is not None:
            self._send_credit(destination)

    def serve(self, destination: str) -> None:
        """Say that this peer answers questions to `destination`, whatever it consumes of it."""
        self._served.add(destination)
        self.credit(destination, self.windows.get(destination, 0))

    def _send_credit(self, destination: str) -> None:
        window = self.windows[destination]
        self._send(frames.CREDIT, frames.Credit(destination, window, destination in self._served))

    def withdraw(self, destination: str) -> None:
        """Take no more deliveries of `destination`; if it is served, questions to it still come.

        What is on its way already goes back to the router when it comes (see `receive`).
        """
        if destination in self.refused:
            self.windows[destination] = 0
        else:
            self.credit(destination, 0)
        if destination not in self._served:
            del self.windows[destination]
            self.refused.pop(destination, None)

    def ask_again(self) -> None:
        """Grant again what the router did not give. Its answers come in order, so a PONG to the
        PING behind a CREDIT says that this one was heard."""
        for destination in self.refused:
            self._ask(destination)

    def _ask(self, destination: str) -> None:
        if self.welcome is not None and all(asked != destination for _, asked in self._asked):
            self._send_credit(destination)
            self._given.add(destination)
            self._nonce += 1
            self._asked.append((self._nonce, destination))
            self._send(frames.PING, frames.Ping(self._nonce))

    def _on_pong(self, nonce: int) -> list[Event]:
        if not self._asked or self._asked[0][0] != nonce:
            return []
        destination = self._asked.popleft()[1]
        if destination in self._given and destination in self.refused:
            del self.refused[destination]
            if self._said.pop(destination, ""):
                return [Granting(destination)]
        return []

    def _on_credit_error(self, error: frames.Error) -> list[Event]:
        if not self._asked:  # which one it speaks of is found by asking for them one by one
            for destination in self.windows:
                self.refused.setdefault(destination, "")
                self._ask(destination)
            return []
        destination = self._asked[0][1]
        self._given.discard(destination)
        if destination not in self.windows:
            return []
        self.refused[destination] = error.code
        if self._said.get(destination) == error.code:
            return []
        self._said[destination] = error.code
        return [Granting(destination, error.code, error.sentence)]

    def settle(self, settlements: list[frames.Settlement]) -> None:
        """Settle deliveries, or keep what is settled until the router is back.

        The router takes an ack for a delivery that it has since given to nobody else, which saves
        the partner a repeat. What is kept is bounded by the credit granted.
        """
        if self.welcome is None:
            self._settled_away.extend(settlements)
            return
        if self._plain:
            settlements = [msgspec.structs.replace(one, note=None) for one in settlements]
        for start in range(0, len(settlements), self._length_max):
            self._send_settlements(settlements[start : start + self._length_max])

    def _send_settlements(self, settlements: list[frames.Settlement]) -> None:
        payload = frames.encode(frames.Settle(settlements))
        if len(payload) > self._frame_max and len(settlements) > 1:
            middle = len(settlements) // 2
            self._send_settlements(settlements[:middle])
            self._send_settlements(settlements[middle:])
        else:
            self._outbox.append([frames.SETTLE, payload])
            last = self._settled_last
            last.append((len(settlements), payload))
            self._settled_count += len(settlements)
            while self._settled_count - last[0][0] >= SETTLED_LAST_MAX:
                self._settled_count -= last.popleft()[0]

    # -- request and reply --------------------------------------------------------------------

    def request(self, request: frames.Request) -> None:
        """Ask; a question is transient, so it is not repeated after a reconnect.

        Raises RequestFailed when no frame can hold it.
        """
        try:
            payload = frames.encode(request)
        except UNSPEAKABLE as error:
            sentence = f"the question cannot be encoded: {type(error).__name__}"
            raise RequestFailed(Code.BAD_MESSAGE, sentence) from None
        if len(payload) > self._frame_max:
            sentence = f"the question is {len(payload)} bytes, of {self._frame_max}"
            raise RequestFailed(Code.BODY_TOO_LARGE, sentence)
        self._outbox.append([frames.REQUEST, payload])

    def reply(self, reply: frames.Reply) -> None:
        """Answer a request; what no frame can hold is answered so."""
        if self.welcome is None:
            return  # whoever asked was told that this session is gone
        payload = frames.encode(reply)
        if len(payload) > self._frame_max:
            sentence = f"the answer is {len(payload)} bytes, of {self._frame_max}"
            payload = frames.encode(frames.Reply(reply.request, Code.BODY_TOO_LARGE, sentence))
        self._outbox.append([frames.REPLY, payload])

    def report(self, body: bytes) -> None:
        """Tell operators how this peer is; the newest report is told after a reconnect, too.

        Raises ValueError when it is longer than the wire allows.
        """
        if len(body) > frames.REPORT_BYTES_MAX:
            raise ValueError(f"a report of {len(body)} bytes, of {frames.REPORT_BYTES_MAX}")
        self._report = body
        if self.welcome is not None:
            self._send_report()

    def ping(self) -> None:
        """Show that this peer lives, and see whether the router does."""
        self._send(frames.PING, frames.Ping())

    def bye(self, reason: str) -> None:
        """Leave: unsettled deliveries go to other consumers at once."""
        if self.welcome is not None:
            self._send(frames.BYE, frames.Bye(reason))

    # -- what the router says -----------------------------------------------------------------

    def receive(self, parts: Frames) -> list[Event]:
        """Take one multipart message of the router. Raises FrameError if it is not understood."""
        try:
            payload = frames.read(parts, frames.PEER_READS)
        except frames.FrameError as error:
            if error.verb != frames.DELIVER.decode():
                raise
            payload = self._read_one_by_one(parts[1], error)
        match payload:
            case frames.Accepted(batches):
                accepted = [b for n in batches if (b := self.unaccepted.pop(n, None))]
                return [event for batch in accepted for event in self._end(batch)]
            case frames.RefusedBatch():
                return self._on_refused(payload)
            case frames.Welcome():
                return self._on_welcome(payload)
            case frames.Error():
                return self._on_error(payload)
            case frames.Bye(reason):
                self.welcome = None
                return [Disconnected(reason)]
            case frames.Ping(nonce):
                if parts[0] != frames.PING:
                    return self._on_pong(nonce)
                self._send(frames.PONG, payload)
            case frames.Deliver(destination, deliveries):
                if self.windows.get(destination):
                    return [payload] if deliveries else []
                # Sent before the router heard that nobody takes it here any more: unsettled it
                # would stay with this session for as long as that lives.
                self.settle(
                    [
                        frames.Settlement(
                            one.delivery, frames.RETRY, 0, CLOSED_NOTE, one.generation
                        )
                        for one in deliveries
                    ]
                )
            case frames.Request() | frames.Reply():
                return [payload]
        return []

    def _read_one_by_one(self, payload: bytes, error: frames.FrameError) -> frames.Deliver:
        """Reject what cannot be read of a DELIVER, and take the rest: unsettled all of it would
        stay with this session, and would come again to the next one."""
        try:
            deliver, unreadable = frames.read_deliveries(payload)
        except UNREADABLE:
            raise error from None
        if unreadable:
            self.settle(
                [
                    frames.settlement(
                        one.delivery, frames.REJECT, UNREADABLE_NOTE, generation=one.generation
                    )
                    for one in unreadable
                ]
            )
        return deliver

    def _on_welcome(self, welcome: frames.Welcome) -> list[Event]:
        self.welcome = welcome
        self._frame_max = max(1, welcome.frame_bytes_max - frames.FRAME_SPARE)
        self._length_max = max(1, min(welcome.batch_length_max, frames.BATCH_LENGTH_MAX))
        self._settled_last.clear()
        self._settled_count = 0
        settled, self._settled_away = self._settled_away, []
        self.settle(settled)  # before CREDIT, so that these are not delivered again
        for destination in self.windows:
            if destination in self.refused:
                self._ask(destination)
            else:
                self._send_credit(destination)
        if self._careful:
            self._alone = 0
            self._send_next()
        else:
            for batch in list(self.unaccepted.values()):
                self._send_batch(batch)
        self._reports_known = True
        self._send_report()
        return [welcome]

    def _on_refused(self, refused: frames.RefusedBatch) -> list[Event]:
        batch = self.unaccepted.get(refused.batch)
        if batch is None:
            return []
        for refusal in refused.refusals:
            error = Refused(refusal.code, refusal.sentence, refusal.retry_after_ms)
            batch.refused[refusal.index] = error
        if len(batch.refused) < len(batch.messages):
            return []  # the rest is on its way to the disk: ACCEPTED follows
        return self._end(batch)

    def _on_error(self, error: frames.Error) -> list[Event]:
        if error.code == Code.HELLO_REQUIRED:
            if self.welcome is None:
                return []  # said to what was sent before the greeting; the greeting is under way
            self.welcome = None
            # The session was over, who knows since when, and what was said since not heard. What is
            # done is done, and said again; a repeat of what was heard does no harm.
            read = frames.ROUTER_READS[frames.SETTLE].decode
            said = (one for _, payload in self._settled_last for one in read(payload).settlements)
            acks = [one for one in said if one.outcome == frames.ACK]
            self._settled_away = acks + self._settled_away
            return [Disconnected(error.sentence)]
        if error.code == Code.UNKNOWN_VERB and error.verb == frames.REPORT.decode():
            self._reports_known = False  # an older router: it need not hear of it every time
            return []
        if error.code in FATAL:
            self.welcome = None
            self.fatal = BusError(error.code, error.sentence)
        elif error.verb == frames.CREDIT.decode():
            return [error, *self._on_credit_error(error)]
        elif error.code == Code.BAD_FRAME and error.verb == frames.SETTLE.decode():
            # Nothing of that frame counts, and nobody knows which deliveries were in it. With the
            # session they go back to the router; from now on they are settled without a word.
            self._plain = True
            self.bye("a settlement was not taken")
            return [error, Disconnected(error.sentence)]
        elif error.code == Code.BAD_FRAME and error.verb == frames.PUBLISH.decode():
            return [error, *self._on_publish_error()]
        return [error]

    def _on_publish_error(self) -> list[Event]:
        """The router could not read a PUBLISH, and does not say which. In a new session what has no
        answer goes message by message; then it is the one that is under way."""
        if self._careful:
            batch = self.unaccepted.get(self._alone)
            if batch is None:
                return []
            batch.refused = {0: Refused(Code.BAD_MESSAGE, "the router cannot read this message")}
            return self._end(batch)
        if not self.unaccepted:
            return []
        self._careful = True
        self.bye("a PUBLISH was not understood")
        return [Disconnected("the router could not read a PUBLISH")]

    def _send_report(self) -> None:
        if self._report is not None and self._reports_known:
            self._send(frames.REPORT, frames.Report(self._report))

    def _send(self, verb: bytes, payload: object) -> None:
        self._outbox.append([verb, frames.encode(payload)])
