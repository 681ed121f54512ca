"""Who may come in at a door, as settings have it."""

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from proto.pattern import exactly

ANYTHING: Final = "*"
CallerName = Annotated[str, msgspec.Meta(pattern=exactly(r"[a-z][a-z0-9_-]{0,31}"))]
HeaderName = Annotated[str, msgspec.Meta(pattern=exactly(r"([A-Za-z][A-Za-z0-9-]{0,63})?"))]
Fingerprint = Annotated[str, msgspec.Meta(pattern=exactly(r"[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}"))]


class CallerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.NAME.callers.WHO]: one who may come in. `token_file` holds digests of its tokens,
    brought as `by` says ("header" is the one named `header`, "path" the first part of the path);
    `certificates` are SHA-256 fingerprints of its certificates. One of both is enough. `scopes`
    narrow what it may ask, `networks` from where."""

    token_file: Path | None = None
    by: Literal["bearer", "basic", "header", "path"] = "bearer"
    header: HeaderName = ""
    certificates: tuple[Fingerprint, ...] = ()
    scopes: tuple[str, ...] = (ANYTHING,)
    networks: tuple[str, ...] = ("0.0.0.0/0", "::/0")


class DoorTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.NAME.tls]: the door speaks TLS itself. A client may show a certificate that
    `client_authority_file` vouches for; whose it is, `callers` say."""

    certificate_file: Path
    key_file: Path
    client_authority_file: Path | None = None
