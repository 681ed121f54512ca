"""The connector of РЭМД: a call card becomes a document, and the register has its last word."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, ClassVar, Final

import msgspec

from connectors.partners.remd import contract
from connectors.partners.remd.verdict import load_verdicts
from connectors.partners.remd.word import Word
from connectors.runtime.access import Unrecorded
from connectors.runtime.bus.settings import ConnectorSettings, Listen
from connectors.runtime.door.body import BadInput
from connectors.runtime.door.claims import uuid_of
from connectors.runtime.markup import soap, xml
from connectors.runtime.outside import Outside
from connectors.runtime.partner.partner import PartnerSettings
from connectors.runtime.words import code_of
from connectors.services.document.archive import Document
from connectors.services.document.connector import DocumentConnector
from connectors.services.document.lifecycle import DocumentSettings, Lifecycle
from connectors.services.document.verifier import Unverified, VerifierSettings, load_verifier
from proto import clinical, schemas
from proto.client import BusClient, Delivery, Reject, Retry
from proto.nesting import decode_json
from proto.note import coded

STORED_YEARS: Final = 25  # docs/domain.md 6.1
UNDERSTOOD: Final = (contract.ADDRESSING, contract.TRANSPORT)
# Understood only by whoever verifies it.
SIGNED: Final = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
AGAIN: Final = "The service bus is busy; please repeat."
AGAIN_S: Final = 5


class RemdSettings(ConnectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.remd]. `client` is our id in the transport header, `reply_to` the address that
    the register calls back; `document` says how documents are made, `verifier` who looks at the
    signatures of the register's own requests, where no gateway has taken them off."""

    partner: PartnerSettings
    listen: Listen = "127.0.0.1:7119"
    # Of a request: an answer of ours may be longer.
    body_bytes_max: Annotated[int, msgspec.Meta(ge=1024)] = 1024 * 1024
    client: str
    reply_to: str
    document: DocumentSettings
    verifier: VerifierSettings | None = None


