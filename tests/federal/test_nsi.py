"""The НСИ client reads the raw answers of the federal service."""

import asyncio
from pathlib import Path

import msgspec

from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.partner.partner import PartnerSettings
from connectors.runtime.partner.quota import Quota
from connectors.services.lookup import CodeList
from connectors.services.nsi import NsiClient, NsiSettings
from connectors.services.nsi.contract import Page, Passport, code_list
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.nsi import create_app, read_folder

OID = "1.2.643.5.1.13.13."
# Codes that the cards of the ambulance use, as people know them.
KNOWN = {
    ("11.1002", "196"): "фельдшер скорой медицинской помощи",
    ("11.1040", "2"): "Женский",
    ("11.1524", "2"): "Несчастный случай",
    ("11.1525", "2"): "Повторный",
    ("11.1551", "2"): "Экстренная",
    ("99.2.206", "77"): "г. Москва",
}


def files(data: Path, ending: str) -> list[Path]:
    found = sorted((data / "nsi").glob(f"*_{ending}.json"))
    assert found, f"no *_{ending}.json in {data / 'nsi'}"
    return found


def test_every_raw_answer_is_a_list_of_the_contract(data: Path) -> None:
    for path in files(data, "passport"):
        passport = msgspec.json.decode(path.read_bytes(), type=Passport)
        part = path.with_name(path.name.replace("_passport", "_part1"))
        page = msgspec.json.decode(part.read_bytes(), type=Page)
        found = code_list(passport, page.rows)
        assert path.name == f"{found.oid}_{found.version}_passport.json"
        assert len(found.rows) == passport.rows_count == page.total
        assert all(found.name_of(code) for code in found.rows), (path.name, found.title)


def test_the_client_reads_them_page_by_page_over_http(data: Path) -> None:
    async def read() -> dict[str, CodeList]:
        sources = read_folder(data / "nsi")
        app = create_app(SimulatorSettings(strict=False), sources)
        server = HttpServer(app, channel := bind("127.0.0.1:0", "test"))
        await server.start()
        partner = PartnerSettings(url=f"http://127.0.0.1:{channel.getsockname()[1]}")
        client = NsiClient(NsiSettings(partner=partner), Quota(100_000, 10_000))
        oids = [source.passport["oid"] for source in sources]
        try:
            return {oid: await client.code_list(oid) for oid in oids}
        finally:
            await client.close()
            await server.stop()

    lists = asyncio.run(read())
    assert len(lists) == len(files(data, "passport"))
    told = {key: lists[OID + key[0]].name_of(key[1]) for key in KNOWN}
    assert {key: str(name).casefold() for key, name in told.items()} == {
        key: name.casefold() for key, name in KNOWN.items()
    }
