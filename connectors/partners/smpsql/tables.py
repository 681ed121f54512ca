"""The functions of schema.sql as the connector calls them, each in one round trip."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from connectors.partners.smpsql.database import BadData, Connection, Database, DatabaseAway
from proto.client import Delivery
from proto.note import coded

VERSION: Final = 1
SCHEMA: Final = Path(__file__).with_name("schema.sql")
OUTBOX_CHANNEL: Final = "smpbus_outbox"
_GREETING: Final = r"""
SELECT (SELECT max(version) FROM smpbus.version),
    ARRAY(SELECT p.proname::text FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'smpbus'::regnamespace AND p.proname LIKE 'bus\_%'
            AND NOT has_function_privilege(p.oid, 'EXECUTE')),
    current_setting('transaction_read_only'),
    (WITH owned AS (
        SELECT relowner AS role FROM pg_catalog.pg_class WHERE relnamespace = 'smpbus'::regnamespace
        UNION SELECT proowner FROM pg_catalog.pg_proc WHERE pronamespace = 'smpbus'::regnamespace)
    SELECT min(pg_catalog.pg_get_userbyid(o.role)::text) FROM owned o
        JOIN pg_catalog.pg_roles r ON r.oid = o.role
        WHERE NOT r.rolsuper AND (SELECT count(*) FROM owned) > 1 AND o.role <> (SELECT datdba
            FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
"""
# Binary: to write arrays of long texts as text takes forty times as long.
_DELIVER: Final = """
SELECT smpbus.bus_deliver(%b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
    %b::bigint[], %b::integer[], %b::bigint[], %b::text[], %b::text[])
"""


class Row(NamedTuple):
    """A waiting row of the outbox; times are milliseconds since 1970-01-01 UTC. No `payload`: it is
    longer than may be."""

    seq: int
    id: str
    type: str
    subject: str
    priority: int
    time: int
    not_before: int | None
    expires: int | None
    correlation_id: str | None
    payload: str | None


async def greet(connection: Connection) -> None:
    """Raise DatabaseAway unless our schema is there, in our version, writable and ours to use, and
    nothing in it was put there by another role than the rest: one that is neither the owner of the
    database nor a superuser, who may do so anyway."""
    version, missing, read_only, stranger = (await connection.fetch(_GREETING))[0]
    if version != VERSION:
        raise DatabaseAway(coded("smpsql.wrong_version", found=version or 0, wanted=VERSION))
    if stranger:
        raise DatabaseAway(coded("smpsql.planted", owner=stranger))
    if missing:
        raise DatabaseAway(coded("smpsql.no_rights"))
    if read_only == "on":
        raise DatabaseAway(coded("smpsql.read_only"))


class Outbox:
    """What the ambulance system has for the bus. Every method raises DatabaseAway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def waiting(
        self,
        rows_max: int,
        bytes_max: int,
        body_max: int,
        held_subjects: Collection[str],
        held_rows: Collection[int],
    ) -> list[Row]:
        """Return rows that wait, of each subject the earliest in order, without those held."""
        found = await self._database.fetch(
            "SELECT * FROM smpbus.bus_waiting(%s, %s, %s, %s::text[], %s::bigint[])",
            (rows_max, bytes_max, body_max, list(held_subjects), list(held_rows)),
        )
        return [Row(*one) for one in found]

    async def accepted(self, seqs: Sequence[int]) -> None:
        """Mark rows that the router has on disk; to do so again changes nothing."""
        await self._database.fetch("SELECT smpbus.bus_accepted(%s::bigint[])", (list(seqs),))

    async def refused(self, reasons: dict[int, str]) -> None:
        """Mark rows that can never be accepted, each with the field and the rule."""
        await self._database.fetch(
            "SELECT smpbus.bus_refused(%s::bigint[], %s::text[])",
            (list(reasons), list(reasons.values())),
        )

    async def prune(self, keep_hours: int, rows_max: int) -> int:
        """Delete what ended long ago, at most `rows_max` of each table; return how many."""
        found = await self._database.fetch(
            "SELECT smpbus.bus_prune(%s, %s)", (keep_hours, rows_max)
        )
        return int(found[0][0])


class Inbox:
    """What the bus has for the ambulance system."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, deliveries: Sequence[Delivery]) -> int:
        """Insert in the order given; return how many were not there yet. Raises DatabaseAway, and
        BadData when a body cannot be stored, then none of them is."""
        messages = [delivery.message for delivery in deliveries]
        try:
            bodies = [message.body.decode() for message in messages]
        except UnicodeDecodeError:
            raise BadData from None
        found = await self._database.fetch(
            _DELIVER,
            (
                [delivery.key for delivery in deliveries],
                [message.id for message in messages],
                [message.type for message in messages],
                [message.source for message in messages],
                [message.subject for message in messages],
                [message.time for message in messages],
                [message.priority for message in messages],
                [message.expires for message in messages],
                [message.correlation_id for message in messages],
                bodies,
            ),
        )
        return int(found[0][0])
