"""What `--check` finds at an exchange: name and secret, rights, events."""

import asyncio

from connectors.partners.ats.ami import Packet
from connectors.partners.ats.rights import look
from connectors.partners.ats.session import AmiSession, LinkLost, LoginRefused
from connectors.runtime.partner import tls
from connectors.runtime.partner.partner import PartnerSettings, credentials
from proto.inclear import is_here
from proto.wording import text


async def probe(
    name: str, partner: PartnerSettings, where: tuple[str, int], login: str = "auto"
) -> list[tuple[bool, str]]:
    """Return findings, each good or not. Raises StartError for settings that cannot be."""
    host, port = where
    place = f"{host}:{port}"
    context = tls.make_context(partner)
    user, secret = credentials(partner.credentials_file)
    heard: list[Packet] = []
    session = AmiSession(heard.append, partner.timeout_s)
    reading: asyncio.Task[None] | None = None
    try:
        await session.open(host, port, context)
        reading = asyncio.create_task(session.run())
        session.release()
        way = getattr(partner, "login", login)
        hidden = way == "md5" or (way == "auto" and context is None and not is_here(host))
        await session.login(user or "", secret or "", hidden=hidden, must_hide=way == "md5")
        good = (True, text("connector.ats_logged_in", place=place, user=user or ""))
        return [good, *await look(session, heard)]
    except LoginRefused:
        return [(False, text("connector.ats_login"))]
    except LinkLost as lost:
        reason = tls.sentence_of(str(lost), lost.lack) or str(lost)
        return [(False, text("connector.check_no_partner", place=place, reason=reason))]
    finally:
        session.close()
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
