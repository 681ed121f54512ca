"""The connector of ЦССИ-112: tells the centre of cards and of what the brigades do."""

import hashlib
from typing import Annotated, ClassVar, Final

import msgspec

from connectors.partners.cssi112 import contract, mapping
from connectors.partners.cssi112.batch import Batch
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.settings import ConnectorSettings, Listen
from connectors.runtime.markup.soapclient import SoapClient
from connectors.runtime.partner.partner import PartnerSettings
from connectors.runtime.words import code_of
from proto import schemas
from proto.client import BusClient, Delivery, Reject, Retry
from proto.message import UNREADABLE, Message
from proto.nesting import decode_json
from proto.note import coded

PREFIX: Final = "112-"


class CssiSettings(ConnectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.cssi112]. `edition` is that of the centre's protocol; `dispatch_service` our
    number there; repeats are not sooner than `repeat_after_s` (the protocol: 3 s) and grow to
    `repeat_after_max_s`."""

    partner: PartnerSettings
    listen: Listen = "127.0.0.1:7121"  # not used
    credit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 200
    edition: mapping.Edition = "5"
    dispatch_service: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "SMP"
    cards_max: Annotated[int, msgspec.Meta(ge=1, le=contract.CARDS_MAX)] = 200
    repeat_after_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 3.0
    repeat_after_max_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 300.0


class CssiConnector(Connector):
    """See the module; the contract is `connectors.partners.cssi112.contract`."""

    Settings: ClassVar[type[ConnectorSettings]] = CssiSettings
    settings: CssiSettings

    def __init__(self, name: str, settings: CssiSettings, bus: BusClient) -> None:
        """Raises StartError."""
        super().__init__(name, settings, bus)
        self._terms = contract.load_terms()
        self._client = SoapClient(self.partner, contract.WSDL)
        self._batch: Batch[contract.Ukio] = Batch(self._send, settings.cards_max)

    async def close(self) -> None:
        """Let go of the centre."""
        self._client.close()
        await super().close()

    async def handle(self, delivery: Delivery) -> str | None:
        """Tell the centre what a message changes. Raises Retry or Reject."""
        try:
            ukio = self._ukio(delivery.message)
        except UNREADABLE:
            raise Reject(coded("connector.bad_body")) from None
        if ukio is None:
            return coded("connector.untold", system="ЦССИ-112")
        try:
            return await self._batch.bring(ukio)
        except Retry as retry:
            own_s = self._repeat_after_s(delivery.attempt)
            longest_s = max(self.settings.repeat_after_max_s, own_s)
            raise Retry(str(retry), min(max(retry.after_s or 0.0, own_s), longest_s)) from None

    def _ukio(self, message: Message) -> contract.Ukio | None:
        if message.type == "incident.card.v1":
            card = decode_json(message.body, schemas.IncidentCard)
            return mapping.of_card(card, self._terms, self.settings.edition)
        if message.type == "incident.cancelled.v1":
            ended = decode_json(message.body, schemas.IncidentCancelled)
            return mapping.of_end(ended, self._terms)
        if message.type == "call.status.v1":
            status = decode_json(message.body, schemas.StatusEvent)
            if not status.id112:
                return None  # the centre collects cards of System-112
            return mapping.of_status(
                status, status.id112, self._terms, self.settings.dispatch_service
            )
        raise Reject(coded("connector.no_type", type=message.type))

    async def _send(self, cards: list[contract.Ukio]) -> str:
        request = msgspec.to_builtins(contract.Ukios(cards))
        key = hashlib.sha256(msgspec.json.encode(request)).hexdigest()[:32]
        reply = await self._client.call("send_ukio", contract.Reply, key, request)
        note = coded("cssi112.receipt", status=code_of(reply.status), code=reply.errorCode or 0)
        if reply.errorCode is not None and reply.errorCode not in self._terms.success:
            raise Reject(note)
        return note

    def _repeat_after_s(self, attempt: int) -> float:
        grown = self.settings.repeat_after_s * 2.0 ** min(attempt - 1, 20)
        return min(grown, max(self.settings.repeat_after_max_s, self.settings.repeat_after_s))
