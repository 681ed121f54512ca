"""Files and streams: the exchange's packets, the fund's answers, cases, settings, old environment
files, rows of the outbox, entries of the cache, signatures, secrets."""

import io
import re
import time
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Final

import msgspec

from connectors.billing.answer import BadAnswer, read_answer
from connectors.billing.reading import read_lines
from connectors.partners.ats.ami import Parser, encode
from connectors.partners.cssi112.contract import load_terms as load_cssi
from connectors.partners.external.webhook import is_signed, sign
from connectors.partners.remd.verdict import load_verdicts
from connectors.partners.smp import SmpConnector
from connectors.partners.smpsql.publishing import Publisher
from connectors.partners.smpsql.tables import Row
from connectors.partners.sys112 import Sys112Connector
from connectors.partners.vimis.contract import load_terms as load_vimis
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.settings import load as load_connector
from connectors.runtime.door.door import Door
from connectors.services.lookup import WORKER
from connectors.services.lookup.entry import new_entry, pack, seal, unseal
from connectors.services.lookup.secret import Secret
from proto import catalogue, schemas
from proto.configuration.find import find_table
from proto.configuration.shipped import shipped_folder
from proto.exits import StartError
from router.config import ConfigError, load
from router.oldenvironment import FILE, import_environment, load_known
from tests.fuzz.mutate import NOISE, ODD_NUMBERS, ODD_TEXT, mutated
from tests.fuzz.target import READ, REFUSED, Taking, Target, Wrong, ingress
from tests.unit.connectors.tfoms_cases import cases

ROOT: Final = Path(__file__).parents[2]
EVENTS: Final = tuple(
    "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"
    for lines in (
        ("Event: Newchannel", "Channel: PJSIP/trunk-1", "Uniqueid: 1.1", "Linkedid: 1.1",
         "CallerIDNum: 79990000001", "Context: from-trunk", "Exten: 103"),
        ("Event: QueueCallerJoin", "Queue: 103", "Uniqueid: 1.1", "Position: 1"),
        ("Event: Hangup", "Uniqueid: 1.1", "Cause: 16", "Cause-txt: Normal Clearing"),
        ("Response: Success", "ActionID: a-1", "Message: Authentication accepted"),
    )
)  # fmt: skip
FLK: Final = (
    '<?xml version="1.0" encoding="windows-1251"?><FLK_P><FNAME>FHM1</FNAME>'
    "<FNAME_I>HM990101T99_26101</FNAME_I><PR><OSHIB>901</OSHIB><IM_POL>ENP</IM_POL>"
    "<BAS_EL>PACIENT</BAS_EL><N_ZAP>1</N_ZAP><IDCASE>1</IDCASE><COMMENT>c</COMMENT></PR>"
    "<PR><OSHIB>902</OSHIB><N_ZAP>2</N_ZAP></PR></FLK_P>"
).encode("cp1251")
MEK: Final = (
    '<?xml version="1.0" encoding="windows-1251"?><ZL_LIST><ZGLV><VERSION>3.2</VERSION></ZGLV>'
    "<SCHET><CODE>1</CODE><CODE_MO>990101</CODE_MO><YEAR>2026</YEAR><MONTH>10</MONTH>"
    "<PLAT>99</PLAT></SCHET><ZAP><N_ZAP>1</N_ZAP><Z_SL><IDCASE>1</IDCASE><SL><SL_ID>k-1</SL_ID>"
    "</SL><SUMV>100.00</SUMV><OPLATA>1</OPLATA><SUMP>100.00</SUMP></Z_SL></ZAP><ZAP><N_ZAP>2"
    "</N_ZAP><Z_SL><OPLATA>2</OPLATA><SANK><S_OSN>43</S_OSN><S_TIP>1</S_TIP></SANK></Z_SL></ZAP>"
    "</ZL_LIST>"
).encode("cp1251")
OLD: Final = (
    "# Система-112\nexport SERVER_112_STATUS=true\nCLIENT_112_SERVER_PROTOCOL=HTTP\n"
    "CLIENT_112_SERVER=\"10.1.2.3\"\nCLIENT_112_SERVER_PORT=8080\nCLIENT_112_SERVER_TIMEOUT='20'\n"
    "CLIENT_112_SERVER_PATH=/112/soap\nFB_M_TFOMS285=false\nDB_PASSWORD=fable\n"
).encode()
TIMES: Final = (
    *(one for one in ODD_NUMBERS if isinstance(one, int) and 0 <= one < 2**63), 1_800_000_000_000,
)  # fmt: skip
_COMMENTED: Final = re.compile(rb"\n# (?=[a-z_0-9]+ = )")
CONFIGS: Final = ("smpbus.toml", "routes.toml", "permissions.toml")


