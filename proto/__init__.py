"""The wire and the words: what every peer of the bus shares, and the client library.

The client library is also shipped alone, as `smpbus_client` (clients/python), so the modules of
this package import one another relatively: one source serves both names.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .blocking import BlockingBusClient
    from .client import BusClient
    from .consumer import Consumer, Delivery, Reject, Retry
    from .errors import BusError, NotConnected, Refused, RequestFailed
    from .identifiers import new_id
    from .keys import KeyFileError, KeyPair
    from .message import Message, Priority
    from .publisher import PublishStream

__all__ = [
    "BlockingBusClient",
    "BusClient",
    "BusError",
    "Consumer",
    "Delivery",
    "KeyFileError",
    "KeyPair",
    "Message",
    "NotConnected",
    "Priority",
    "PublishStream",
    "Refused",
    "Reject",
    "RequestFailed",
    "Retry",
    "new_id",
]
# Imported on first use: most commands need the words only, and no client.
_HOMES: Final = {
    "BlockingBusClient": "blocking",
    "BusClient": "client",
    "BusError": "errors",
    "Consumer": "consumer",
    "Delivery": "consumer",
    "KeyFileError": "keys",
    "KeyPair": "keys",
    "Message": "message",
    "NotConnected": "errors",
    "Priority": "message",
    "PublishStream": "publisher",
    "Refused": "errors",
    "Reject": "consumer",
    "RequestFailed": "errors",
    "Retry": "consumer",
    "new_id": "identifiers",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = found
    return found
