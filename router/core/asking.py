"""Request and reply: a question goes to one of those who serve, its answer back to the asker."""

from typing import Final

from proto import frames
from proto.errors import Code
from proto.message import UNREADABLE, decode_message, fault_of, overlong
from router.core.clock import Now
from router.core.delivery import Holding
from router.core.questions import Question
from router.core.session import Session
from router.core.state import CoreState

QUESTIONS_MAX: Final = 1024  # open ones of one session


class Asking(CoreState):
    """REQUEST and REPLY."""

    def _request(self, session: Session, request: frames.RequestRaw, now: Now) -> None:
        question = Question(session.peer, request.request, b"", now.mono_ms + request.timeout_ms)
        queue = self.queues.get(request.destination)
        if not session.rights.ask.match(request.destination):
            sentence = f"{session.name} may not ask {request.destination}"
            return self._answer(question, Code.NOT_PERMITTED, sentence)
        try:
            message = decode_message(request.message)
        except UNREADABLE as error:
            return self._answer(question, Code.BAD_MESSAGE, fault_of(error))
        if fault := overlong(message):
            return self._answer(question, Code.BAD_MESSAGE, fault)
        if message.source != session.name:
            return self._answer(question, Code.SOURCE_MISMATCH, "the source is not your name")
        holdings = queue.holdings if queue is not None else []
        servers = self._servers(request.destination, holdings)
        if not servers:
            sentence = "nobody serves this destination now"
            if any(holding.serves for holding in holdings):
                sentence = "whoever says that it serves this destination has no right to (serve)"
            return self._answer(question, Code.NO_CONSUMER, sentence)
        if len(message.body) > self.body_bytes_max:
            sentence = f"the body is over {self.body_bytes_max} bytes"
            return self._answer(question, Code.BODY_TOO_LARGE, sentence)
        if (asking := self._questions.asked_by(session.peer)) >= QUESTIONS_MAX:
            return self._answer(question, Code.QUEUE_FULL, f"{asking} questions are open")
        number = self._questions.open(question)
        server = question.server = servers[number % len(servers)].peer
        self._set_timer(request.timeout_ms, "answer", number, now)
        forwarded = frames.RequestRaw(
            number, request.destination, request.timeout_ms, request.message
        )
        return self._send(server, frames.REQUEST, forwarded)

    def _servers(self, destination: str, holdings: list[Holding]) -> list[Holding]:
        """Return who may be asked: whoever has the right and says that it serves.

        Where nobody says so, those who do not know of that word: before there was one, credit alone
        said it. Their right still tells them from those who only read the queue.
        """
        may = [one for one in holdings if self.sessions[one.peer].rights.serve.match(destination)]
        return [one for one in may if one.serves] or [one for one in may if one.serves is None]

    def _reply(self, session: Session, reply: frames.Reply) -> None:
        question = self._questions.get(reply.request)
        # The right to answer is minted by the question: nobody else may.
        if question is None or question.server != session.peer:
            self.counters["late_replies"] += 1
            return
        self._questions.close(reply.request)
        if len(reply.body) > self.body_bytes_max:
            sentence = f"the answer is over {self.body_bytes_max} bytes"
            self._answer(question, Code.BODY_TOO_LARGE, sentence)
            self._error(session.peer, Code.BODY_TOO_LARGE, sentence, "REPLY")
            return
        answer = frames.Reply(
            question.number, reply.code, reply.sentence, reply.content_type, reply.body
        )
        self._send(question.asker, frames.REPLY, answer)

    def _answer(self, question: Question, code: str, sentence: str) -> None:
        self._send(question.asker, frames.REPLY, frames.Reply(question.number, code, sentence))
