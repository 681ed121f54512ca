"""What partners answer: each connector's own client code is given recorded answers of the
simulators, mutated, in place of the network."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import msgspec

from connectors.partners.rmis import RmisConnector
from connectors.partners.rmis.connector import RmisSettings
from connectors.partners.rmr import RmrConnector
from connectors.partners.rmr.connector import RmrSettings
from connectors.partners.tfoms import TfomsConnector
from connectors.partners.tfoms.connector import TfomsSettings
from connectors.runtime.partner.breaker import Breaker
from connectors.runtime.partner.http import HttpAnswer
from connectors.runtime.partner.partner import Partner, PartnerSettings
from connectors.runtime.partner.quota import Quota
from connectors.services.nsi import NsiClient, NsiSettings
from connectors.simulators.kit.people import people
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.rmis import search as search_server
from connectors.simulators.rmis.simulator import create_app as create_rmis
from connectors.simulators.tfoms.simulator import create_app as create_tfoms
from proto import clinical, schemas
from proto.client import Delivery, Reject, Retry
from proto.errors import BusError
from tests.contract.rows import LIST, ROWS, Row
from tests.fuzz.mutate import NOISE, Kind, mutated
from tests.fuzz.target import Taker, Taking, Target, Wrong, settle
from tests.settings import settings_of

URL: Final = "http://127.0.0.1:9"
KNOWN: Final = people(0)
STATUSES: Final = (200, 200, 200, 201, 202, 204, 206, 400, 401, 404, 409, 410, 422, 429, 500, 503)
SOUND: Final = SimulatorSettings(pace_s=3600.0, strict=False)
Work = Callable[[int], Awaitable[Any]]


@dataclass
class Tape:
    """The answers to one piece of work, and the key that each request had."""

    work: int
    answers: list[tuple[HttpAnswer, str]] = field(default_factory=list)


class Played:
    """Stands where a partner's HTTP client is: records what the simulator answers, or plays it."""

    def __init__(self, app: Any, settings: PartnerSettings) -> None:
        self._app = app
        self._path = urlsplit(settings.url).path
        self._shown = {} if settings.credentials_file is None else {"authorization": "Basic eDp5"}
        self.tape: Tape | None = None
        self.random: Random | None = None
        self._at = 0
        self._spoilt = 0
        self.shown: list[Any] = []

    def play(self, tape: Tape, random: Random) -> None:
        """Answer from the tape from now on, and spoil one of its answers at least."""
        self.tape, self.random, self._at, self.shown = tape, random, 0, []
        self._spoilt = random.randrange(len(tape.answers))

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Any = None, **_: Any
    ) -> HttpAnswer:
        """See HttpClient.request."""
        key = (headers or {}).get("idempotency-key", "")
        if self.random is None:
            answer = await self._ask(method, path, body, headers or {})
            if self.tape is not None:
                self.tape.answers.append((answer, key))
            return answer
        assert self.tape is not None
        answer, old = self.tape.answers[min(self._at, len(self.tape.answers) - 1)]
        spoilt = self._at == self._spoilt or self.random.random() < 0.3
        self._at += 1
        if old and key:  # an answer names the question that it answers
            changed = answer.body.replace(old.encode(), key.encode())
            answer = HttpAnswer(answer.status, answer.headers, changed)
        if spoilt:
            answer = spoil(answer, self.random)
        self.shown.append((method, path, answer.status, dict(answer.headers), answer.body))
        return answer

    async def _ask(self, method: str, path: str, body: bytes, headers: Any) -> HttpAnswer:
        whole = f"{self._path}{path}" if path else self._path or "/"
        target, _, query = whole.partition("?")
        asked = [
            (name.lower().encode(), value.encode())
            for name, value in (self._shown | headers).items()
        ]
        answer = Heard()
        pieces = [body]

        async def receive() -> dict[str, Any]:
            if not pieces:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": pieces.pop(), "more_body": False}

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": target, "raw_path": target.encode(), "root_path": "",
            "query_string": query.encode(), "client": ("127.0.0.1", 1), "server": ("h", 80),
            "headers": [*asked, (b"host", b"h"), (b"content-length", str(len(body)).encode())],
        }  # fmt: skip
        await self._app(scope, receive, answer)
        return HttpAnswer(answer.status, answer.headers, answer.body)

    async def close(self) -> None:
        """Nothing is open."""


