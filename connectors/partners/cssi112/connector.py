"""The connector of ЦССИ-112: tells the centre of cards and of what the brigades do."""

import hashlib
from typing import Annotated, ClassVar

import msgspec

from connectors.partners.cssi112 import contract, mapping
from connectors.partners.cssi112.batch import Batch
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.settings import SessionSettings
from connectors.runtime.markup.soapclient import SoapClient
from connectors.runtime.partner.partner import PartnerSettings
from connectors.runtime.words import code_of
from proto import schemas
from proto.client import BusClient, Delivery, Reject
from proto.note import coded


class CssiSettings(SessionSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.cssi112]. `edition` is that of the centre's protocol; `dispatch_service` our
    number there; it wants repeats not sooner than after 3 s."""

    partner: PartnerSettings
    credit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 200
    edition: mapping.Edition = "5"
    dispatch_service: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "SMP"
    cards_max: Annotated[int, msgspec.Meta(ge=1, le=contract.CARDS_MAX)] = 200
    repeat_after_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 3.0


class CssiConnector(Connector):
    """See the module; the contract is `connectors.partners.cssi112.contract`."""

    Settings: ClassVar = CssiSettings
    takes: ClassVar = {
        "incident.card.v1": (schemas.IncidentCard, "tell_card"),
        "incident.cancelled.v1": (schemas.IncidentCancelled, "tell_end"),
        "call.status.v1": (schemas.StatusEvent, "tell_status"),
    }
    owns: ClassVar = ("_client",)
    settings: CssiSettings

    def __init__(self, name: str, settings: CssiSettings, bus: BusClient) -> None:
        """Raises StartError."""
        super().__init__(name, settings, bus)
        self._terms = contract.load_terms()
        self._client = SoapClient(self.partner, contract.WSDL)
        self._batch: Batch[contract.Ukio] = Batch(self._send, settings.cards_max)

    async def tell_card(self, card: schemas.IncidentCard, _: Delivery) -> str:
        """Tell the centre of a card. Raises Retry or Reject."""
        return await self._tell(mapping.of_card(card, self._terms, self.settings.edition))

    async def tell_end(self, ended: schemas.IncidentCancelled, _: Delivery) -> str:
        """Tell the centre that a card is over. Raises Retry or Reject."""
        return await self._tell(mapping.of_end(ended, self._terms))

    async def tell_status(self, status: schemas.StatusEvent, _: Delivery) -> str:
        """Tell the centre how a call goes. Raises Retry or Reject."""
        if not status.id112:
            return await self._tell(None)  # the centre collects cards of System-112
        service = self.settings.dispatch_service
        return await self._tell(mapping.of_status(status, status.id112, self._terms, service))

    async def _tell(self, ukio: contract.Ukio | None) -> str:
        if ukio is None:
            return coded("connector.untold", system="ЦССИ-112")
        return await self._batch.bring(ukio)

    async def _send(self, cards: list[contract.Ukio]) -> str:
        request = msgspec.to_builtins(contract.Ukios(cards))
        key = hashlib.sha256(msgspec.json.encode(request)).hexdigest()[:32]
        reply = await self._client.call("send_ukio", contract.Reply, key, request)
        note = coded("cssi112.receipt", status=code_of(reply.status), code=reply.errorCode or 0)
        if reply.errorCode is not None and reply.errorCode not in self._terms.success:
            raise Reject(note)
        return note
