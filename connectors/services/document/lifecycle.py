"""The life of a document at one register: made once per version of a card, told of at every step.

What is told is on the router's disk before the archive moves on; killed in between, it is told
again under the same id.
"""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from connectors.runtime.bus.ingress import REJECTED, Ingress
from connectors.runtime.door.body import BadInput, refuse_odd
from connectors.runtime.door.claims import Doubts, Namespace
from connectors.runtime.door.door import message_id
from connectors.runtime.log import LOG
from connectors.runtime.number import numbers
from connectors.runtime.outside import Outside
from connectors.runtime.statefile import StateAway
from connectors.services.document.archive import RANK, Archive, Document, State
from connectors.services.document.card import Organisation, build
from connectors.services.document.plan import load_plan
from connectors.services.document.signer import SignerSettings, load_signer
from proto import clinical, schemas
from proto.client import Reject
from proto.configuration.declared import ReadFile
from proto.message import Message, now_ms
from proto.note import coded
from proto.retention import Retention
from proto.wording import text

AGAIN_S: Final = 60.0  # the register's own wish when it is asked too often
AGAIN_MAX_S: Final = 6 * 3600.0
Purpose = Literal["again", "check", "deadline"]


class DocumentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How documents are made and how long their registration is awaited; in one exchange the file
    of a document is given out `files_max` times."""

    organisation: Organisation
    archive_file: Path
    signer: SignerSettings = SignerSettings()
    plan_file: ReadFile | None = None
    deadline_days: float = 15.0  # docs/domain.md 6.3
    files_max: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10


class Lifecycle:
    """All documents of one connector."""

    def __init__(
        self,
        register: Literal["remd", "vimis"],
        settings: DocumentSettings,
        ingress: Ingress,
        retention: Retention | None = None,
    ) -> None:
        """Raises StartError."""
        self.register = register
        self.settings = settings
        self.plan = load_plan(settings.plan_file)
        self.archive = Archive(settings.archive_file, retention)
        self.doubts = Doubts(register)
        file = settings.archive_file
        self._names = Namespace.load(file.with_name(f"{file.name}.key"))
        self._signer = load_signer(settings.signer)
        self._signing = Outside("signer", settings.signer.timeout_s)
        self._ingress = ingress
        self._telling = asyncio.Lock()

    def close(self) -> None:
        """Close the archive."""
        self.archive.close()

    def figures(self) -> dict[str, Any]:
        """Return how many documents are in which state, none while nobody can know, and which
        words about them were not taken for true."""
        told: dict[str, Any] = {"documents": {}}
        try:
            told["documents"] = self.archive.counts()
            if count := self.archive.contradicted():
                told["documents_contradicted"] = count
        except StateAway:
            pass
        return told | self.doubts.figures()

    async def make(self, card: clinical.CallCard, source: Message) -> Document | None:
        """Return the document of the card in `source`; None when a newer version of the card has
        one. Raises Reject for a card that no document can be made of, Retry when the signer
        hangs."""
        known = self.archive.of_card(card.card_id, card.version)
        if known is not None:
            return known
        newest, last = self.archive.newest(card.card_id)
        if newest > card.version:
            return None
        number, version = card.card_id, last + 1
        try:
            refuse_odd(source.body)
            file = build(
                card, self.plan, self.settings.organisation, number=number, version=version
            )
        except BadInput as bad:
            raise Reject(bad.sentence) from None
        # Certified software may take its time, and may ask a device.
        signed = await self._signing.call(self._signer.sign, file)
        document = Document(
            # Nobody who knows the card can tell it, and an archive that was put back has it again.
            uid=self._names.hidden(self.register, card.card_id, str(card.version)),
            card=card.card_id,
            card_version=card.version,
            number=number,
            version=version,
            call=card.id,
            subject=source.subject,
            state="sent",
            remote=None,
            code=None,
            message=None,
            sends=0,
            source=source.body,
            file=file,
            signature=signed.signature,
            digest=signed.digest,
            made_at=int(time.time()),
        )
        self.archive.keep(document)
        return document

    async def tell(
        self,
        document: Document,
        state: State,
        *,
        remote: str | None = None,
        code: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Tell how far a document is, unless it is there already. Raises NotAccepted."""
        # One at a time: an answer and a callback that cross must not be told in the wrong order.
        async with self._telling:
            now = self.archive.of_uid(document.uid) or document
            if RANK[state] > RANK[now.state]:
                await self._publish(now, state, remote, code, reason)
                self.archive.move(document.uid, state, remote=remote, code=code)

    async def _publish(
        self,
        document: Document,
        state: State,
        remote: str | None,
        code: str | None,
        reason: str | None,
    ) -> None:
        told = clinical.DocumentState(
            event_id=f"{self.register}-{document.uid}-{state}-{code or remote or ''}",
            document_id=document.uid,
            call_id=document.call,
            kind=self.plan.kind,
            register=self.register,
            version=document.version,
            state=state,
            number=remote,
            code=code,
            reason=reason,
            at=datetime.now(UTC),
        )
        message = Message.new(
            "document.state.v1",
            self._ingress.name,
            told,
            subject=document.subject,
            id=message_id("document.state.v1", told.event_id),
            correlation_id=numbers(remote, document.uid, document.number),
        )
        await self._ingress.publish([message])

    async def contradict(self, document: Document, state: str) -> None:
        """Tell operators and the administrator's queue that the register now says `state` of a
        document of which it has said something else; nothing is changed. Raises NotAccepted."""
        told = schemas.RejectedInput(
            partner=self._ingress.name,
            operation="document.state.v1",
            path="status",
            rule=f"says {state} of a document that is {document.state}",
            about=document.uid,
            digest=document.digest[:16],
            recorded_at=datetime.now(UTC),
        )
        message = Message.new(
            REJECTED,
            self._ingress.name,
            told,
            subject=document.subject,
            id=message_id(REJECTED, "contradiction", document.uid, document.state, state),
            correlation_id=numbers(document.remote, document.uid, document.number),
        )
        await self._ingress.publish([message])
        self.archive.note_contradiction(document.uid)
        self.doubts.contradiction(document.uid)

    async def wake(self, document: Document, purpose: Purpose, after_s: float) -> None:
        """Come back to a document later, by a message with `not_before`. Raises NotAccepted."""
        timer = clinical.DocumentTimer(document_id=document.uid, purpose=purpose)
        # The exchange is part of its id: an archive that was put back counts its sends once more,
        # and a timer that the bus takes for a repeat would never come.
        sent = (str(document.sends), document.message or "")
        # Under a subject of its own: what waits for weeks must not hold up the next card.
        message = Message.new(
            "document.timer.v1",
            self._ingress.name,
            timer,
            subject=f"document-{document.uid}-{purpose}",
            id=message_id("document.timer.v1", document.uid, purpose, *sent),
            correlation_id=document.call,
        )
        due = now_ms() + int(after_s * 1000)
        await self._ingress.publish([msgspec.structs.replace(message, not_before=due)])

    async def wait_for_answer(self, document: Document) -> None:
        """Set the timer that ends the waiting."""
        await self.wake(document, "deadline", self.settings.deadline_days * 86_400)

    async def give_up(self, document: Document) -> str:
        """The time is over: tell, unless the register has answered. Raises NotAccepted."""
        if RANK[document.state] < RANK["gave_up"]:
            days = f"{self.settings.deadline_days:g}"
            LOG.error(
                text("document.gave_up", register=self.register, days=days, document=document.uid)
            )
            await self.tell(document, "gave_up")
        return coded("document.state", state=document.state)

    @staticmethod
    def again_s(document: Document) -> float:
        """Return the pause before the next sending: a minute, then twice as long each time."""
        return float(min(AGAIN_S * 2 ** min(max(document.sends - 1, 0), 20), AGAIN_MAX_S))