class Ami(Target):
    """A stream of the telephone exchange, in pieces of any length."""

    name = "file.ami"
    weight = 5.0

    async def run(self, random: Random) -> str:
        stream = b"Asterisk Call Manager/9.0.0\r\n" + b"".join(
            mutated("lines", EVENTS, random) for _ in range(3)
        )
        self.shown = stream
        parser = Parser()
        at = 0
        while at < len(stream):
            size = random.choice((1, 7, 100, 5000))
            for packet in parser.feed(stream[at : at + size]):
                if "\r\n" in "".join(packet.values()):
                    raise Wrong("a value holds a line end")
            at += size
        try:
            told = encode("Originate", "1", {"Exten": random.choice(ODD_TEXT)})
        except ValueError:
            return REFUSED
        if told.count(b"\r\n") != 4:
            raise Wrong("an action has a line too many")
        return READ


class FundAnswer(Target):
    """ФЛК and МЭК."""

    name = "file.fund"
    weight = 3.0

    async def run(self, random: Random) -> str:
        self.shown = data = mutated("xml", (FLK, MEK), random)
        try:
            for verdict in read_answer(io.BytesIO(data)).verdicts:
                msgspec.json.encode(verdict)
        except BadAnswer:
            return REFUSED
        return READ


class CaseLines(Target):
    """The cases of a register, as JSON lines."""

    name = "file.cases"

    async def open(self, folder: Path) -> None:
        self._file = folder / "cases.jsonl"
        self._samples = [msgspec.json.encode(one) for one in cases(5)]

    async def run(self, random: Random) -> str:
        lines = [mutated("json", self._samples, random).replace(b"\n", b" ") for _ in range(2)]
        self.shown = lines
        self._file.write_bytes(b"\n".join(lines))
        for _, case in read_lines(self._file):
            repr(case)
        return READ


class Config(Target):
    """The router's settings in three files."""

    name = "file.config"
    weight = 0.1
    group = 200

    async def open(self, folder: Path) -> None:
        self._folder = folder
        self._whole = {name: (ROOT / "config" / name).read_bytes() for name in CONFIGS}
        self._whole["smpbus.toml"] = _COMMENTED.sub(b"\n", self._whole["smpbus.toml"])
        for name, data in self._whole.items():
            (folder / name).write_bytes(data)
        load(folder / "smpbus.toml", environ={})  # good as it is

    async def run(self, random: Random) -> str:
        name = random.choice(CONFIGS)
        self.shown = data = mutated("lines", (self._whole[name],), random)
        (self._folder / name).write_bytes(data)
        try:
            load(self._folder / "smpbus.toml", environ={})
            return READ
        except ConfigError:
            return REFUSED
        finally:
            (self._folder / name).write_bytes(self._whole[name])


class ConnectorConfig(Target):
    """A connector's table."""

    name = "file.connector"
    weight = 0.5
    shapes: ClassVar[dict[str, type[Connector]]] = {"smp": SmpConnector, "sys112": Sys112Connector}

    async def open(self, folder: Path) -> None:
        self._file = folder / "smpbus.toml"
        self._whole = (
            b'[bus]\nlisten = ["ipc:///run/bus.sock"]\ncurve = true\nkeys_dir = "keys"\n'
            b'[log]\nlanguage = "ru"\n'
            b'[connectors.smp]\nlisten = "127.0.0.1:7103"\ncredit = 32\nallow = ["10.0.0.0/8"]\n'
            b'mode = "queue"\nvisibility_s = 60.0\ntoken_file = "a"\n[connectors.smp.partner]\n'
            b'url = "http://127.0.0.1:8103"\nsystem = "S"\ntimeout_s = 1.0\n'
            b"breaker = { failures_max = 3 }\n"
            b'[connectors.sys112]\nlisten = "127.0.0.1:7112"\nstate_file = "x.db"\nstop_s = 1.5\n'
            b'[connectors.sys112.partner]\nurl = "https://h/112"\nrate_per_s = 1.0\n'
        )

    async def run(self, random: Random) -> str:
        self.shown = data = mutated("lines", (self._whole,), random)
        self._file.write_bytes(data)
        answer = READ
        for name, shape in self.shapes.items():
            try:
                load_connector(name, shape.Settings, self._file)
            except StartError:
                answer = REFUSED
        return answer


class Terms(Target):
    """Tables that come with the program and that a region may change."""

    name = "file.tables"
    weight = 0.3
    readers: ClassVar[dict[str, Any]] = {
        "remd_errors.toml": load_verdicts, "vimis.toml": load_vimis, "cssi112.toml": load_cssi,
    }  # fmt: skip

    async def open(self, folder: Path) -> None:
        self._file = folder / "table.toml"
        self._samples = {name: find_table(name).read_bytes() for name in self.readers}

    async def run(self, random: Random) -> str:
        name = random.choice(list(self.readers))
        self.shown = data = mutated("lines", (self._samples[name],), random)
        self._file.write_bytes(data)
        try:
            self.readers[name](self._file)
        except StartError:
            return REFUSED
        return READ