class Heard:
    """Keeps what an app sends."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    async def __call__(self, event: Any) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
            self.headers = {name.decode(): value.decode() for name, value in event["headers"]}
        elif event["type"] == "http.response.body":
            self.body += event.get("body", b"")


def spoil(answer: HttpAnswer, random: Random) -> HttpAnswer:
    """Return an answer, changed."""
    kind: Kind = "xml" if answer.body[:5].lstrip().startswith(b"<") else "json"
    status, headers, body = answer.status, dict(answer.headers), answer.body
    if random.random() < 0.95:
        body = mutated(kind, (body,), random)
    if random.random() < 0.1:
        status = random.choice(STATUSES)
    if random.random() < 0.05:
        odd = random.choice(NOISE).decode("latin-1")
        headers[random.choice(("content-type", "retry-after", "x-odd"))] = odd
    return HttpAnswer(status, headers, body)


class AnswerTarget(Target):
    """A connector at work whose partner answers oddly. What it may come to is Retry, Reject, or a
    refusal to whoever asked; and a note that SETTLE can carry."""

    group = 250

    def make(self, folder: Path) -> tuple[Any, Any, Sequence[Partner]]:
        """Return the connector, its simulator's app, and the partners that play it."""
        raise NotImplementedError

    def works(self) -> Sequence[Work]:
        """Return what can be done; the number makes each time another thing of it."""
        raise NotImplementedError

    async def open(self, folder: Path) -> None:
        self._connector, app, partners = self.make(folder)
        self._partners = list(partners)
        self._played = [Played(app, partner.settings) for partner in self._partners]
        for partner, played in zip(self._partners, self._played, strict=True):
            partner._http = played  # type: ignore[assignment]
        self._works = self.works()
        self._number = 1000
        self._tapes: list[tuple[Played, Tape]] = []
        for at, work in enumerate(self._works):
            for played in self._played:
                played.tape = Tape(at)
            self._number += 1
            await work(self._number)
            self._tapes += [(one, one.tape) for one in self._played
                            if one.tape is not None and one.tape.answers]  # fmt: skip
        if not self._tapes:
            raise Wrong("no partner was asked")

    async def close(self) -> None:
        await self._connector.close()

    async def run(self, random: Random) -> str:
        played, tape = random.choice(self._tapes)
        for one in self._played:
            mine = [tape for other, tape in self._tapes if other is one] or [Tape(0)]
            if mine[0].answers:
                one.play(random.choice(mine), random)
        played.play(tape, random)
        self.shown = played.shown
        for partner in self._partners:
            partner.breaker = Breaker(partner.settings.breaker)
        self._number += 1
        try:
            came = await self._works[tape.work](self._number)
        except (Retry, Reject, BusError) as error:
            return type(error).__name__.lower()
        return came if isinstance(came, str) else "done"


def _table(row_path: str = "", **more: Any) -> dict[str, Any]:
    breaker = {"failures_max": 10_000}
    return {"url": f"{URL}{row_path}", "system": "fuzz", "breaker": breaker, **more}


class RowTarget(AnswerTarget):
    """A row of the fault matrix."""

    row: ClassVar[Row]

    def make(self, folder: Path) -> tuple[Any, Any, Sequence[Partner]]:
        row = self.row
        told = row.settings(folder)
        partner = _table(row.path) | told.get("partner", {})
        table = {"listen": "127.0.0.1:1", **told, "partner": partner}
        assert row.shape is not None
        settings = settings_of(table, row.shape.Settings)
        connector = row.shape(row.name, settings, Taking(row.name))
        return connector, row.create_app(SOUND), [connector.partner]

    def works(self) -> Sequence[Work]:
        bring = self.row.bring
        assert bring is not None

        async def handle(number: int) -> Any:
            taker: Any = Taker(self._connector.bus)
            delivery = Delivery(taker, number, 1, bring(number))
            return await settle(self._connector.handle, delivery)

        return [handle, handle]


def _row_target(row: Row) -> type[RowTarget]:
    # Documents are signed at each turn, which takes its time.
    weight = 0.1 if row.name in ("remd", "vimis") else 1.0
    made = {"row": row, "name": f"answer.{row.name}", "weight": weight,
            "__doc__": RowTarget.__doc__}  # fmt: skip
    return type(f"Row_{row.name}", (RowTarget,), made)


class TfomsTarget(AnswerTarget):
    """The insurance fund in one of its dialects."""

    dialect: ClassVar[str] = "canonical"
    path: ClassVar[str] = ""

    def make(self, folder: Path) -> tuple[Any, Any, Sequence[Partner]]:
        table: dict[str, Any] = {"listen": "127.0.0.1:1", "partner": _table(self.path)}
        table |= {"dialect": self.dialect, "store_file": folder / "cards.db"}
        if self.dialect == "ferzl":
            secret = folder / "client"
            secret.touch(mode=0o600)
            secret.write_text("client:secret", encoding="ascii")
            token = _table("/token", credentials_file=secret)
            table["ferzl"] = {"territory": "99000", "token": token}
        connector = TfomsConnector("tfoms", msgspec.convert(table, TfomsSettings),
                                   Taking("tfoms"))  # fmt: skip
        partners = [connector.partner]
        if self.dialect == "ferzl":
            self._token = connector.dialect._token  # type: ignore[attr-defined]
            partners.append(self._token._partner)
        return connector, create_tfoms(SOUND), partners

    def works(self) -> Sequence[Work]:
        person = KNOWN[3]
        asked = schemas.InsuranceQuestion(on_date=date(2024, 11, 23), enp=person["enp"])
        names = schemas.InsuranceQuestion(
            on_date=date(2024, 11, 23), family=person["family"], given=person["given"],
            birth_date=date.fromisoformat(person["birth_date"]),
        )  # fmt: skip

        def ask(question: schemas.InsuranceQuestion) -> Work:
            async def work(_: int) -> Any:
                if self.dialect == "ferzl" and self._number % 3 == 0:
                    self._token.drop(getattr(self._token, "_token", ""))
                answer = await self._connector.dialect.insured(question)
                return msgspec.json.encode(answer)

            return work

        return [ask(asked), ask(names)]


