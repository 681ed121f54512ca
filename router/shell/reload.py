"""What comes into force while the router runs: the files of the configuration, and the keys."""

import logging

from proto.notify import notify
from proto.wording import text
from router.config import ConfigError, LoadedSettings, load, needs_restart
from router.shell.clock import now
from router.shell.engine import Engine
from router.shell.keyring import Keyring
from router.shell.ops import OpsError

log = logging.getLogger("smpbus.router")


class Reload:
    """Reads the files again, and puts in force what a running router can take up."""

    def __init__(self, engine: Engine, keyring: Keyring | None, loaded: LoadedSettings) -> None:
        self._engine = engine
        self._keyring = keyring
        self._loaded = loaded
        self._begun_with = loaded.settings

    def settings(self) -> dict[str, object]:
        """Put routes, permissions and limits in force; return the digest of all, and the keys that
        only a restart puts in force. Raises OpsError, one sentence, and nothing is changed."""
        try:
            self._loaded = loaded = load(self._loaded.path, self._loaded.overrides)
        except ConfigError as error:
            raise OpsError("config", str(error)) from None
        self.keys(force=True)
        logging.getLogger().setLevel(loaded.settings.log.level.upper())
        self._engine.configure(loaded.settings)
        log.info(text("router.reloaded", file=loaded.path))
        ignored = needs_restart(self._begun_with, loaded.settings)
        if ignored:
            log.warning(text("router.reload_ignored", keys=", ".join(ignored)))
        return {"digest": loaded.digest, "ignored": ignored}

    def keys(self, *, force: bool = False) -> None:
        """Put the keys in force, if their folder has changed; or whether it has or not."""
        if self._keyring is not None and self._keyring.refresh(force):
            self._engine.core.know(self._keyring.names, now())

    def on_signal(self) -> None:
        """Reload, and tell only the log and the service manager how that went."""
        notify("RELOADING=1")
        try:
            self.settings()
        except OpsError as error:
            log.error(error.sentence)
        notify("READY=1")
