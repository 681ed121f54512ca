"""Who verifies what a register signs: any class "MODULE:NAME" that is a `Verifier`.

As with signing, ГОСТ needs certified software, which stays outside. Where a gateway before the bus
verifies signatures and takes them off, there is nothing left to verify here.
"""

import importlib
from typing import Annotated, Protocol

import msgspec

from proto.configuration.declared import ReadFile
from proto.exits import StartError
from proto.wording import text


class Unverified(Exception):
    """The signature does not hold, is not the register's, or is not there."""


class VerifierSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`use` is "MODULE:CLASS"; `certificate_file` says whose signatures are believed. What takes
    longer than `timeout_s` is given up, and the register repeats."""

    use: str
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0
    certificate_file: ReadFile | None = None


class Verifier(Protocol):
    """Made with VerifierSettings; raises StartError when these cannot work."""

    def __init__(self, settings: VerifierSettings) -> None: ...

    def verify(self, envelope: bytes) -> None:
        """Look at a whole SOAP envelope as it came. Raises Unverified. Called in a thread."""


def load_verifier(settings: VerifierSettings) -> Verifier:
    """Return the verifier that the settings name. Raises StartError."""
    module, _, name = settings.use.partition(":")
    try:
        shape: type[Verifier] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise StartError(text("document.no_verifier", name=settings.use)) from None
    return shape(settings)
