"""What every simulator is told, and how it brings its own data to a connector."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.types import Lifespan

from connectors.runtime.log import LOG
from connectors.runtime.partner.http import HttpAnswer, HttpClient, Unreachable
from connectors.runtime.secretfile import read_secret_text
from connectors.simulators.kit.faults import Faults

# Who asks, and what for: a question about a person says so.
ASKED: Final = {"x-asked-by": "dispatcher-7", "x-purpose": "simulated call"}


class SimulatorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`connector_url` is the connector's own listener; `pace_s` is the time between two steps of a
    simulated life; `repeat_s` is the pause before a post that was not taken is repeated;
    `token_file` holds the token that opens the connector's door."""

    connector_url: str = ""
    pace_s: float = 1.0
    repeat_s: float = 3.0
    seed: int = 0
    ledger: Path | None = None
    strict: bool = True
    faults: Faults = msgspec.field(default_factory=Faults)
    token_file: Path | None = None

    def proof(self) -> dict[str, str]:
        """Return the headers that prove who asks. Raises StartError."""
        if self.token_file is None:
            return {}
        return {"authorization": f"Bearer {read_secret_text(self.token_file)}"}


def spawn(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    """Do `work` beside everything else, one of `tasks` while it lasts. What ends by a mistake is
    told: nobody else would hear of it, and a call would stand still for ever."""

    def ended(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOG.error("a simulated life ended", exc_info=error)

    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(ended)


def closing(tasks: set[asyncio.Task[None]], courier: "Courier") -> Lifespan[Starlette]:
    """Return the lifespan of a simulator's app: at its end nothing goes on in the background."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await courier.close()

    return lifespan


class Courier:
    """Posts to the connector until it is taken: a partner does not lose its data either."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._http: HttpClient | None = None
        self._proof = settings.proof()
        self.repeats = 0

    @property
    def _client(self) -> HttpClient:
        if self._http is None:
            self._http = HttpClient(self._settings.connector_url)
        return self._http

    async def close(self) -> None:
        """Stop bringing."""
        if self._http is not None:
            await self._http.close()

    async def ask(self, path: str, question: object) -> Any:
        """Return the answer to a question, None when there is none: nobody waits for it twice."""
        try:
            asked = msgspec.json.encode(question)
            answer = await self._client.request("POST", path, asked, self._proof | ASKED)
        except Unreachable:
            return None
        return msgspec.json.decode(answer.body) if answer.status == 200 else None

    async def bring(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """Return the first answer that is not "repeat later" (5xx, 429, none at all)."""
        while True:
            try:
                told = self._proof | dict(headers or {})
                answer = await self._client.request(method, path, body, told)
                if answer.status < 500 and answer.status != 429:
                    return answer
            except Unreachable:
                pass
            self.repeats += 1
            await asyncio.sleep(self._settings.repeat_s)