class FerzlTarget(TfomsTarget):
    """ФЕРЗЛ."""

    name = "answer.ferzl"
    weight = 1.5
    dialect, path = "ferzl", "/ferzl"


class Hl7Target(TfomsTarget):
    """HL7 v2 in XML."""

    name = "answer.hl7"
    weight = 1.5
    dialect, path = "hl7", "/hl7"


class CanonicalTfoms(TfomsTarget):
    """The fund by HTTP and JSON."""

    name = "answer.tfoms"


class RmisQuestions(AnswerTarget):
    """The hospitals' system: who somebody is, beds, changes."""

    name = "answer.rmis.questions"
    riams: ClassVar[bool] = False
    search: ClassVar[bool] = False

    def make(self, folder: Path) -> tuple[Any, Any, Sequence[Partner]]:
        table: dict[str, Any] = {"listen": "127.0.0.1:1", "partner": _table(),
                                 "state_file": folder / "numbers.db"}  # fmt: skip
        if self.riams:
            login = folder / "login"
            login.touch(mode=0o600)
            login.write_text("user:password", encoding="ascii")
            table |= {"dialect": "riams", "riams": {"login_file": login}}
        if self.search:
            table["search"] = _table(search_server.PATH)
        connector = RmisConnector("rmis", msgspec.convert(table, RmisSettings),
                                  Taking("rmis"))  # fmt: skip
        return connector, create_rmis(SOUND), connector.partners()

    def works(self) -> Sequence[Work]:
        person = KNOWN[3]
        names = {key: person[key] for key in ("family", "given", "birth_date")}
        asked = msgspec.convert(names, clinical.PatientQuestion)
        who = self._connector.search or self._connector.dialect

        async def identify(_: int) -> Any:
            return msgspec.json.encode(await who.identify(asked))

        async def hospitals(_: int) -> Any:
            return msgspec.json.encode(await self._connector.dialect.hospitals("81"))

        async def summary(_: int) -> Any:
            return msgspec.json.encode(await self._connector.dialect.summary(person["id"]))

        async def poll(_: int) -> Any:
            await self._connector.poll()

        if self.search:
            return [identify]
        if self.riams:
            return [identify, hospitals]
        return [identify, hospitals, summary, poll]


class RiamsQuestions(RmisQuestions):
    """РИАМС."""

    name = "answer.riams"
    riams = True


class SearchTarget(RmisQuestions):
    """The search service for persons, by SOAP."""

    name = "answer.search"
    weight = 0.5
    search = True


class RmrTarget(AnswerTarget):
    """The register of medical workers: pages, changes, one worker."""

    name = "answer.rmr"
    group = 100

    def make(self, folder: Path) -> tuple[Any, Any, Sequence[Partner]]:
        row = next(one for one in ROWS if one.name == "rmr")
        table = {"listen": "127.0.0.1:1", "partner": _table(), "state_file": folder / "r.db",
                 "pause_s": 1e-6, "full_every_s": 1e-6}  # fmt: skip
        connector = RmrConnector("rmr", msgspec.convert(table, RmrSettings),
                                 Taking("rmr"))  # fmt: skip
        return connector, row.create_app(SOUND), [connector.partner]

    def works(self) -> Sequence[Work]:
        question = next(one for one in ROWS if one.name == "rmr-questions")
        assert question.bring is not None
        asked = msgspec.json.decode(question.bring(1).body, type=schemas.WorkerQuestion)

        async def load(_: int) -> Any:
            await self._connector.poll()

        async def find(_: int) -> Any:
            return msgspec.json.encode(await self._connector._find(asked))

        return [load, find]


class NsiTarget(AnswerTarget):
    """Code lists of НСИ."""

    name = "answer.nsi"

    def make(self, folder: Path) -> tuple[Any, Any, Sequence[Partner]]:
        row = next(one for one in ROWS if one.name == "nsi")
        key = folder / "nsi.key"
        key.touch(mode=0o600)
        key.write_text("key", encoding="ascii")
        table = {"partner": _table(), "user_key_file": key, "pause_s": 1e-6,
                 "requests_per_minute": 10_000}  # fmt: skip
        client = NsiClient(msgspec.convert(table, NsiSettings), Quota(10_000_000, 5_000_000))
        return client, row.create_app(SOUND), [client.partner]

    def works(self) -> Sequence[Work]:
        async def whole(_: int) -> Any:
            return (await self._connector.code_list(LIST)).name_of("98")

        return [whole]


TARGETS: Final = (
    *(_row_target(row) for row in ROWS
      if row.kind == "delivery" and row.name != "ats"),
    CanonicalTfoms, FerzlTarget, Hl7Target, RmisQuestions, RiamsQuestions, SearchTarget, RmrTarget,
    NsiTarget,
)  # fmt: skip
