"""The wire and the words: what every peer of the bus shares, and the client library."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proto.blocking import BlockingBusClient
    from proto.client import BusClient, Consumer, Delivery, PublishStream
    from proto.errors import BusError, Refused, RequestFailed
    from proto.identifiers import new_id
    from proto.keys import KeyPair
    from proto.message import Message, Priority

__all__ = [
    "BlockingBusClient",
    "BusClient",
    "BusError",
    "Consumer",
    "Delivery",
    "KeyPair",
    "Message",
    "Priority",
    "PublishStream",
    "Refused",
    "RequestFailed",
    "new_id",
]
# Imported on first use: most commands need the words only, and no client.
_HOMES: Final = {
    "BlockingBusClient": "blocking",
    "BusClient": "client",
    "BusError": "errors",
    "Consumer": "client",
    "Delivery": "client",
    "KeyPair": "keys",
    "Message": "message",
    "Priority": "message",
    "PublishStream": "client",
    "Refused": "errors",
    "RequestFailed": "errors",
    "new_id": "identifiers",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'proto' has no attribute {name!r}")
    found = getattr(import_module(f"proto.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
