"""The register's last word about one exchange, as the archive keeps it."""

import re
from typing import Final, Literal

import msgspec

from connectors.partners.remd import contract
from connectors.runtime.door.body import BadInput

_EMDR: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,12}){1,6}")


class Word(msgspec.Struct, frozen=True):
    """Registered under `emdr`, or refused with `codes`."""

    emdr: str = ""
    codes: tuple[str, ...] = ()

    @classmethod
    def of(cls, result: contract.RegisterResult) -> "Word":
        """Return what a result says. Raises BadInput for a number that is none."""
        item = result.registry_item
        if result.status == "success" and item is not None:
            if not _EMDR.fullmatch(item.emdr_id):
                raise BadInput("registryItem.emdrId", "is no number of the register")
            return cls(emdr=item.emdr_id)
        codes = result.errors.item if result.errors else []
        return cls(codes=tuple(one.code[:100] for one in codes[:20]))

    @classmethod
    def read(cls, written: str) -> "Word":
        """Return what `written` made."""
        return msgspec.json.decode(written, type=cls)

    def written(self) -> str:
        """Return it as text."""
        return msgspec.json.encode(self).decode()

    @property
    def state(self) -> Literal["registered", "rejected"]:
        """The state of a document that it speaks of."""
        return "registered" if self.emdr else "rejected"
