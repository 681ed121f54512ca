"""What the simulated ambulance does for a patient: identity, a bed, the call card, a visit.

It asks through the connector, and does without whoever does not answer. Every person is made up.
"""

from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any, Final

from connectors.simulators.kit.people import people
from connectors.simulators.kit.simulation import Courier

NSI: Final = "1.2.643.5.1.13.13."
PROFILE: Final = "29"  # V002: cardiology
# What the calls are about, in turn: ICD-10, and whether it is for cardiology.
ILLS: Final = (
    ("I21.0", "Острый инфаркт миокарда"),
    ("J06.9", "Острая инфекция верхних дыхательных путей"),
    ("I63.9", "Инфаркт мозга"),
    ("S52.5", "Перелом лучевой кости"),
)
# Post (11.1002), role when signing (99.2.368), what both are called, an invented name.
CREW: Final = (
    ("98", "1", "Врач", "Вымышленная", "Анна"),
    ("196", "10", "Фельдшер", "Придуманный", "Олег"),
)


def coded(list: str, code: str, text: str) -> dict[str, str]:
    """Return a value of a ministry's code list."""
    return {"code": code, "system": NSI + list, "text": text}


@cache
def _people(seed: int) -> list[dict[str, Any]]:
    """Return the same people for every call, made up once."""
    return people(seed)


class Care:
    """The patient of one call; `bring(path, body)` posts to the connector until it is taken."""

    def __init__(self, number: int, seed: int, courier: Courier, bring: Any) -> None:
        known = _people(seed)
        self._courier = courier
        self._bring = bring
        self._number = number
        # Every fifth patient is found without papers and cannot tell a name.
        self.person = None if number % 5 == 0 else known[number % len(known)]
        self.ill = ILLS[number % len(ILLS)]
        self.patient: str | None = None
        self.insured = False
        self.hospital: str | None = None

    async def identify(self) -> None:
        """Ask the insurance fund and the hospitals' system who it is, and what to mind."""
        if self.person is None:
            return
        asked = {"enp": self.person["enp"], "birth_date": self.person["birth_date"]}
        today = {"on_date": date.today().isoformat()}
        insured = await self._ask("insurance.lookup.v1", asked | today)
        self.insured = bool(insured and insured["outcome"] == "found")
        found = await self._ask("patient.lookup.v1", asked)
        if found and found["outcome"] == "found":
            self.patient = found["patients"][0]["id"]
            await self._ask("patient.summary.v1", {"patient": self.patient})

    async def find_bed(self, call: dict[str, Any]) -> None:
        """Ask where there is a bed, book it, and announce the brigade."""
        found = await self._ask("hospital.list.v1", {"profile": PROFILE})
        if not found or not found["hospitals"]:
            return
        ward = found["hospitals"][0]
        self.hospital = ward["id"]
        now = datetime.now(UTC)
        about = {
            **call,
            "hospital": ward["id"],
            "patient": self._as_person(),
            "diagnosis": self._diagnosis(),
            "arrives_at": now + timedelta(minutes=15),
        }
        booking = f"b-{call['call_id']}"
        bed = {"booking_id": booking, "ward": ward["ward"], "profile": PROFILE, "asked_at": now}
        await self._bring("/bus/hospital/bookings", about | bed)
        notice = {"notice_id": f"n-{call['call_id']}", "booking_id": booking}
        await self._bring("/bus/hospital/arrivals", about | notice)

    async def write_card(self, ticket: dict[str, Any]) -> None:
        """Hand over the call card of form 110/у."""
        taken_away = self.hospital is not None
        result = ("3", "больница") if taken_away else ("1", "на месте")
        card = {
            **ticket,
            "card_id": f"kv-{ticket['id']}",
            "finished_at": datetime.now(UTC),
            "patients": [self._as_person()],
            "crew": [
                {
                    "worker": f"99-{index:06d}",
                    "family": family,
                    "given": given,
                    "role": coded("99.2.368", role, title),
                    "post": coded("11.1002", post, title),
                }
                for index, (post, role, title, family, given) in enumerate(CREW, 1)
            ],
            "reason": coded("11.1524", "1", "Острое внезапное заболевание"),
            "order": coded("11.1525", "1", "Первичный"),
            "got_by": coded("11.1526", "2", "по телефону"),
            "complaints": "Со слов больного",
            "measurements": [
                {
                    "kind": coded("99.2.262", "4", "ЧСС"),
                    "before": 96.0,
                    "after": 82.0,
                    "unit": "1/min",
                }
            ],
            "diagnoses": [self._diagnosis()],
            "form_of_care": coded("11.1551", "2", "экстренная"),
            "outcome": coded("11.1543", "1", "улучшение"),
            "result": coded("11.1545", *result),
            "hospital": self.hospital,
            "mileage_km": 5.0 + self._number % 20,
            "visit_wanted": not taken_away,
        }
        await self._bring("/bus/call-cards", card)

    async def ask_visit(self, call: dict[str, Any], address: Any) -> None:
        """Ask the polyclinic to visit the patient at home."""
        wanted = {
            **call,
            "visit_id": f"v-{call['call_id']}",
            "patient": self._as_person(),
            "address": address,
            "diagnosis": self._diagnosis(),
            "asked_at": datetime.now(UTC),
        }
        await self._bring("/bus/visits", wanted)

    async def _ask(self, type: str, question: dict[str, Any]) -> Any:
        return await self._courier.ask(f"/bus/questions/{type}", question)

    def _as_person(self) -> dict[str, Any]:
        if self.person is None:
            return {"sex": "unknown"}
        names = ("family", "given", "birth_date", "sex", "enp")
        person = {name: self.person[name] for name in names}
        if self.patient is not None:
            person |= {"id": self.patient, "identified_by": "rmis"}
        return person

    def _diagnosis(self) -> dict[str, Any]:
        code, words = self.ill
        return {"code": code, "text": words}
