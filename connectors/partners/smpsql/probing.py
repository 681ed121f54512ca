"""`smpbus connector smpsql --check`: is the database there, our schema in it, and is it heard."""

import asyncio
import uuid
from typing import Final

from connectors.partners.smpsql.database import BadData, Database, DatabaseAway, place
from connectors.partners.smpsql.tables import VERSION
from proto.note import coded
from proto.wording import in_words, text

HEARD_S: Final = 2.0

Found = list[tuple[bool, str]]


async def probe(database: Database, url: str, ear: Database | None, ear_url: str) -> Found:
    """Return what is found, each good or not, with a sentence. `ear` is where we listen."""
    where = place(url)
    try:
        await database.fetch("SELECT 1")
        found = [(True, text("smpsql.check_schema", place=where, version=VERSION))]
        if ear is not None:
            found.append(await _hearing(database, ear, place(ear_url)))
    except (DatabaseAway, BadData) as error:
        reason = in_words(str(error) or coded("smpsql.silent"))
        found = [(False, text("smpsql.check_no_schema", place=where, reason=reason))]
    finally:
        await database.close()
    return found


async def _hearing(database: Database, ear: Database, where: str) -> tuple[bool, str]:
    """Notify, and see whether it arrives: not through a pooler in transaction mode."""
    channel = f"smpbus_check_{uuid.uuid4().hex}"
    opened, heard = asyncio.Event(), asyncio.Event()
    listening = asyncio.create_task(ear.listen(channel, opened.set, heard.set))
    try:
        async with asyncio.timeout(HEARD_S):
            await opened.wait()
            await database.fetch("SELECT pg_notify(%s, '')", (channel,))
            await heard.wait()
    except TimeoutError:
        return False, text("smpsql.check_deaf", place=where)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    return True, text("smpsql.check_hears", place=where)