class RemdConnector(DocumentConnector):
    """See the module; the contract is `connectors.partners.remd.contract`."""

    Settings: ClassVar = RemdSettings
    serves: ClassVar = {
        "SOAP /remd": soap.SoapServed(
            {
                "getDocumentFileRequest": (contract.GetDocumentFile, "give_file"),
                "sendRegisterDocumentResultRequest": (contract.RegisterResult, "hear_result"),
            },
            admit="verify",
            understands="understood",
        )
    }
    door_scopes: ClassVar = {"/remd": "callbacks", "/figures": "figures"}
    settings: RemdSettings

    def __init__(self, name: str, settings: RemdSettings, bus: BusClient) -> None:
        """Raises StartError."""
        super().__init__(name, settings, bus)
        self.life = Lifecycle("remd", settings.document, self.ingress, settings.retention)
        self._verdicts = load_verdicts()
        verifier = settings.verifier
        self._verifier = None if verifier is None else load_verifier(verifier)
        self._verifying = Outside("verifier", verifier.timeout_s if verifier else 30.0)

    # -- to the register ------------------------------------------------------------------------

    async def send_card(self, card: clinical.CallCard, delivery: Delivery) -> str:
        """Make and register the document of a card. Raises Retry, Reject, NotAccepted."""
        document = await self.life.make(card, delivery.message)
        if document is None:
            return coded("document.older")
        if document.state == "registered":
            return coded("document.state", state=document.state)
        return await self._register(document)

    async def come_back(self, timer: clinical.DocumentTimer, _: Delivery) -> str:
        """Register a document again, or give it up. Raises Retry, Reject, NotAccepted."""
        document = self.life.archive.of_uid(timer.document_id)
        if document is None:
            return coded("document.not_wanted")
        if timer.purpose == "deadline":
            return await self.life.give_up(document)
        if document.state in ("registered", "gave_up"):
            return coded("document.state", state=document.state)
        return await self._register(document)

    async def _register(self, document: Document) -> str:
        message = contract.new_message()
        self.life.archive.sent(document.uid, message)
        request = self._request(document)
        accepted = await soap.ask(
            self.partner,
            "",
            contract.element("registerDocumentRequest", request),
            document.uid,
            lambda reply: soap.read_answer(reply, contract.Accepted),
            header=contract.header(
                "registerDocument",
                self.settings.partner.url,
                self.settings.reply_to,
                self.settings.client,
                message,
            ),
        )
        if accepted.status == "error":
            codes = _codes(accepted.errors)
            if self._verdicts.of(codes) != "done":  # done: it was accepted in an earlier exchange
                return await self._refused(document, codes, at_once=True)
        before = self._now(document)
        await self.life.wait_for_answer(before)
        await self.life.tell(document, "accepted")
        if before.state == "sent":
            await self._apply_early(before, message)
        return coded("document.accepted")

    async def _apply_early(self, document: Document, message: str) -> None:
        """Act on what was said before the document was accepted; a refusal counts only for the
        exchange at hand."""
        for exchange, written in self.life.archive.words(document.uid):
            word = Word.read(written)
            if word.emdr or exchange == message:
                await self._apply(self._now(document), word)

    def _now(self, document: Document) -> Document:
        """Return the document as it is by now: the register may have called back meanwhile."""
        return self.life.archive.of_uid(document.uid) or document

    def _request(self, document: Document) -> contract.RegisterDocument:
        card = decode_json(document.source, clinical.CallCard)
        patient = card.patients[0] if card.patients else None
        return contract.RegisterDocument(
            local_uid=document.uid,
            kind=self.life.plan.kind,
            document_number=document.number,
            document_version=document.version,
            creation_date_time=datetime.fromtimestamp(document.made_at, UTC),
            organization=self.settings.document.organisation.oid,
            patient=None if patient is None else _patient(patient, self.life.plan.sexes),
            personals=_personals(card),
            checksum=document.digest,
            store_till_date=date.today() + timedelta(days=STORED_YEARS * 365),
        )

    async def _refused(self, document: Document, codes: list[str], *, at_once: bool) -> str:
        """Act on error codes. `at_once`: the delivery of the card itself is at hand, so that it can
        wait or become a dead letter."""
        code = ", ".join(map(code_of, codes))[:200] or "?"
        verdict = self._verdicts.of(codes)
        if verdict == "again":
            after_s = self.life.again_s(self._now(document))
            if at_once:
                raise Retry(code, after_s)
            await self.life.wake(self._now(document), "again", after_s)
            return coded("document.code_again", code=code)
        if verdict == "done":
            return coded("document.accepted")
        await self.life.tell(document, "rejected", code=", ".join(codes)[:200] or "?")
        if at_once and verdict == "stop":
            raise Reject(code)
        return coded("document.state", state=f"rejected, {code}")

    # -- from the register ----------------------------------------------------------------------

    @property
    def understood(self) -> tuple[str, ...]:
        """The headers that a request may want to be understood."""
        return UNDERSTOOD if self._verifier is None else (*UNDERSTOOD, SIGNED)

    async def verify(self, call: soap.Call) -> None:
        """Raises Fault for a request whose signature does not hold, if that is for us to know."""
        if self._verifier is None:
            return
        try:
            await self._verifying.call(self._verifier.verify, call.raw)
        except Unverified:
            self.life.doubts.set_aside("signature")
            raise soap.Fault("sender", "The signature of the request does not hold.") from None
        except Retry:
            raise soap.Fault("receiver", AGAIN, AGAIN_S) from None

    async def give_file(self, asked: contract.GetDocumentFile, _: soap.Call) -> xml.Element:
        """Give out the file of a document, some times. Raises BadInput or Fault."""
        uid = uuid_of(asked.local_uid)
        archive = self.life.archive
        document = archive.of_uid(uid) if uid else None
        if document is None or not document.file or not archive.is_open(document):
            self.life.doubts.set_aside("file")
            raise BadInput("localUid", "there is no such document here")
        if not archive.give(uid, self.settings.document.files_max):
            self.life.doubts.set_aside("file, too often")
            raise BadInput("localUid", "was given out often enough")
        try:
            why = f"registration in {self.life.register}"
            await self.accesses.note("remd.file", self.name, why, [uid, document.number])
        except Unrecorded:
            raise soap.Fault("receiver", AGAIN, AGAIN_S) from None
        file = contract.DocumentFile(
            local_uid=document.uid,
            checksum=document.digest,
            content=document.file,
            signature=[document.signature],
        )
        return contract.element("getDocumentFileResponse", file)

    async def hear_result(self, result: contract.RegisterResult, call: soap.Call) -> xml.Element:
        """Keep what the register says to an exchange of ours, and act on it once the document is
        accepted: a word that comes before has to wait for that."""
        if result.status == "success" and result.registry_item is None:
            raise BadInput("registryItem", "is required")
        told = result.relates_to_message or contract.message_of(call.header, "RelatesTo")
        related, uid = uuid_of(told), uuid_of(result.local_uid or "")
        document = self.life.archive.of_exchange(related, uid)
        if document is None or bool(result.local_uid) != bool(uid):
            self.life.doubts.set_aside("exchange")
            raise BadInput("relatesToMessage", "is of no exchange that was begun here")
        word = Word.of(result)
        if self.life.archive.note_word(related, word.written()) != word.written():
            await self.life.contradict(document, word.state)
        elif document.state != "sent":
            await self._apply(document, word)
        taken = contract.Taken()
        return contract.element("sendRegisterDocumentResultResponse", taken, contract.CALLBACK)

    async def _apply(self, document: Document, word: Word) -> None:
        """Act on a word about a document that the register has accepted. Raises NotAccepted."""
        if word.emdr:
            if document.state == "registered" and document.remote != word.emdr:
                await self.life.contradict(document, word.state)
            else:
                await self.life.tell(document, "registered", remote=word.emdr)
        elif document.state != "registered":
            await self._refused(document, list(word.codes), at_once=False)
        elif self._verdicts.of(list(word.codes)) in ("correct", "stop"):
            await self.life.contradict(document, word.state)


def _codes(errors: contract.Errors | None) -> list[str]:
    return [item.code for item in errors.item] if errors else []


def _patient(patient: schemas.Person, sexes: dict[str, str]) -> contract.Patient:
    return contract.Patient(
        local_id=patient.id,
        surname=patient.family,
        name=patient.given,
        patr_name=patient.middle,
        birth_date=patient.birth_date,
        snils=patient.snils,
        gender=sexes.get(patient.sex or ""),
    )


def _personals(card: clinical.CallCard) -> contract.Personals | None:
    if not card.crew:
        return None
    return contract.Personals(
        item=[
            contract.Personal(
                local_id=one.worker,
                surname=one.family,
                name=one.given,
                patr_name=one.middle,
                snils=one.snils,
                role=one.role.code,
                position=one.post.code if one.post else None,
            )
            for one in card.crew
        ]
    )
