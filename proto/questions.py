"""Request and reply: questions that this client asks, and those that it answers."""

import asyncio
from collections.abc import Awaitable, Callable

from . import frames
from .dealer import check_name, check_question, encode_json
from .errors import BusError, Code, RequestFailed
from .message import Message
from .session import Session

Server = Callable[[Message], Awaitable[object]]


class Questions:
    """Those of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._servers: dict[str, Server] = {}
        self._asked: dict[int, asyncio.Future[frames.Reply]] = {}
        self._number = 0
        session.on[frames.Request] = self._on_request
        session.on[frames.Reply] = self._on_reply

    async def ask(self, destination: str, message: Message, timeout_s: float) -> frames.Reply:
        """See `BusClient.request`."""
        self._session.raise_if_dead()
        timeout_ms = check_question(destination, timeout_s)
        if not self._session.connected:
            raise RequestFailed(Code.NO_CONSUMER, "the router is away; a question is not kept")
        self._number += 1
        number = self._number
        answer: asyncio.Future[frames.Reply] = self._session.loop.create_future()
        self._session.peer.request(frames.Request(number, destination, timeout_ms, message))
        self._asked[number] = answer
        self._session.send()
        try:
            # The router answers at the deadline; the margin is for a router that is gone.
            reply = await asyncio.wait_for(answer, timeout_s + 1.0)
        except TimeoutError:
            raise RequestFailed(Code.TIMEOUT, f"no answer in {timeout_s:g} s") from None
        finally:
            self._asked.pop(number, None)
        if reply.code:
            raise RequestFailed(reply.code, reply.sentence)
        return reply

    def fail(self, code: str, sentence: str) -> None:
        """No question that was asked will be answered."""
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(RequestFailed(code, sentence))

    def serve(self, destination: str, server: Server) -> None:
        """See `BusClient.serve`."""
        check_name(destination)
        self._servers[destination] = server
        self._session.peer.serve(destination)
        self._session.send()

    def _on_reply(self, reply: frames.Reply) -> None:
        answer = self._asked.get(reply.request)
        if answer is not None and not answer.done():
            answer.set_result(reply)

    def _on_request(self, request: frames.Request) -> None:
        if server := self._servers.get(request.destination):
            self._session.spawn(self._answer(request, server))
        else:  # whoever asks need not wait for nothing
            peer = self._session.peer
            sentence = f"{peer.name} answers no questions to {request.destination}"
            peer.reply(frames.Reply(request.request, Code.NO_CONSUMER, sentence))

    async def _answer(self, request: frames.Request, server: Server) -> None:
        try:
            body = await server(request.message)
            encoded = body if isinstance(body, bytes) else encode_json(body)
            reply = frames.Reply(request.request, body=encoded)
        except asyncio.CancelledError:
            raise
        except BusError as error:
            code = frames.words(error.code, frames.CODE_LENGTH_MAX)
            reply = frames.Reply(request.request, code, frames.words(error.sentence))
        except BaseException as error:  # the asker must hear of it; the text may hold personal data
            reply = frames.Reply(request.request, Code.FAILED, frames.words(type(error).__name__))
        self._session.peer.reply(reply)
        self._session.send()
