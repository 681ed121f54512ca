"""`smpbus connector rmis --check` with this dialect: do the tables hold, and does РИАМС answer."""

from connectors.partners.rmis.riams import contract
from connectors.partners.rmis.riams.dialect import RiamsSettings, zone_of
from connectors.partners.rmis.riams.service import Rish, Service
from connectors.partners.rmis.riams.tables import load_tables
from connectors.runtime.partner.partner import Partner
from proto.client import Reject, Retry
from proto.wording import in_words, text

Found = list[tuple[bool, str]]


async def probe(partner: Partner, settings: RiamsSettings) -> Found:
    """Return what is found, each good or not, with a sentence. Nothing is changed there. Raises
    StartError for settings or tables that are wrong."""
    zone_of(settings.zone)
    tables = load_tables(settings.tables_file)
    told = [code for table in tables.lists.values() for code in table.codes.values()]
    filled = sum(bool(code) for code in told)
    found = [(True, text("rmis.check_tables", filled=filled, count=len(told)))]
    try:
        known = await Service(partner).ask(
            "AmbulanceService", "getProfileList", {}, contract.Profiles
        )
        found.append((True, text("rmis.check_profiles", count=len(known.data))))
        if settings.login_file is not None:
            await Rish(partner, settings.login_file).open()
            found.append((True, text("rmis.check_login")))
    except (Retry, Reject) as error:
        found.append((False, text("rmis.check_failed", reason=in_words(str(error)))))
    return found
