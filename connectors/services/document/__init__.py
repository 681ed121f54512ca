"""Electronic documents of a call (СЭМД): built of the call card, signed, kept until registered."""

from connectors.services.document.archive import Archive, Document
from connectors.services.document.card import Organisation, build
from connectors.services.document.plan import Plan, load_plan
from connectors.services.document.signer import Signed, Signer, SignerSettings, load_signer

__all__ = [
    "Archive",
    "Document",
    "Organisation",
    "Plan",
    "Signed",
    "Signer",
    "SignerSettings",
    "build",
    "load_plan",
    "load_signer",
]
