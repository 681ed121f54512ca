"""The wire and the words: what every peer of the bus shares, and the client library."""

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
