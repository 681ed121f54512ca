"""A door that speaks TLS itself, where no proxy stands before it."""

import hashlib
import ssl
from typing import Any

from connectors.runtime.door.doorsettings import DoorTls
from connectors.runtime.secretfile import read_secret
from proto.exits import StartError
from proto.wording import text


def door_context(settings: DoorTls | None, where: str) -> ssl.SSLContext | None:
    """Return what the door speaks TLS with, None for a plain one. Raises StartError naming `where`
    it is set."""
    if settings is None:
        return None
    read_secret(settings.key_file)  # says it when others may read it
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # "": a key that asks for a password is an error, not a question at the terminal.
        context.load_cert_chain(settings.certificate_file, settings.key_file, password="")
        if settings.client_authority_file is not None:
            context.load_verify_locations(settings.client_authority_file)
            context.verify_mode = ssl.CERT_OPTIONAL  # whether one is needed, the callers say
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or type(error).__name__
        raise StartError(text("callers.tls", where=where, reason=reason)) from None
    return context


def fingerprint_shown(ssl_object: Any) -> str:
    """Return the SHA-256 of the certificate that the other side showed, "" if none."""
    shown = ssl_object.getpeercert(binary_form=True) if ssl_object is not None else None
    return hashlib.sha256(shown).hexdigest() if shown else ""
