"""Registers of documents: no name can be foreseen, and a word counts only for what we began."""

import asyncio
import sqlite3
import uuid
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partners.remd import RemdConnector, contract
from connectors.partners.vimis import VimisConnector
from connectors.partners.vimis import contract as vimis
from connectors.runtime.access import Unrecorded
from connectors.runtime.markup import soap, xml
from connectors.services.document.verifier import Unverified, VerifierSettings
from connectors.simulators.demo.signing import make_signer
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.remd import create_app as create_remd
from connectors.simulators.vimis import create_app as create_vimis
from proto import catalogue
from proto.client import Retry
from proto.message import Message
from tests.contract.stage import Bus, Scene, scene
from tests.faults.doorstep import a_bus
from tests.ports import free_port

CARD = catalogue.entry("call.card.v1").example
FORGED = contract.RegistryItem(emdr_id="99.26.11.999999999")
OLD_NAMES = uuid.UUID("6f1d3f0e-1120-5d8a-9c51-000000000115")  # as they were made once
WSSE = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"

Act = Callable[[Scene, Bus], Awaitable[None]]


def play(folder: Path, act: Act, shape: Any = RemdConnector, **settings: Any) -> Bus:
    """Act with a register's connector; its simulator calls back late unless it is told to."""
    create, path = (create_remd, "emdr") if shape is RemdConnector else (create_vimis, "receiver")
    port = free_port()
    table: dict[str, Any] = {
        "partner": {"url": f"http://127.0.0.1:{port}/{path}", "timeout_s": 2.0},
        "document": {
            "organisation": {"oid": "1.2.643.5.1.13.13.12.2.99.9999", "name": "Станция"},
            "archive_file": folder / "documents.db",
            "signer": make_signer(folder / "keys"),
            **settings.pop("document", {}),
        },
        **settings,
    }
    if shape is RemdConnector:
        table |= {"client": "client-1", "reply_to": "http://127.0.0.1/remd"}
    told = SimulatorSettings(pace_s=60, repeat_s=0.05)

    async def whole(bus: Bus) -> None:
        async with scene(bus, shape, create, told, port=port, **table) as stage:
            await act(stage, bus)

    with a_bus() as bus:
        asyncio.run(whole(bus))
    return bus


def card(**changes: Any) -> Message:
    return Message.new("call.card.v1", "smp", CARD | changes, subject="112-1")


def document_of(stage: Scene) -> Any:
    connector: Any = stage.connector
    found = connector.life.archive.of_card(CARD["card_id"], CARD["version"])
    assert found is not None
    return found


async def ask(stage: Scene, name: str, value: contract.Shape, signed: bool = False) -> xml.Element:
    """Say something at the door of РЭМД as whoever can reach it may."""
    namespace = contract.CALLBACK if "Result" in name else contract.SERVICE
    header = []
    if signed:
        root = xml.parse(f'<h xmlns:w="{WSSE}"><w:Security/></h>'.encode())
        block = root[0]
        block.set(f"{{{soap.SOAP12}}}mustUnderstand", "1")
        header = [block]
    body = soap.envelope(contract.element(name, value, namespace), header, soap=soap.SOAP12)
    answer = await stage.send("POST", "/remd", body)
    return soap.read_envelope(answer.body).body


async def file(stage: Scene, uid: str, **told: Any) -> str:
    shape = contract.GetDocumentFile(local_uid=uid)
    return xml.local(await ask(stage, "getDocumentFileRequest", shape, **told))


async def result(stage: Scene, **told: Any) -> str:
    shape = contract.RegisterResult(**told)
    return xml.local(await ask(stage, "sendRegisterDocumentResultRequest", shape))


def states(bus: Bus) -> list[str]:
    return [one["state"] for one in bus.bodies("document.state.v1")]


