"""One cached answer, and its bytes: MessagePack, pressed when large, checked when read."""

import zlib
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from connectors.services.lookup.kind import Kind
from connectors.services.lookup.secret import Secret
from proto.message import UNREADABLE

FORMAT: Final = 1
PRESSED_FROM: Final = 16 * 1024
UNPRESSED_MAX: Final = 32 * 1024 * 1024
PLAIN: Final = b"p"
PRESSED: Final = b"z"
# A clock of another machine may be ahead of ours by this much.
AHEAD_S: Final = 300.0

encode: Final = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True)
class Entry:
    """An answer, None when there is none. Times are seconds since 1970-01-01 UTC."""

    value: Any
    stored_at: float
    fresh_until: float
    expires: float


class _Packed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    format: int
    version: int
    stored_at: float
    fresh_until: float
    expires: float
    found: bool
    value: msgspec.Raw


def new_entry(kind: Kind[Any], value: Any, now: float, ttl_s: float) -> Entry:
    """Return the entry of an answer got `now`, which stays fresh for `ttl_s`."""
    if value is None:
        return Entry(None, now, now + kind.absent_s, now + kind.absent_s)
    return Entry(value, now, now + ttl_s, now + ttl_s + kind.stale_s)


def pack(entry: Entry, kind: Kind[Any]) -> bytes:
    """Return the bytes of an entry."""
    found = entry.value is not None
    value = msgspec.Raw(encode(entry.value))
    times = (entry.stored_at, entry.fresh_until, entry.expires)
    return encode(_Packed(FORMAT, kind.version, *times, found, value))


def seal(packed: bytes, key: str, secret: Secret) -> bytes:
    """Return what memcached is given for a packed entry."""
    if len(packed) >= PRESSED_FROM:
        return secret.seal(key, PRESSED + zlib.compress(packed))
    return secret.seal(key, PLAIN + packed)


def unseal(sealed: bytes, kind: Kind[Any], key: str, secret: Secret, now: float) -> Entry | None:
    """Return the entry, or None when these bytes are not an entry of this kind, key and time."""
    payload = secret.open(key, sealed)
    if payload is None:
        return None
    try:
        packed = msgspec.msgpack.decode(_plain(payload), type=_Packed)
        sound = packed.format == FORMAT and packed.version == kind.version
        if not sound or packed.stored_at > now + AHEAD_S or packed.expires <= now:
            return None
        value = msgspec.msgpack.decode(packed.value, type=kind.shape) if packed.found else None
    except (*UNREADABLE, zlib.error, ValueError):
        return None
    return Entry(value, packed.stored_at, packed.fresh_until, packed.expires)


def _plain(payload: bytes) -> bytes:
    """Raises zlib.error and ValueError."""
    form, content = payload[:1], payload[1:]
    if form == PLAIN:
        return content
    if form != PRESSED:
        raise ValueError("form")
    pressed = zlib.decompressobj()
    plain = pressed.decompress(content, UNPRESSED_MAX)
    if not pressed.eof:
        raise ValueError("size")
    return plain
