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

from proto.keys import KeyFileError, PublicKeys, load_public_folder
from proto.wording import text

ZAP_DOMAIN = "smpbus"
log = logging.getLogger("smpbus.keys")


class Keyring:
    """The names of the known keys; `names` is replaced whole, never changed in place. `refused` are
    files that admit nobody, and why; all others count."""

    def __init__(self, folder: Path) -> None:
        """Raises KeyFileError when the folder cannot be read."""
        self.folder = folder
        self.names: dict[bytes, str] = {}
        self.refused: dict[str, str] = {}
        self._seen = self._signature()
        self._take(load_public_folder(folder))

    def callback(self, domain: str, key: bytes) -> bool:
        """Called by the ZAP handler's thread for every CURVE handshake."""
        return domain == ZAP_DOMAIN and key in self.names

    def rows(self) -> dict[str, Any]:
        """Return whose keys are in force, and which files admit nobody and why."""
        return {"admitted": sorted(self.names.values()), "refused": self.refused}

    def refresh(self, force: bool = False) -> bool:
        """Read the folder again if it changed; return whether the names did."""
        try:
            signature = self._signature()
            if signature == self._seen and not force:
                return False
            found = load_public_folder(self.folder, self.names)
        except (KeyFileError, OSError) as error:
            # Perhaps no descriptor is free: keep the old, look again soon.
            log.warning("%s", error)
            return False
        self._seen = signature
        return self._take(found)

    def _take(self, found: PublicKeys) -> bool:
        for file, reason in found.refused.items():
            if self.refused.get(file) != reason:
                log.error(text("router.key_file_refused", reason=reason))
        for file in self.refused.keys() - found.refused.keys():
            log.info(text("router.key_file_well", file=file))
        self.refused = found.refused
        changed = found.names != self.names
        self.names = found.names
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
