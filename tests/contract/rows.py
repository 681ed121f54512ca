"""The rows of the fault matrix: each connector, and one thing after another to bring it."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from connectors.partners.ats import AtsConnector
from connectors.partners.cssi112 import CssiConnector
from connectors.partners.remd import RemdConnector
from connectors.partners.rmis import RmisConnector
from connectors.partners.rmr import RmrConnector
from connectors.partners.smp import SmpConnector
from connectors.partners.sys112 import Sys112Connector, soapdoor
from connectors.partners.tfoms import TfomsConnector
from connectors.partners.vimis import VimisConnector
from connectors.runtime.bus.connector import Connector
from connectors.simulators.ats import SECRET, USER
from connectors.simulators.ats import create_app as create_ats
from connectors.simulators.cssi112 import create_app as create_cssi
from connectors.simulators.demo.signing import make_signer
from connectors.simulators.kit.people import people
from connectors.simulators.nsi import LISTS
from connectors.simulators.nsi import create_app as create_nsi
from connectors.simulators.remd import create_app as create_remd
from connectors.simulators.rmis.simulator import create_app as create_rmis
from connectors.simulators.rmr import samples
from connectors.simulators.rmr.simulator import create_app as create_rmr
from connectors.simulators.smp.simulator import create_app as create_smp
from connectors.simulators.sys112.simulator import create_app as create_sys112
from connectors.simulators.tfoms.simulator import create_app as create_tfoms
from connectors.simulators.vimis import create_app as create_vimis
from proto import catalogue
from proto.message import Message

# Planted into everything that is brought: nobody may ever read them again but the partner.
FAMILY, PHONE, SECRET_KEY = "Канарейкина", "+79995550199", "canary-0001"
CANARIES = (FAMILY, FAMILY.upper(), PHONE, PHONE[1:], SECRET_KEY)
PERSONAL = {"family": FAMILY, "description": FAMILY, "complaints": FAMILY, "phone": PHONE}
KNOWN = people(0)
WORKERS = samples.workers(7, 5)
SOURCE = "test"
LIST = LISTS[0].passport["oid"]
# delivery: from its queue; question: asked over the bus; load: the connector asks by itself;
# client: a client of the connectors' own.
Kind = Literal["delivery", "question", "load", "client"]


@dataclass(frozen=True)
class Row:
    """One connector. `dead` are the faults that make a dead letter of a delivery; `callbacks` says
    which of "twice" and "early" there are, `told` what the bus hears of a thing in the end."""

    name: str
    shape: type[Connector] | None
    create_app: Any
    bring: Callable[[int], Message] | None = None
    kind: Kind = "delivery"
    path: str = ""
    soap: bool = False
    dead: frozenset[str] = frozenset()
    callbacks: frozenset[str] = frozenset()
    told: tuple[str, ...] = ()
    settings: Callable[[Path], dict[str, Any]] = lambda _: {}

    @property
    def system(self) -> str:
        """What the log calls the partner."""
        return f"Система {self.name}"


def planted(given: Any) -> Any:
    """Return a body with the canaries in every place for a name, a phone or free words."""
    if isinstance(given, dict):
        found = {key: planted(value) for key, value in given.items()}
        found |= {key: value for key, value in PERSONAL.items() if key in found}
        if "login" in found:
            found["name"] = FAMILY
        return found
    return [planted(one) for one in given] if isinstance(given, list) else given


def message(type: str, number: int, /, **changes: Any) -> Message:
    """Return the example of a type, about a call of its own."""
    id112, call = id112_of(number), call_of(number)
    body = planted(catalogue.entry(type).example)
    numbers = {"id112": id112, "call_id": call, "card_id": f"kv-{number}"}
    body |= {key: value for key, value in numbers.items() if key in body}
    if "id" in body:
        body["id"] = call
    if "event_id" in body:
        body["event_id"] = f"event-{number}"
    made = Message.new(type, SOURCE, body | changes, subject=f"case-{number}")
    assert FAMILY.encode() in made.body or PHONE.encode() in made.body
    catalogue.entry(type).read(made.body)
    return made


def id112_of(number: int) -> str:
    return f"112-99-{number:06}"


def call_of(number: int) -> str:
    return f"2026-{number}"


def worker_of(number: int) -> dict[str, Any]:
    """Return a worker of the register that only this case knows."""
    return samples.worker(random.Random(number), 1000 + number) | {"family": FAMILY}


def _question(type: str, **body: Any) -> Message:
    return Message.new(type, SOURCE, body)


def _insured(number: int) -> Message:
    person = KNOWN[number]
    told = {"enp": person["enp"], "birth_date": person["birth_date"], "family": FAMILY}
    # A day when everybody there was insured.
    return _question("insurance.lookup.v1", on_date="2024-11-23", **told)


def _patient(number: int) -> Message:
    person = KNOWN[number]
    return _question("patient.lookup.v1", enp=person["enp"], family=FAMILY)


def _documents(folder: Path) -> dict[str, Any]:
    return {
        "organisation": {"oid": "1.2.643.5.1.13.13.12.2.99.9999", "name": "Станция СМП"},
        "archive_file": folder / "documents.db",
        "signer": make_signer(folder / "signing"),
    }


def _remd(folder: Path) -> dict[str, Any]:
    told = {"client": "client-1", "reply_to": "http://127.0.0.1/remd"}
    return told | {"document": _documents(folder)}


def _rmr(folder: Path, poll_s: float) -> dict[str, Any]:
    return {"state_file": folder / "register.db", "poll_s": poll_s, "pause_s": 0.01}


def _rmis(folder: Path) -> dict[str, Any]:
    return {"state_file": folder / "numbers.db", "poll_s": 0.2, "question_timeout_s": 2.0}


def _ats(folder: Path) -> dict[str, Any]:
    password = folder / "ats.password"
    password.touch(mode=0o600)
    password.write_text(f"{USER}:{SECRET}\n", encoding="utf-8")
    partner = {"credentials_file": password, "timeout_s": 1.5}
    return {"partner": partner, "ping_s": 0.2, "ring_s": 5.0}


def _nsi(folder: Path) -> dict[str, Any]:
    key = folder / "nsi.key"
    key.touch(mode=0o600)
    key.write_text(SECRET_KEY, encoding="utf-8")
    return {"user_key_file": key, "pause_s": 0.01, "requests_per_minute": 10_000}


def _with(type: str, **changes: Any) -> Callable[[int], Message]:
    return lambda number: message(type, number, **changes)


SENDER, REFUSED = frozenset({"sender"}), frozenset({"422"})
TWICE, BOTH = frozenset({"twice"}), frozenset({"twice", "early"})
QUICK = {"repeat_after_s": 0.02, "repeat_after_max_s": 0.02}
QUICK_112 = QUICK | {"confirm_within_s": 0.0}
CARD = "call.card.v1"

ROWS: tuple[Row, ...] = (
    Row("sys112", Sys112Connector, create_sys112, _with("call.status.v1"),
        callbacks=TWICE, settings=lambda _: QUICK_112),
    Row("sys112-soap", Sys112Connector, create_sys112, _with("call.status.v1"),
        path=soapdoor.PATH, soap=True, dead=SENDER, callbacks=TWICE,
        settings=lambda _: QUICK_112 | {"protocol": "soap"}),
    Row("smp", SmpConnector, create_smp, _with("incident.card.v1"), dead=REFUSED, callbacks=TWICE),
    Row("rmis", RmisConnector, create_rmis, _with(CARD), dead=REFUSED, callbacks=BOTH,
        told=("accepted", "confirmed"), settings=_rmis),
    Row("remd", RemdConnector, create_remd, _with(CARD), path="/emdr", soap=True, dead=SENDER,
        callbacks=BOTH, told=("registered",), settings=_remd),
    Row("vimis", VimisConnector, create_vimis, _with(CARD), path="/receiver", soap=True,
        dead=SENDER, callbacks=BOTH, told=("registered",),
        settings=lambda folder: {"document": _documents(folder)}),
    Row("cssi112", CssiConnector, create_cssi, _with("incident.card.v1"), path="/cssi", soap=True,
        dead=SENDER, settings=lambda _: QUICK),
    Row("tfoms", TfomsConnector, create_tfoms, _insured, kind="question",
        settings=lambda folder: {"store_file": folder / "cards.db"}),
    Row("rmis-questions", RmisConnector, create_rmis, _patient, kind="question", settings=_rmis),
    Row("rmr-questions", RmrConnector, partial(create_rmr, workers=WORKERS), kind="question",
        bring=lambda number: _question("worker.lookup.v1", snils=worker_of(number)["snils"]),
        settings=partial(_rmr, poll_s=3600.0)),
    Row("rmr", RmrConnector, partial(create_rmr, workers=WORKERS), kind="load",
        settings=partial(_rmr, poll_s=0.05)),
    Row("nsi", None, create_nsi, kind="client", settings=_nsi),
    Row("ats", AtsConnector, create_ats, _with("telephony.dial.v1", number=PHONE),
        settings=_ats),
)  # fmt: skip
