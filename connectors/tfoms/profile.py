"""How a register looks in one territory: config/tfoms.toml as the builder uses it."""

import sys
import tomllib
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from proto.exits import StartError
from proto.wording import text

FILE: Final = "tfoms.toml"
RECORDS: Final = ("ZGLV", "SCHET", "ZAP", "PACIENT", "Z_SL", "SL", "PERS_ZGLV", "PERS")


class Slot(NamedTuple):
    """The place of one element in a record."""

    name: str
    optional: bool


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One territory's register; `order` is record -> "ELEMENT ELEMENT? ..."."""

    version: str
    persons_version: str
    namespace: str
    persons_namespace: str
    profile_code: int
    kind_of_care: int
    payment: int
    specialities: str
    order: dict[str, str]
    constants: dict[str, str] = {}

    def slots(self, record: str) -> tuple[Slot, ...]:
        """Return the places of a record, in order."""
        names = self.order[record].split()
        return tuple(Slot(name.rstrip("?"), name.endswith("?")) for name in names)


class Tables(msgspec.Struct, frozen=True):
    """A profile and the code tables that go with it."""

    profile: Profile
    results: dict[str, int]
    forms: dict[str, int]


def shipped() -> Path:
    """Return the file that smpbus brings along."""
    checkout = Path(__file__).parents[2] / "config" / FILE
    return checkout if checkout.is_file() else Path(sys.prefix) / "share/smpbus/config" / FILE


def load(name: str, file: Path | None = None) -> Tables:
    """Read the profile `name`. Raises StartError naming the file and the key."""
    file = file or shipped()
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"{file}: {error}") from None
    profiles = tree.get("profiles", {})
    if name not in profiles:
        known = ", ".join(sorted(profiles))
        raise StartError(text("tfoms.no_profile", name=name, file=file, known=known))
    try:
        profile = msgspec.convert(_with_base(profiles, name), Profile)
        tables = msgspec.convert({**tree, "profile": profile}, Tables)
    except msgspec.ValidationError as error:
        raise StartError(f"{file}: profiles.{name}: {error}") from None
    if missing := [record for record in RECORDS if record not in profile.order]:
        raise StartError(f"{file}: profiles.{name}.order: {', '.join(missing)}")
    return tables


def _with_base(profiles: dict[str, Any], name: str) -> dict[str, Any]:
    own = dict(profiles[name])
    base = own.pop("base", None)
    if base is None:
        return own
    if base == name or base not in profiles:
        raise msgspec.ValidationError(f"no base {base}")
    below = _with_base({key: value for key, value in profiles.items() if key != name}, base)
    for table in ("order", "constants"):
        own[table] = {**below.get(table, {}), **own.get(table, {})}
    return {**below, **own}
