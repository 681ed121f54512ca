"""What the connectors of all registers of documents have in common: a card is sent, and what was
sent is come back to when its timer says so."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.ingress import REJECTED
from connectors.services.document.lifecycle import Lifecycle
from proto import clinical
from proto.client import Delivery


class DocumentConnector(Connector, ABC):
    """Joins one register to the bus; `life` has its documents."""

    takes: ClassVar = {
        "call.card.v1": (clinical.CallCard, "send_card"),
        "document.timer.v1": (clinical.DocumentTimer, "come_back"),
    }
    publishes: ClassVar = ("document.state.v1", "document.timer.v1", REJECTED)
    owns: ClassVar[Sequence[str]] = ("life",)
    keeps: ClassVar = ("life.archive.state",)
    life: Lifecycle

    @abstractmethod
    async def send_card(self, card: clinical.CallCard, delivery: Delivery) -> str:
        """Send the document of a card. Raises Retry, Reject, NotAccepted."""

    @abstractmethod
    async def come_back(self, timer: clinical.DocumentTimer, delivery: Delivery) -> str:
        """Come back to a document when it is time. Raises Retry, Reject, NotAccepted."""

    def forget(self) -> None:
        """See Connector."""
        self.life.archive.forget()

    def figures(self) -> dict[str, Any]:
        """Return how many documents are in which state, and which words were not taken."""
        return self.life.figures()
