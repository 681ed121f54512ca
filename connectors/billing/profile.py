"""How a register looks in one territory: config/tfoms.toml as the builder uses it."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from proto.configuration.layers import Layers
from proto.configuration.typed import read, read_table
from proto.exits import StartError
from proto.wording import text

FILE: Final = "tfoms.toml"
RECORDS: Final = ("ZGLV", "SCHET", "ZAP", "PACIENT", "Z_SL", "SL", "PERS_ZGLV", "PERS")


class Slot(NamedTuple):
    """The place of one element in a record."""

    name: str
    optional: bool


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One territory's register; `order` is record -> "ELEMENT ELEMENT? ...", `constants` and `same`
    are by RECORD.ELEMENT."""

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
    same: dict[str, str] = {}
    insurers: tuple[str, ...] = ()

    def slots(self, record: str) -> tuple[Slot, ...]:
        """Return the places of a record, in order."""
        names = self.order[record].split()
        return tuple(Slot(name.rstrip("?"), name.endswith("?")) for name in names)


class CardCodes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the codes of a call card are read: code list -> its code -> ours, or the fund's."""

    result: dict[str, dict[str, str]] = {}
    form: dict[str, dict[str, str]] = {}
    outcome: dict[str, dict[str, int]] = {}
    speciality: dict[str, dict[str, int]] = {}


class Tariff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a call costs from a day on, in roubles; `speciality` None: whoever came."""

    since: date
    sum: Decimal
    speciality: int | None = None


class Tables(msgspec.Struct, frozen=True):
    """A profile and the code tables that go with it."""

    profile: Profile
    results: dict[str, int]
    forms: dict[str, int]
    card: CardCodes = CardCodes()
    tariffs: tuple[Tariff, ...] = ()

    def tariff(self, speciality: int, day: date) -> Decimal | None:
        """Return what a call of this day costs; None when no tariff fits."""
        fitting = [
            (one.speciality is not None, one.since, one.sum)
            for one in self.tariffs
            if one.since <= day and one.speciality in (None, speciality)
        ]
        return max(fitting)[2] if fitting else None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """config/tfoms.toml; a profile may name another one as its base."""

    results: dict[str, int]
    forms: dict[str, int]
    profiles: dict[str, dict[str, Any]]
    card: CardCodes = CardCodes()
    tariffs: tuple[Tariff, ...] = ()


def load(name: str, file: Path | None = None) -> Tables:
    """Read the profile `name`. Raises StartError naming the file and the key."""
    found, layers = read_table(_File, FILE, file)
    if name not in found.profiles:
        known = ", ".join(sorted(found.profiles))
        raise StartError(text("tfoms.no_profile", name=name, file=layers.path, known=known))
    layers.tree["profiles"] = {name: _with_base(layers, found.profiles, name)}
    profile = read(layers, Profile, "profiles", name)
    for record in RECORDS:
        if record not in profile.order:
            layers.place("profiles", name, "order").fail("config.missing_key", missing=record)
    return Tables(profile, found.results, found.forms, found.card, found.tariffs)


def _with_base(layers: Layers, profiles: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """Return a profile with all that it has from the one that it names as its base."""
    own = dict(profiles[name])
    base = own.pop("base", None)
    if base is None:
        return own
    others = {key: value for key, value in profiles.items() if key != name}
    if base not in others:
        layers.place("profiles", name, "base").fail_undefined(str(base), others)
    below = _with_base(layers, others, base)
    for table in ("order", "constants", "same"):
        own[table] = {**below.get(table, {}), **own.get(table, {})}
    return {**below, **own}
