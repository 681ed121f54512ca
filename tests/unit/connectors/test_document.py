"""Documents: the plan, the builder's times and numbers, signing, and the archive."""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7
from lxml import etree

from connectors.services.document import (
    Archive,
    Document,
    Organisation,
    SignerSettings,
    build,
    load_plan,
)
from connectors.services.document.card import day, moment, snils
from connectors.services.document.signer import RsaSigner, load_signer
from connectors.simulators.demo.signing import make_signer
from proto import catalogue, clinical
from proto.configuration.find import find_table
from proto.exits import StartError

PLAN = load_plan()
PLACE = Organisation(oid="1.2.643.5.1.13.13.12.2.99.9999", name="Станция")
CARD = msgspec.convert(catalogue.entry("call.card.v1").example, clinical.CallCard, strict=False)
V3 = {"v": "urn:hl7-org:v3"}
DOCUMENT = Document(
    uid="u", card="kv-1", card_version=1, number="kv-1", version=1, call="c", subject="112-1",
    state="sent", remote=None, code=None, message=None, sends=0, source=b"{}", file=b"<a/>",
    signature=b"s", digest="d", made_at=1,
)  # fmt: skip


def test_the_same_card_is_the_same_document() -> None:
    made = [build(CARD, PLAN, PLACE, number="kv-1", version=1) for _ in range(2)]
    assert made[0] == made[1]


def test_versions_of_a_document_have_one_set_and_numbers_of_their_own() -> None:
    roots = [
        etree.fromstring(build(CARD, PLAN, PLACE, number="kv-1", version=version))
        for version in (1, 2)
    ]
    sets = {root.xpath("string(v:setId/@extension)", namespaces=V3) for root in roots}
    ids = {root.xpath("string(v:id/@extension)", namespaces=V3) for root in roots}
    versions = [root.xpath("string(v:versionNumber/@value)", namespaces=V3) for root in roots]
    assert (len(sets), len(ids), versions) == (1, 2, ["1", "2"])


def test_nothing_is_said_of_an_unknown_patient() -> None:
    unknown = msgspec.structs.replace(CARD, patients=[])
    root = etree.fromstring(build(unknown, PLAN, PLACE, number="kv-1", version=1))
    patient = next(root.iterfind(".//v:patient", V3))
    assert [one.get("nullFlavor") for one in patient.iter() if not len(one)] == ["NI"] * 4


def test_times_dates_and_numbers_as_cda_writes_them() -> None:
    at = datetime.fromisoformat("2026-11-23T08:14:41+03:00")
    assert moment(at) == "202611230814+0300"
    assert moment(datetime(2026, 1, 2, 3, 4, tzinfo=UTC)) == "202601020304+0000"
    assert day(date(1984, 5, 27)) == "19840527"
    assert snils("11223344595") == "112-233-445 95"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('section = "NOTES"', 'section = "NOWHERE"', r"fields\[[0-9]+\].section: «NOWHERE»"),
        ('of = "1.2.643.5.1.13.13.11.1524"', 'of = "1.2.3"', r"fields\[[0-9]+\].of: «1.2.3»"),
        ('kind = "115"', "", "kind"),
    ],
)
def test_a_plan_that_contradicts_itself_is_named(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    file = tmp_path / "plan.toml"
    text = find_table("semd115.toml").read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(StartError, match=words):
        load_plan(file)


def test_a_signature_is_detached_and_by_our_certificate(tmp_path: Path) -> None:
    settings = msgspec.convert(make_signer(tmp_path), SignerSettings)
    signed = load_signer(settings).sign(b"<document/>")
    assert b"<document/>" not in signed.signature
    (certificate,) = pkcs7.load_der_pkcs7_certificates(signed.signature)
    assert settings.certificate_file is not None
    assert certificate == x509.load_pem_x509_certificate(settings.certificate_file.read_bytes())


def test_signers_that_cannot_work_are_one_sentence(tmp_path: Path) -> None:
    good = make_signer(tmp_path)
    with pytest.raises(StartError, match="не названы"):
        RsaSigner(SignerSettings())
    with pytest.raises(StartError, match="нет такого класса"):
        load_signer(SignerSettings(use="connectors.services.document.signer:Nobody"))
    good["key_file"].chmod(0o644)
    with pytest.raises(StartError, match="chmod 600"):
        RsaSigner(msgspec.convert(good, SignerSettings))
    good["key_file"].write_text("secret words")
    with pytest.raises(StartError) as refused:
        RsaSigner(msgspec.convert(good, SignerSettings))
    assert "secret words" not in refused.value.sentence


def test_the_archive_goes_forward_only_and_outlives_the_process(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "a.db")
    archive.keep(DOCUMENT)
    assert archive.move("u", "accepted")
    assert archive.move("u", "registered", remote="99.26")
    assert not archive.move("u", "accepted")
    assert not archive.move("u", "gave_up")
    assert not archive.move("nobody", "accepted")
    archive.sent("u", "m-1")
    archive.close()
    again = Archive(tmp_path / "a.db")
    found = again.of_message("m-1")
    assert found == replace(DOCUMENT, state="registered", remote="99.26", message="m-1", sends=1)
    assert again.newest("kv-1") == (1, 1)
    assert again.newest("kv-2") == (0, 0)
    assert again.counts() == {"registered": 1}
    assert (tmp_path / "a.db").stat().st_mode & 0o077 == 0
    again.close()


def test_files_of_documents_long_ended_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(tmp_path / "a.db")
    archive.keep(DOCUMENT)
    archive.move("u", "registered")
    monkeypatch.setattr("connectors.services.document.archive.KEPT_S", -1.0)
    archive.keep(replace(DOCUMENT, uid="w", card="kv-2"))
    ended, living = archive.of_uid("u"), archive.of_uid("w")
    assert ended is not None
    assert living is not None
    assert (ended.file, ended.source, ended.signature) == (b"", b"", b"")
    assert living.file == DOCUMENT.file
    archive.close()
