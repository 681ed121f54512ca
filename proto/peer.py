"""The peer's half of the conversation, without sockets, clock or threads.

`Peer` knows what was published and not yet accepted, which credit was granted, and what to say
after a reconnect. `BusClient` and `BlockingBusClient` are two shells around it.

States: `greeting` (HELLO said, nothing else may be) -> `welcomed` -> `greeting` again after the
connection or the router was lost. What is published while greeting waits here, in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from proto import frames
from proto.errors import FATAL, BusError, Code, Refused
from proto.message import Message

Frames = list[bytes]


@dataclass(slots=True)
class Batch:
    """Messages published together and what became of them; `refused` is by index."""

    number: int
    messages: Sequence[Message]
    refused: dict[int, Refused] = field(default_factory=dict)


@dataclass(slots=True)
class Completed:
    """Every message of `batch` is accepted or refused."""

    batch: Batch


@dataclass(slots=True)
class Disconnected:
    """The router does not know this session any more: open a new connection and say HELLO."""

    reason: str


Event = (
    frames.Welcome | Completed | Disconnected | frames.Deliver | frames.Request | frames.Reply
    | frames.Error
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
        self._settled_away: list[frames.Settlement] = []
        self._report: bytes | None = None
        self._reports_known = True  # until a router says that it knows no REPORT
        self._batch_number = 0
        self._outbox: list[Frames] = []

    def take_outbox(self) -> list[Frames]:
        """Return the frames to send now, in order, and forget them."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def greet(self) -> None:
        """Begin on a fresh connection: HELLO first, everything else after WELCOME."""
        self.welcome = None
        hello = frames.Hello([frames.PROTOCOL_VERSION], self.name, self.software)
        self._outbox = [[frames.HELLO, frames.encode(hello)]]

    def publish(self, messages: Sequence[Message]) -> Batch:
        """Publish now, or as soon as welcomed; kept until the router has accepted it."""
        self._batch_number += 1
        batch = Batch(self._batch_number, messages)
        self.unaccepted[batch.number] = batch
        if self.welcome is not None:
            self._send_batch(batch)
        return batch

    def credit(self, destination: str, window: int) -> None:
        """Say how many unsettled deliveries of `destination` this peer will hold."""
        self.windows[destination] = window
        if self.welcome is not None:
            self._send(frames.CREDIT, frames.Credit(destination, window))

    def withdraw(self, destination: str, *, serving: bool = False) -> None:
        """Take no more deliveries of `destination`; `serving`: questions to it are still answered.

        What is on its way already goes back to the router when it comes (see `receive`).
        """
        self.credit(destination, 0)
        if not serving:
            del self.windows[destination]

    def settle(self, settlements: list[frames.Settlement]) -> None:
        """Settle deliveries, or keep what is settled until the router is back.

        The router takes an ack for a delivery that it has since given to nobody else, which saves
        the partner a repeat. What is kept is bounded by the credit granted.
        """
        if self.welcome is None:
            self._settled_away.extend(settlements)
            return
        for start in range(0, len(settlements), frames.BATCH_LENGTH_MAX):
            part = settlements[start : start + frames.BATCH_LENGTH_MAX]
            self._send(frames.SETTLE, frames.Settle(part))

    def request(self, request: frames.Request) -> None:
        """Ask; a question is transient, so it is not repeated after a reconnect."""
        self._send(frames.REQUEST, request)

    def reply(self, reply: frames.Reply) -> None:
        """Answer a request."""
        self._send(frames.REPLY, reply)

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

    def receive(self, parts: Frames) -> list[Event]:
        """Take one multipart message of the router. Raises FrameError if it is not understood."""
        payload = frames.read(parts, frames.PEER_READS)
        match payload:
            case frames.Accepted(batches):
                return [Completed(b) for n in batches if (b := self.unaccepted.pop(n, None))]
            case frames.RefusedBatch():
                return self._on_refused(payload)
            case frames.Welcome():
                return self._on_welcome(payload)
            case frames.Error():
                return self._on_error(payload)
            case frames.Bye(reason):
                self.welcome = None
                return [Disconnected(reason)]
            case frames.Ping() if parts[0] == frames.PING:
                self._send(frames.PONG, payload)
                return []
            case frames.Deliver(destination, deliveries):
                if self.windows.get(destination):
                    return [payload]
                # Sent before the router heard that nobody takes it here any more: unsettled it
                # would stay with this session for as long as that lives.
                self.settle(
                    [
                        frames.Settlement(
                            one.delivery, frames.RETRY, 0, "consumer closed", one.generation
                        )
                        for one in deliveries
                    ]
                )
            case frames.Request() | frames.Reply():
                return [payload]
        return []

    def _on_welcome(self, welcome: frames.Welcome) -> list[Event]:
        self.welcome = welcome
        settled, self._settled_away = self._settled_away, []
        self.settle(settled)  # before CREDIT, so that these are not delivered again
        for destination, window in self.windows.items():
            self._send(frames.CREDIT, frames.Credit(destination, window))
        for batch in self.unaccepted.values():
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
        del self.unaccepted[batch.number]
        return [Completed(batch)]

    def _on_error(self, error: frames.Error) -> list[Event]:
        if error.code == Code.HELLO_REQUIRED:
            if self.welcome is None:
                return []  # said to what was sent before the greeting; the greeting is under way
            self.welcome = None
            return [Disconnected(error.sentence)]
        if error.code == Code.UNKNOWN_VERB and error.verb == frames.REPORT.decode():
            self._reports_known = False  # an older router: it need not hear of it every time
            return []
        if error.code in FATAL:
            self.welcome = None
            self.fatal = BusError(error.code, error.sentence)
        return [error]

    def _send_batch(self, batch: Batch) -> None:
        batch.refused.clear()
        self._send(frames.PUBLISH, frames.Publish(batch.number, list(batch.messages)))

    def _send_report(self) -> None:
        if self._report is not None and self._reports_known:
            self._send(frames.REPORT, frames.Report(self._report))

    def _send(self, verb: bytes, payload: object) -> None:
        self._outbox.append([verb, frames.encode(payload)])
