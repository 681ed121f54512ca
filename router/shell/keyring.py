"""Who may connect: the public keys in the keys folder, and the ZAP handler that asks for them.

libzmq's CURVE without a handler encrypts but lets everyone in; with a handler, and the domain
enforced, an unknown key and every other mechanism is refused before a byte reaches the router.
The handler is pyzmq's, in its own thread, so that a flood of handshakes does not stop the loop.
"""

import logging
from pathlib import Path
from typing import Any

import zmq
import zmq.auth.thread

from proto.keys import KeyFileError, load_public_folder

ZAP_DOMAIN = "smpbus"
log = logging.getLogger("smpbus.keys")


class Keyring:
    """The names of the known keys; `names` is replaced whole, never changed in place."""

    def __init__(self, folder: Path) -> None:
        """Raises KeyFileError when a public key cannot be read."""
        self.folder = folder
        self.names: dict[bytes, str] = load_public_folder(folder)
        self._seen = self._signature()

    def callback(self, domain: str, key: bytes) -> bool:
        """Called by the ZAP handler's thread for every CURVE handshake."""
        return domain == ZAP_DOMAIN and key in self.names

    def refresh(self, force: bool = False) -> bool:
        """Read the folder again if it changed; return whether the names did."""
        try:
            signature = self._signature()
            if signature == self._seen and not force:
                return False
            names = load_public_folder(self.folder)
        except (KeyFileError, OSError) as error:
            # Perhaps half written, or no descriptor is free: keep the old, look again soon.
            log.warning("%s", error)
            return False
        self._seen = signature
        changed = names != self.names
        self.names = names
        return changed

    def _signature(self) -> tuple[tuple[str, int, int], ...]:
        found = []
        for path in self.folder.glob("*.pub"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append((path.name, status.st_mtime_ns, status.st_size))
        return tuple(sorted(found))


def start_authenticator(context: "zmq.Context[Any]", keyring: Keyring) -> Any:
    """Start the ZAP handler of this context; must happen before any socket is bound."""
    authenticator = zmq.auth.thread.ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve_callback(domain=ZAP_DOMAIN, credentials_provider=keyring)
    return authenticator
