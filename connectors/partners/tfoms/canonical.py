"""The canonical dialect: POST {url}/insured, an InsuranceQuestion -> an InsuranceAnswer, both in
the bus's own words (proto/schemas.py)."""

from typing import Final

import msgspec

from connectors.partners.tfoms.dialect import sound
from connectors.runtime.partner.partner import Answer, Partner
from connectors.runtime.partner.reply import read_reply
from proto import schemas
from proto.client import Reject
from proto.identifiers import new_id

PATH: Final = "/insured"


class Canonical:
    """See `connectors.partners.tfoms.dialect.Dialect`."""

    def __init__(self, partner: Partner) -> None:
        self._partner = partner

    async def insured(self, asked: schemas.InsuranceQuestion) -> schemas.InsuranceAnswer:
        """Ask whose policy it is."""
        body = msgspec.json.encode(asked)
        return await self._partner.ask("POST", PATH, body, new_id(), _read)

    async def close(self) -> None:
        """Nothing is held."""


def _read(reply: Answer) -> schemas.InsuranceAnswer:
    """Raises BadReply or Reject."""
    if reply.status >= 300:
        raise Reject(f"HTTP {reply.status}")
    return sound(read_reply(reply, schemas.InsuranceAnswer), reply.status)
