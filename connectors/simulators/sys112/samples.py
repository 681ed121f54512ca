"""Made-up incident cards, true to life in shape and invented in content.

The town, its streets, names and phones do not exist: KLADR region 99, phones +7 000, coordinates
around a point in a field. Whoever is named here is nobody.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, Literal

import msgspec

SYS_CODE: Final = "112-PRIMERSK"
ZONE: Final = timezone(timedelta(hours=3))
STREETS: Final = ("Вымышленная", "Небывалая", "Придуманная", "Сказочная", "Образцовая", "Учебная")
FAMILIES: Final = ("Примеров", "Образцов", "Тестов", "Выдумкин", "Небылицын", "Сказкин")
GIVEN: Final = ("Иван", "Пётр", "Анна", "Мария", "Олег", "Вера")
TYPES: Final = (
    ("Плохо человеку", "Боль в груди, в сознании"),
    ("Плохо человеку", "Высокая температура, кашель"),
    ("ДТП", "Столкновение двух машин, есть пострадавшие"),
    ("Падение с высоты", "Упал с лестницы, боль в ноге"),
    ("Отравление", "Выпил неизвестную жидкость"),
    ("Роды", "Схватки каждые пять минут"),
)
# The share of cards that are followed by each of these; the rest come once and stay as they are.
CORRECTED: Final = 0.25
REPEATED: Final = 0.08
CANCELLED: Final = 0.06
DOUBLED: Final = 0.10


@dataclass(frozen=True)
class Sample:
    """One thing that System-112 sends, `offset_s` seconds after the start of the day.

    `kind` tells what it is an example of: "new", "correction", "repeat" (another card about the
    same incident), "cancel", "double" (the same request again) or "malformed".
    """

    operation: Literal["update", "cancel", "close"]
    id112: str
    body: dict[str, Any]
    kind: str
    offset_s: float

    @property
    def phone(self) -> str:
        """The number that a new incident was reported from; "" of everything else."""
        if self.kind != "new":
            return ""
        return str(self.body.get("Ier", {}).get("CgPn", ""))

    def push(self) -> dict[str, Any]:
        """Return it as `POST /drive` of the simulator wants it."""
        return {"operation": self.operation, "id112": self.id112, "body": self.body}


def day_of_cards(
    seed: int, count: int, start: datetime | None = None, malformed: bool = True
) -> list[Sample]:
    """Return `count` incidents over 24 hours, with what follows them, in order of time.

    The same seed gives the same day. With `malformed` one more card breaks the contract.
    """
    chance = random.Random(seed)
    begin = start or datetime(2026, 11, 23, tzinfo=UTC)
    samples: list[Sample] = []
    for number in range(1, count + 1):
        samples += _incident(chance, begin, seed, number)
    if malformed:
        samples.append(_malformed(chance, begin, seed, count + 1))
    return sorted(samples, key=lambda sample: sample.offset_s)


def _incident(chance: random.Random, begin: datetime, seed: int, number: int) -> Iterator[Sample]:
    id112 = f"99-{seed:04d}-{number:06d}"
    offset_s = _moment_of_day(chance)
    body = _update(chance, begin + timedelta(seconds=offset_s), id112, number)
    yield Sample("update", id112, body, "new", offset_s)
    if chance.random() < DOUBLED:
        offset_s += 3
        yield Sample("update", id112, body, "double", offset_s)
    if chance.random() < CORRECTED:
        offset_s += chance.uniform(20, 200)
        corrected = _correction(body, begin + timedelta(seconds=offset_s))
        yield Sample("update", id112, corrected, "correction", offset_s)
    if chance.random() < REPEATED:
        later_s = offset_s + chance.uniform(60, 600)
        again = f"{id112}-R"
        repeat = _update(chance, begin + timedelta(seconds=later_s), again, number)
        repeat["Card"]["Location"] = body["Card"]["Location"]
        repeat["Card"]["CommonData"] |= {
            "TypeStr": body["Card"]["CommonData"]["TypeStr"],
            "Description": "Повторное обращение: где бригада",
            "ParentId112": id112,
        }
        yield Sample("update", again, repeat, "repeat", later_s)
    if chance.random() < CANCELLED:
        offset_s += chance.uniform(30, 300)
        yield Sample("cancel", id112, _cancel(id112), "cancel", offset_s)


def _moment_of_day(chance: random.Random) -> float:
    """Return seconds since midnight; the evening is about twice as busy as the night."""
    while True:
        hour = chance.uniform(0, 24)
        busy = 1.6 if 17 <= hour < 22 else 1.2 if 8 <= hour < 17 else 0.7
        if chance.random() * 1.6 < busy:
            return hour * 3600


def _update(chance: random.Random, at: datetime, id112: str, number: int) -> dict[str, Any]:
    type_str, description = TYPES[number % len(TYPES)]
    patients = _patients(chance, type_str, number)
    moment = at.astimezone(ZONE)
    operator = _operator(chance)
    location = _location(chance)
    service = {
        "DdsTypeStr": type_str,
        "IsConsultation": False,
        "CallerTypeStr": chance.choice(("Прохожий", "Родственник", "Сам пострадавший")),
        "ExtPatientPerson": patients,
    }
    card = {
        "Id112": id112,
        "Location": location,
        "CommonData": {
            "TypeStr": type_str,
            "RegionStr": "Примерская область",
            "HrId": f"{number:06d}",
            "Description": description,
            "LostNumber": 0,
            "InjuredNumber": len(patients),
            "IsDanger": type_str == "ДТП",
            "IsBlocking": False,
            "TimeIsoStr": _iso(moment),
            "Level": 0,
        },
        "DdsData03": service,
        "CreateOperator": operator,
        "LastChangeOperator": operator,
        "IncidentState": "Created",
        "Created": _iso(moment + timedelta(seconds=10)),
        "Changed": _iso(moment + timedelta(seconds=40)),
    }
    contact = _contact(chance, moment, id112, operator, location)
    return {"SysCode": SYS_CODE, "Card": card, "Ier": contact}


def _contact(
    chance: random.Random,
    moment: datetime,
    id112: str,
    operator: dict[str, Any],
    location: dict[str, Any],
) -> dict[str, Any]:
    return {
        "Id": f"ier-{id112}",
        "IerIsoTime": _iso(moment + timedelta(seconds=5)),
        "CgPn": f"+7000{chance.randrange(10**7):07d}",
        "FullName": {"LastName": chance.choice(FAMILIES), "FirstName": chance.choice(GIVEN)},
        "AcceptOperator": operator,
        "IerType": chance.choice((1, 1, 1, 1, 2, 5)),
        "Location": location,
    }


def _patients(chance: random.Random, type_str: str, number: int) -> list[dict[str, Any]]:
    if number % 7 == 0:  # a child whose name nobody knows yet
        return [{"id": "p1", "Age": chance.randint(1, 11), "AgeUnit": "M", "Gender": "F"}]
    several = chance.randint(2, 5) if type_str == "ДТП" else 1
    patients: list[dict[str, Any]] = []
    for index in range(1, several + 1):
        person: dict[str, Any] = {"id": f"p{index}", "Gender": chance.choice(("M", "F"))}
        if chance.random() < 0.7:
            person["LastName"] = chance.choice(FAMILIES)
            person["FirstName"] = chance.choice(GIVEN)
            person["Age"] = chance.randint(1, 95)
        patients.append(person)
    return patients


def _location(chance: random.Random) -> dict[str, Any]:
    return {
        "Address": {
            "City": "Примерск",
            "CityShort": "г.",
            "CityCode": "9900000100000",
            "Street": chance.choice(STREETS),
            "StreetShort": "ул.",
            "HouseNumber": str(chance.randint(1, 120)),
            "Flat": str(chance.randint(1, 200)),
            "Porch": chance.randint(1, 8),
            "Floor": chance.randint(1, 16),
            "Clarification": "Вход со двора",
        },
        "Coords": {
            "Latitude": f"{55 + chance.random() / 10:.6f}",
            "Longitude": f"{37 + chance.random() / 10:.6f}",
        },
    }


def _operator(chance: random.Random) -> dict[str, Any]:
    number = chance.randint(1, 30)
    return {
        "OperatorLogin": f"op-{number:02d}",
        "OperatorPost": "Оператор приёма вызовов",
        "OperatorWorkplace": f"АРМ-{number}",
    }


def _correction(body: dict[str, Any], at: datetime) -> dict[str, Any]:
    corrected: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(body))
    corrected.pop("Ier")
    card = corrected["Card"]
    card["CommonData"]["Description"] += "; уточнено: вход со стороны улицы"
    card["Changed"] = _iso(at.astimezone(ZONE) + timedelta(seconds=40))
    card["IncidentState"] = "InWork"
    return corrected


def _cancel(id112: str) -> dict[str, Any]:
    return {
        "SysCode": SYS_CODE,
        "Id112": id112,
        "Reason": "Заявитель отказался от помощи",
        "CancelOperator": {"OperatorLogin": "op-01"},
    }


def _malformed(chance: random.Random, begin: datetime, seed: int, number: int) -> Sample:
    id112 = f"99-{seed:04d}-{number:06d}"
    offset_s = 12 * 3600.0
    body = _update(chance, begin + timedelta(seconds=offset_s), id112, number)
    del body["Card"]["CommonData"]["TypeStr"]
    return Sample("update", id112, body, "malformed", offset_s)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
