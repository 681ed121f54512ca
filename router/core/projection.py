"""Which fields of a body a consumer gets: a projection by names and nested paths. Pure."""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from proto.message import UNREADABLE, Message, decode_message, encode_message
from proto.nesting import check_depth

NOTHING: Final = b"{}"
_Object = dict[str, msgspec.Raw]
_OBJECT: Final = msgspec.json.Decoder(_Object)
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ENCODER: Final = msgspec.json.Encoder()


class Projection:
    """The fields `paths` ("id112", "contact.phone") of a JSON object. A value is passed on byte for
    byte; a list on the way keeps the field in each of its objects; what is missing is left out."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._fields: dict[str, Projection | None] = {}  # None: the whole value
        inner: dict[str, list[str]] = {}
        for path in paths:
            name, dot, rest = path.partition(".")
            if dot:
                inner.setdefault(name, []).append(rest)
            else:
                self._fields[name] = None
        for name, rests in inner.items():
            self._fields.setdefault(name, Projection(rests))

    def body(self, body: bytes) -> bytes:
        """Return what may be passed on of a body: `{}` of one that is no JSON object."""
        try:
            check_depth(body)
            return _ENCODER.encode(self._object(body))
        except UNREADABLE:
            return NOTHING

    def _object(self, raw: bytes | msgspec.Raw) -> _Object:
        found = _OBJECT.decode(raw)
        passed: _Object = {}
        for name, inner in self._fields.items():
            if name not in found:
                continue
            value = found[name] if inner is None else inner._value(found[name])
            if value is not None:
                passed[name] = value
        return passed

    def _value(self, raw: msgspec.Raw) -> msgspec.Raw | None:
        """Return a nested object or list of objects, projected; None of anything else."""
        start = bytes(raw).lstrip()[:1]
        if start == b"{":
            return msgspec.Raw(_ENCODER.encode(self._object(raw)))
        if start == b"[":
            values = (self._value(one) for one in _LIST.decode(raw))
            return msgspec.Raw(_ENCODER.encode([one for one in values if one is not None]))
        return None


class Projections:
    """What a destination is handed out of the messages that wait for it."""

    def __init__(self, find: Callable[[Message], Projection | None]) -> None:
        """`find` returns the projection of a message, None for all of it."""
        self._find = find

    def raw(self, raw: bytes) -> bytes:
        """Return an encoded message with what of its body may be handed out. One that cannot be
        read goes out as it is: whoever gets it sets it aside, and says so."""
        try:
            message = decode_message(raw)
        except UNREADABLE:
            return raw
        projection = self._find(message)
        if projection is None:
            return raw
        passed = msgspec.structs.replace(message, body=projection.body(message.body))
        return encode_message(passed)