class OldEnvironment(Target):
    """An environment file of before."""

    name = "file.environment"
    weight = 2.0

    async def open(self, folder: Path) -> None:
        self._known = load_known(shipped_folder() / FILE)

    async def run(self, random: Random) -> str:
        self.shown = data = mutated("lines", (OLD,), random)
        try:
            lines = data.decode("utf-8").splitlines()
        except UnicodeDecodeError:
            return REFUSED
        import_environment(lines, self._known)
        return READ


class OutboxRows(Target):
    """Rows that somebody else's program wrote into the outbox."""

    name = "file.outbox"
    group = 500

    async def open(self, folder: Path) -> None:
        self._bus = Taking("smpsql")
        door = Door(ingress("smpsql"), system="fuzz", bytes_max=10_000,
                    answer=lambda *_: b"", subject=lambda about: about)  # fmt: skip
        nothing: Any = None
        self._publisher = Publisher(
            nothing, self._bus, door, rows_max=10, body_max=10_000, poll_s=1.0,
            failed=lambda _: 1.0, succeeded=lambda: None,
        )  # fmt: skip
        self._payloads = [
            msgspec.json.encode(catalogue.entry(type).example)
            for type in ("call.status.v1", "call.card.v1", "call.ticket.v1")
        ]

    async def run(self, random: Random) -> str:
        payload = _as_jsonb(mutated("json", self._payloads, random))
        row: Any = Row(
            random.randrange(2**40), self._text(random, "id-1"),
            self._text(random, random.choice(("call.status.v1", "call.card.v1", "own.type.v1"))),
            self._text(random, "call-1"), random.choice((0, 1, 2, 3)),
            self._time(random), random.choice((None, self._time(random))),
            random.choice((None, self._time(random))), random.choice((None, "c")),
            None if random.random() < 0.05 else payload,
        )  # fmt: skip
        self.shown = row
        accepted: list[int] = []
        refused: dict[int, str] = {}
        await self._publisher._publish([row], accepted, refused)
        if not accepted and not refused and not self._publisher._held.holds(row):
            raise Wrong("neither accepted nor refused nor held")
        return READ if accepted else REFUSED if refused else "held"

    @staticmethod
    def _text(random: Random, usual: str) -> str:
        # What PostgreSQL holds: no NUL; the table's own checks bound the length.
        odd = random.choice(ODD_TEXT).replace("\0", "")[:100]
        return usual if random.random() < 0.6 else odd or usual

    @staticmethod
    def _time(random: Random) -> int:
        return random.choice(TIMES)


def _as_jsonb(data: bytes) -> str:
    """Return what PostgreSQL would give back of it; what it would not hold is another payload."""
    try:
        tree = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "null"
    return msgspec.json.encode(tree).decode().replace("\\u0000", "")


class CacheEntry(Target):
    """What memcached gives back: ours, changed, sealed with our secret or not."""

    name = "file.cache"
    weight = 4.0

    async def open(self, folder: Path) -> None:
        self._secret = Secret(b"s" * 32)
        self._key = self._secret.key("worker", ("id", "1"))
        example = catalogue.entry("worker.changed.v1").example
        names = {one.encode_name for one in msgspec.structs.fields(schemas.Worker)}
        worker = msgspec.convert({k: v for k, v in example.items() if k in names}, schemas.Worker)
        now = time.time()
        self._now = now
        self._packed = [
            pack(new_entry(WORKER, value, now, 3600.0), WORKER) for value in (worker, None)
        ]

    async def run(self, random: Random) -> str:
        packed = mutated("msgpack", self._packed, random)
        if random.random() < 0.8:
            form = random.choice((b"p", b"p", b"z", b"x", b""))
            sealed = self._secret.seal(self._key, form + packed)
            if random.random() < 0.1:
                sealed = seal(packed * 20, self._key, self._secret)
        else:
            sealed = mutated("bytes", [self._secret.seal(self._key, packed)], random)
        self.shown = sealed
        entry = unseal(sealed, WORKER, self._key, self._secret, self._now)
        if entry is None:
            return REFUSED
        repr(entry.value)
        return READ


class Signature(Target):
    """The header that signs a webhook."""

    name = "file.signature"
    weight = 2.0

    async def run(self, random: Random) -> str:
        good = sign(b"s" * 32, b"body", 1_800_000_000)
        told = mutated("bytes", (good.encode(),), random).decode("latin-1")
        self.shown = told
        if is_signed(b"t" * 32, b"body", told, 1_800_000_000):
            raise Wrong("signed by nobody")
        is_signed(b"s" * 32, random.choice(NOISE), told, 1_800_000_000)
        return READ if is_signed(b"s" * 32, b"body", told, 1_800_000_000) else REFUSED


TARGETS: Final = (
    Ami, FundAnswer, CaseLines, Config, ConnectorConfig, Terms, OldEnvironment, OutboxRows,
    CacheEntry, Signature,
)  # fmt: skip
