"""The connector of ВИМИС: documents of heart attacks and strokes, each with its own state."""

from typing import Annotated, ClassVar

import msgspec

from connectors.partners.vimis import contract
from connectors.runtime.bus.settings import ConnectorSettings, Listen
from connectors.runtime.door.body import BadInput
from connectors.runtime.markup import soap
from connectors.runtime.markup.soapclient import SoapClient
from connectors.runtime.partner.partner import PartnerSettings
from connectors.services.document.archive import Document, State
from connectors.services.document.connector import DocumentConnector
from connectors.services.document.lifecycle import DocumentSettings, Lifecycle
from proto import clinical
from proto.client import BusClient, Delivery, Reject, Retry
from proto.note import coded


class VimisSettings(ConnectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.vimis]. What was sent is asked after when `check_after_s` have gone by without a
    word; `document` says how documents are made."""

    partner: PartnerSettings
    listen: Listen = "127.0.0.1:7120"
    body_bytes_max: Annotated[int, msgspec.Meta(ge=1024)] = 256 * 1024
    document: DocumentSettings
    check_after_s: Annotated[float, msgspec.Meta(gt=0)] = 3600.0


class VimisConnector(DocumentConnector):
    """See the module; the contract is `connectors.partners.vimis.contract`."""

    Settings: ClassVar = VimisSettings
    serves: ClassVar = {
        "SOAP /vimis": soap.SoapServed(
            {
                "sendResult": (contract.Result, "hear_result"),
                "sendInterimMsg": (contract.Interim, "hear_interim"),
            }
        )
    }
    owns: ClassVar = ("_client", "life")
    door_scopes: ClassVar = {"/vimis": "callbacks", "/figures": "figures"}
    settings: VimisSettings

    def __init__(self, name: str, settings: VimisSettings, bus: BusClient) -> None:
        """Raises StartError."""
        super().__init__(name, settings, bus)
        self.life = Lifecycle("vimis", settings.document, self.ingress, settings.retention)
        self._terms = contract.load_terms()
        self._client = SoapClient(self.partner, contract.WSDL)

    # -- to ВИМИС -------------------------------------------------------------------------------

    async def send_card(self, card: clinical.CallCard, delivery: Delivery) -> str:
        """Send the document of a card that is wanted. Raises Retry, Reject, NotAccepted."""
        if not self._terms.wants(card):
            return coded("document.not_wanted")
        document = await self.life.make(card, delivery.message)
        if document is None:
            return coded("document.older")
        # Sent already, and this is a repeat whose settlement was lost: the number is known.
        if document.message is None:
            await self._send(document)
        sent = self.life.archive.of_uid(document.uid) or document
        await self.life.wait_for_answer(sent)
        await self.life.wake(sent, "check", self.settings.check_after_s)
        await self.life.tell(sent, "accepted")
        return coded("document.accepted")

    async def _send(self, document: Document) -> None:
        terms = self._terms
        request = contract.SendDocument(
            vmcl=terms.vmcl,
            doc_type=terms.doc_type,
            doc_type_version=terms.doc_type_version,
            trigger_point=terms.trigger_point,
            document=document.file,
        )
        fields = msgspec.to_builtins(request)
        key = f"{document.uid}/{terms.vmcl}/{terms.doc_type_version}"
        given = await self._client.call("sendDocument", contract.MessageId, key, fields)
        self.life.archive.sent(document.uid, given.msg_id)

    async def come_back(self, timer: clinical.DocumentTimer, _: Delivery) -> str:
        """Ask after a document, or give it up. Raises Retry, Reject, NotAccepted."""
        document = self.life.archive.of_uid(timer.document_id)
        if document is None or document.message is None:
            return coded("document.not_wanted")
        if timer.purpose == "deadline":
            return await self.life.give_up(document)
        if document.state == "accepted":
            status = await self._ask_after(document)
            await self._judge(document, status)
            if status in self._terms.working:
                raise Retry(coded("document.accepted"), self.settings.check_after_s)
        return coded("document.state", state=document.state)

    async def _ask_after(self, document: Document) -> int:
        """Return the status that ВИМИС itself tells. Raises Retry or Reject."""
        asked = {"msg_id": document.message}
        told = await self._client.call("checkStatus", contract.Status, document.uid, asked)
        return told.status

    async def _judge(self, document: Document, status: int) -> None:
        state = self._state(status)
        if state == "registered":
            await self.life.tell(document, state, remote=document.message)
        elif state is not None:
            await self.life.tell(document, state, code=str(status))

    # -- from ВИМИС -----------------------------------------------------------------------------

    async def hear_result(self, result: contract.Result, _: soap.Call) -> None:
        """A verdict that somebody brings is a reason to ask ВИМИС for its own: numbers of documents
        can be guessed, and whoever guesses one is not ВИМИС."""
        document = self._known(result.msg_id)
        told = self._state(result.status)
        if told is None or told == document.state:
            return
        try:
            status = await self._ask_after(document)
        except (Retry, Reject):
            after_s = self.settings.retry_after_s
            raise soap.Fault("receiver", "ВИМИС cannot be asked now; repeat.", after_s) from None
        own = self._state(status)
        if own is None:  # it is at work still, and is asked again when it is time
            self.life.doubts.set_aside("not confirmed")
            return
        if own != told:
            await self.life.contradict(document, told)
        elif document.state == "registered":
            await self.life.contradict(document, own)
        await self._judge(document, status)

    def _state(self, status: int) -> State | None:
        """Return the state that a status means, None while ВИМИС is at work."""
        if status in self._terms.success:
            return "registered"
        return None if status in self._terms.working else "rejected"

    async def hear_interim(self, interim: contract.Interim, _: soap.Call) -> None:
        """ВИМИС is at work. Raises BadInput for a document that is not ours."""
        self._known(interim.msg_id)

    def _known(self, msg_id: str) -> Document:
        """Raises BadInput: ВИМИС repeats what comes before our archive has the number."""
        document = self.life.archive.of_exchange(msg_id)
        if document is None:
            self.life.doubts.set_aside("exchange")
            raise BadInput("msg_id", "there is no such document here")
        return document
