"""Simulators found where the settings say the partners are; whoever is none is left alone.

All that a partner is asked before it is known to be a simulator is `GET /faults`, which changes
nothing anywhere.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from connectors.runtime.partner.http import HttpClient, Unreachable
from connectors.simulators.kit.faults import Faults
from proto.exits import EX_CONFIG, EX_UNAVAILABLE, StartError
from proto.message import UNREADABLE
from proto.nesting import decode_json
from proto.wording import text

WELL: Final = Faults()
EXCHANGE: Final = "ats"
ASK_S: Final = 5.0


class StandIn:
    """The control pages of one simulator."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        where = urlsplit(url)
        self._http = HttpClient(f"{where.scheme}://{where.netloc}", timeout_s=ASK_S)

    async def close(self) -> None:
        """Let go of it."""
        await self._http.close()

    async def faults(self) -> Faults | None:
        """Return its switches; None when this is no simulator. Raises Unreachable."""
        answer = await self._http.request("GET", "/faults")
        if answer.status != 200:
            return None
        try:
            told = decode_json(answer.body, dict[str, Any])
            if told.keys() != set(Faults.__struct_fields__):
                return None
            return msgspec.convert(told, Faults)
        except UNREADABLE:
            return None

    async def switch(self, faults: Faults) -> None:
        """Set all its switches. Raises Unreachable."""
        answer = await self._http.request("POST", "/faults", msgspec.json.encode(faults))
        if answer.status != 200:
            raise Unreachable("broken")

    async def drive(self, cards: list[dict[str, Any]]) -> None:
        """Have the simulator of System-112 send these. Raises Unreachable."""
        await self._http.request("POST", "/drive", msgspec.json.encode({"cards": cards}))

    async def keys(self, after: int) -> tuple[int, list[str]] | None:
        """Return how many entries its ledger has, and the idempotency keys of those after the
        first `after`, in order; None when it keeps none. Raises Unreachable."""
        answer = await self._http.request("GET", f"/ledger/entries?after={after}")
        if answer.status != 200:
            return None
        page = decode_json(answer.body, dict[str, Any])
        return int(page["count"]), [str(entry["key"]) for entry in page["entries"]]


async def find(tables: Mapping[str, Any], name: str, driver: str) -> dict[str, StandIn]:
    """Return the simulators of every connector in `tables`, the settings' [connectors].

    The load makes up calls, and no real partner may hear of one: everybody who could has to be a
    simulator, not only `name`, which is to be taken away, and `driver`, which brings the load.
    Raises StartError.
    """
    for wanted in (name, driver):
        if wanted not in tables:
            known = ", ".join(sorted(tables))
            raise StartError(text("drill.no_table", name=wanted, known=known))
    found: dict[str, StandIn] = {}
    try:
        for one, table in tables.items():
            url = _url_of(table)
            if one == EXCHANGE and name != EXCHANGE:
                continue  # nobody is called by a card
            found[one] = standin = StandIn(one, _control(one, url))
            await _check(standin, url)
    except BaseException:
        for standin in found.values():
            await standin.close()
        raise
    return found


def _url_of(table: Any) -> str:
    partner = table.get("partner") if isinstance(table, dict) else None
    return str(partner.get("url", "")) if isinstance(partner, dict) else ""


def _control(name: str, url: str) -> str:
    if urlsplit(url).scheme not in ("http", "https"):
        raise StartError(text("drill.no_page", name=name, url=_shown(url)), EX_CONFIG)
    return url


async def _check(standin: StandIn, url: str) -> None:
    name = standin.name
    try:
        faults = await standin.faults()
    except Unreachable:
        raise StartError(
            text("drill.unreachable", name=name, url=_shown(url)), EX_UNAVAILABLE
        ) from None
    if faults is None:
        raise StartError(text("drill.real", name=name, url=_shown(url)), EX_CONFIG)
    if msgspec.structs.replace(faults, seed=0) != WELL:
        raise StartError(text("drill.faulty", name=name, url=_shown(url)), EX_UNAVAILABLE)


def _shown(url: str) -> str:
    """Return an address without a name and password in it."""
    where = urlsplit(url)
    return f"{where.scheme}://{where.netloc.rpartition('@')[2]}"