@pytest.mark.fault("S1")
def test_who_knows_the_card_does_not_know_its_document(tmp_path: Path) -> None:
    """A document's name was computed of the card's number, so that whoever could guess one was
    given the signed document: two stations make two names of one card, and one makes it again."""
    uids: list[str] = []

    async def act(stage: Scene, _: Bus) -> None:
        await stage.handle(card())
        uids.append(document_of(stage).uid)
        guesses = [
            str(uuid.uuid5(OLD_NAMES, f"remd/{CARD['card_id']}/{version}")) for version in range(9)
        ]
        for guess in (*guesses, "x", "%", uids[0][:-1], f"{uids[0]}\n0"):
            assert await file(stage, guess) == "Fault"
        assert await file(stage, f" {uids[-1].upper()} ") == "getDocumentFileResponse"
        assert stage.connector.figures()["words_set_aside"] == {"file": len(guesses) + 4}

    for station in ("a", "b", "a"):
        (tmp_path / station).mkdir(exist_ok=True)
        play(tmp_path / station, act)
        for left in (tmp_path / station).glob("documents.db*"):
            if left.suffix != ".key":  # the archive is lost, and the card comes again
                left.unlink()
    assert uids[0] == uids[2] != uids[1]
    assert uuid.UUID(uids[0]).version == 4
    assert (tmp_path / "a" / "documents.db.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.fault("S1")
def test_a_file_is_given_while_it_is_wanted_so_often_and_written_down(tmp_path: Path) -> None:
    """The file was given out before, during and for thirty days after the registration, as often as
    anybody liked, without a line: only while the register is at work, `files_max` times in one
    exchange, and never unless the access is written down."""
    noted: list[tuple[str, ...]] = []

    class Journal:
        full = False

        async def note(self, what: str, who: str, why: str, ids: Any = ()) -> None:
            if self.full:
                raise Unrecorded
            noted.append((what, who, *ids))

        async def close(self) -> None: ...

    async def act(stage: Scene, _: Bus) -> None:
        stage.connector.accesses = journal = Journal()
        connector: Any = stage.connector
        await connector.life.make(
            msgspec.convert(CARD, catalogue.entry("call.card.v1").schema, strict=False), card()
        )
        uid = document_of(stage).uid
        assert await file(stage, uid) == "Fault"  # nothing was sent yet
        await stage.handle(card())
        journal.full = True
        assert await file(stage, uid) == "Fault"
        journal.full = False
        assert [await file(stage, uid) for _ in range(3)] == [
            "getDocumentFileResponse", "getDocumentFileResponse", "Fault",
        ]  # fmt: skip
        message = document_of(stage).message
        told = {"relates_to_message": message, "status": "success", "registry_item": FORGED}
        await result(stage, **told)
        assert document_of(stage).state == "registered"
        assert await file(stage, uid) == "Fault"

    play(tmp_path, act, document={"files_max": 3})
    assert len(noted) == 2
    assert {one[0] for one in noted} == {"remd.file"}


@pytest.mark.fault("S2")
def test_a_result_of_no_exchange_of_ours_changes_nothing(tmp_path: Path) -> None:
    """A stranger registered a document that the register had never seen, and it was never sent:
    whoever does not know the random id of an exchange of ours is not heard."""

    async def act(stage: Scene, bus: Bus) -> None:
        await stage.faults(down=True)
        with pytest.raises(Retry):
            await stage.handle(card())
        document = document_of(stage)
        other = await _another(stage)
        for message, uid in (
            (None, document.uid), ("", document.uid), (str(uuid.uuid4()), document.uid),
            (document.uid, document.uid), (document.message, other.uid), ("x", None),
            (document.message, "no uid"),
        ):  # fmt: skip
            for status, item in (("success", FORGED), ("error", None)):
                told = {"relates_to_message": message, "local_uid": uid, "status": status}
                assert await result(stage, **told, registry_item=item) == "Fault"
        assert document_of(stage) == document
        assert bus.accepted == []
        assert stage.connector.figures()["words_set_aside"] == {"exchange": 14}
        await stage.faults(down=False)
        await stage.handle(card(), attempt=2)
        assert document_of(stage).state == "accepted"

    assert states(play(tmp_path, act)) == ["accepted"]


async def _another(stage: Scene) -> Any:
    with pytest.raises(Retry):
        await stage.handle(card(card_id="kv-2"), 2)
    connector: Any = stage.connector
    return connector.life.archive.of_card("kv-2", CARD["version"])


@pytest.mark.fault("S2")
def test_a_word_before_the_acceptance_waits_for_it(tmp_path: Path) -> None:
    """A result for a document that was not accepted was applied at once: it is kept, and counts
    when the register has accepted the document."""

    async def act(stage: Scene, bus: Bus) -> None:
        await stage.faults(down=True)
        with pytest.raises(Retry):
            await stage.handle(card())
        message = document_of(stage).message
        told = {"relates_to_message": message, "status": "success", "registry_item": FORGED}
        assert await result(stage, **told) == "sendRegisterDocumentResultResponse"
        assert document_of(stage).state == "sent"
        assert bus.accepted == []
        await stage.faults(down=False)
        await stage.handle(card(), attempt=2)
        assert document_of(stage).state == "registered"

    assert states(play(tmp_path, act)) == ["accepted", "registered"]


@pytest.mark.fault("S2")
def test_two_words_about_one_document_are_an_alarm(tmp_path: Path) -> None:
    """ "Rejected" and then "registered" were both told as they came, and nobody wondered: the first
    word of an exchange holds, the other is a line, a figure that a restart does not forget, and a
    message to the administrator."""

    async def act(stage: Scene, bus: Bus) -> None:
        await stage.handle(card())
        told = {"relates_to_message": document_of(stage).message}
        good = told | {"status": "success", "registry_item": FORGED}
        other = contract.RegistryItem(emdr_id="99.26.11.999999998")
        error = contract.Errors(
            item=[contract.ErrorItem(code="PERSON_NOT_FOUND", message="Иванов")]
        )
        for _ in range(2):
            await result(stage, **good)
            await result(stage, **told, status="error", errors=error)
            await result(stage, **(good | {"registry_item": other}))
        assert (document_of(stage).state, document_of(stage).remote) == (
            "registered", FORGED.emdr_id,
        )  # fmt: skip

    async def later(stage: Scene, _: Bus) -> None:
        assert stage.connector.figures()["documents_contradicted"] == 1

    bus = play(tmp_path, act)
    assert states(bus) == ["accepted", "registered"]
    alarms = {one.id: one.json() for one in bus.accepted if one.type == "input.rejected.v1"}
    rules: list[Any] = [one["rule"] for one in alarms.values()]  # type: ignore[index]
    assert sorted(rules) == [
        "says registered of a document that is registered",
        "says rejected of a document that is registered",
    ]
    assert "Иванов" not in str(alarms)
    play(tmp_path, later)


class Nobody:
    """Believes whom the test says."""

    believed = b"believed"

    def __init__(self, settings: VerifierSettings) -> None:
        pass

    def verify(self, envelope: bytes) -> None:
        """See Verifier."""
        if self.believed not in envelope:
            raise Unverified


@pytest.mark.fault("S1")
@pytest.mark.parametrize("believed", [b"Security", b"nothing that is there"])
def test_a_signature_that_nobody_verifies_is_not_understood(
    tmp_path: Path, believed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header marked mustUnderstand with a signature of nonsense was called understood, and nobody
    looked at it: it is refused, unless a verifier of the region's own looks."""

    async def unsigned(stage: Scene, _: Bus) -> None:
        await stage.handle(card())
        assert await file(stage, document_of(stage).uid, signed=True) == "Fault"
        assert await file(stage, document_of(stage).uid) == "getDocumentFileResponse"

    async def verified(stage: Scene, _: Bus) -> None:
        answer = await file(stage, document_of(stage).uid, signed=True)
        assert (answer == "Fault") is (believed != b"Security")
        assert await file(stage, document_of(stage).uid) == "Fault"

    play(tmp_path, unsigned)
    monkeypatch.setattr(Nobody, "believed", believed)
    play(tmp_path, verified, verifier={"use": f"{__name__}:Nobody"})


@pytest.mark.fault("S2")
def test_a_verdict_of_vimis_is_asked_for_before_it_is_believed(tmp_path: Path) -> None:
    """The numbers of ВИМИС can be guessed, and a stranger's "registered" counted as its own: what
    is brought is a reason to ask ВИМИС itself, and what differs from its word is an alarm."""

    async def act(stage: Scene, bus: Bus) -> None:
        await drive(stage, silent=True, status=5)
        await stage.handle(card())
        await stage.faults(down=True)
        assert await bring(stage, 1) == 500
        assert states(bus) == ["accepted"]
        await stage.faults(down=False)
        assert await bring(stage, 1) == 202
        assert document_of(stage).state == "rejected"
        assert await bring(stage, 1, "V-77") == 500
        assert stage.connector.figures() == {
            "documents": {"rejected": 1}, "documents_contradicted": 1, "contradictions": 1,
            "words_set_aside": {"exchange": 1},
        }  # fmt: skip

    assert states(play(tmp_path, act, VimisConnector)) == ["accepted", "rejected"]


async def drive(stage: Scene, **behaviour: Any) -> None:
    answer = await stage.simulator.request("POST", "/drive", msgspec.json.encode(behaviour))
    assert answer.status == 202


async def bring(stage: Scene, status: int, number: str = "V-1") -> int:
    """Say at the door of ВИМИС what has become of a document."""
    root = contract.element("sendResult", contract.Taken(), vimis.CALLBACK)
    root.clear()
    xml.write(root, vimis.Result(number, status), None)
    return (await stage.send("POST", "/vimis", soap.envelope(root))).status


@pytest.mark.fault("S2")
def test_an_archive_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """What was sent before the exchanges had a table of their own is answered for all the same, and
    a document keeps the name that the register knows."""
    old = str(uuid.uuid5(OLD_NAMES, f"remd/{CARD['card_id']}/{CARD['version']}"))

    async def before(stage: Scene, _: Bus) -> None:
        await stage.handle(card())

    async def after(stage: Scene, _: Bus) -> None:
        assert document_of(stage).uid == old
        told = {"relates_to_message": document_of(stage).message, "local_uid": old}
        await result(stage, **told, status="success", registry_item=FORGED)
        assert document_of(stage).state == "registered"

    play(tmp_path, before)
    with closing(sqlite3.connect(tmp_path / "documents.db")) as db, db:
        for table in ("exchange", "given", "contradicted"):
            db.execute(f"drop table {table}")
        db.execute("update document set uid = ?", (old,))
    db.close()
    play(tmp_path, after)
