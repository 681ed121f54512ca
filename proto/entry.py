"""One message type of the catalogue: its name, its schema, an example and what it is for."""

from dataclasses import dataclass
from typing import Any

from . import schemas
from .nesting import decode_json


@dataclass(frozen=True)
class Entry:
    """One message type."""

    name: str
    schema: type[schemas.Body]
    description: str
    example: dict[str, Any]

    def read(self, body: bytes) -> schemas.Body:
        """Return `body` as the schema. Raises msgspec.DecodeError naming the field and rule."""
        return decode_json(body, self.schema)
