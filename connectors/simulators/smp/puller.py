"""The simulated ambulance in mode "queue": it fetches its messages and commits what it applied."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from connectors.partners.smp import contract
from connectors.runtime.door.body import BadInput
from connectors.simulators.kit.simulation import Courier
from proto import catalogue, schemas

WAIT_S: Final = 5.0  # shorter than the courier's patience

Apply = Callable[[str, type[schemas.Body], bytes], tuple[int, Any]]


class Puller:
    """Receives and commits through `courier`, applying each message with `apply(key, shape,
    body)`."""

    def __init__(self, courier: Courier, apply: Apply) -> None:
        self._courier = courier
        self._apply = apply

    async def run(self) -> None:
        """Fetch until cancelled."""
        while True:
            asked = msgspec.json.encode(contract.ReceiveRequest(wait_s=WAIT_S))
            answer = await self._courier.bring("POST", "/queue/receive", asked)
            if answer.status != 200:
                await asyncio.sleep(1.0)
                continue
            reply = msgspec.json.decode(answer.body, type=contract.ReceiveReply)
            for message in reply.messages:
                committed = msgspec.json.encode(self._take(message))
                await self._courier.bring("POST", "/queue/commit", committed)

    def _take(self, message: contract.Received) -> contract.CommitRequest:
        try:
            shape = catalogue.entry(message.type).schema
            _, answer = self._apply(message.ref, shape, bytes(message.payload))
        except KeyError:
            reason = "there is no such type"
        except BadInput as bad:
            reason = bad.sentence
        else:
            note = f"{answer['outcome']} {answer.get('call_id', '')}".strip()
            return contract.CommitRequest([message.ref], "done", note=note)
        return contract.CommitRequest([message.ref], "reject", reason=reason)
