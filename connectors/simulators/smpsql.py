"""The ambulance system played by a program over its own PostgreSQL: every step is a transaction.

    --connector postgresql://USER@HOST:PORT/DATABASE   its database, with the schema smpbus in it
    POST /drive {"calls": N}   N people call the ambulance itself
    GET  /ledger               its calls, with what happened to each in order

The password is libpq's own affair (PGPASSFILE). Cards come from the inbox; each becomes a call and
its ticket in the transaction that takes it. A call is lived step by step: the new status of its row
and the message that tells of it are one transaction.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.smpsql.database import Address, Connection, Database, DatabaseAway
from connectors.simulators.kit.faults import FaultyApp
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.smp.simulator import LIFE
from proto import schemas

TIMEOUT_S: Final = 10.0
AWAY_S: Final = 0.5
AT_ONCE: Final = 50
TABLES: Final = """
CREATE SCHEMA IF NOT EXISTS ambulance;
CREATE TABLE IF NOT EXISTS ambulance.call (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id112 text UNIQUE,
    about jsonb NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    step integer NOT NULL DEFAULT 0,
    events text[] NOT NULL DEFAULT '{}',
    due timestamptz NOT NULL DEFAULT clock_timestamp(),
    living boolean NOT NULL DEFAULT true
);
CREATE TABLE IF NOT EXISTS ambulance.heard (type text PRIMARY KEY, count integer NOT NULL);
"""
NEW_CALL: Final = """
INSERT INTO ambulance.call (id112, about) VALUES (%s, %s::jsonb)
ON CONFLICT (id112) DO UPDATE SET about = excluded.about RETURNING number, received_at, step
"""
NEXT_STEPS: Final = """
SELECT number, id112, step FROM ambulance.call WHERE living AND due <= clock_timestamp()
ORDER BY due LIMIT %s FOR UPDATE SKIP LOCKED
"""
STEP: Final = """
UPDATE ambulance.call SET step = step + 1, events = events || %s::text, living = %s,
    due = clock_timestamp() + make_interval(secs => %s)
WHERE number = %s
"""
OWN_CALL: Final = {
    "address": {"text": "г. Примерск, ул. Вымышленная, д. 1"},
    "incident_type": {"code": "1", "system": "1.2.643.5.1.13.13.11.1524"},
}


class Ambulance:
    """Dispatcher and brigades; what they know is in the database."""

    def __init__(self, settings: SimulatorSettings) -> None:
        address = Address(settings.connector_url, None, connect_s=TIMEOUT_S)
        self._pace_s = settings.pace_s
        self._database = Database(address, TIMEOUT_S, _prepare)

    async def run(self) -> None:
        """Take what the bus brings and live the calls, for ever."""
        while True:
            try:
                moved = await self._take() + await self._live()
            except DatabaseAway:
                moved = 0
                await asyncio.sleep(AWAY_S)
            if not moved:
                await asyncio.sleep(min(self._pace_s, AWAY_S))

    async def close(self) -> None:
        """Let go of the database."""
        await self._database.close()

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        async with self._database.connection() as connection, connection.transaction():
            yield connection

    async def _take(self) -> int:
        async with self._transaction() as work:
            rows = await work.fetch(
                "SELECT seq, type, payload::text FROM smpbus.take(%s)", (AT_ONCE,)
            )
            for seq, type, payload in rows:
                await work.fetch(
                    "INSERT INTO ambulance.heard VALUES (%s, 1) "
                    "ON CONFLICT (type) DO UPDATE SET count = ambulance.heard.count + 1",
                    (type,),
                )
                about = msgspec.json.decode(payload)
                if type == "incident.card.v1":
                    await self._new_call(work, about)
                elif type == "incident.cancelled.v1" and not await self._cancel(work, about):
                    await work.fetch("SELECT smpbus.fail(%s, 'there is no such call')", (seq,))
        return len(rows)

    async def _new_call(self, work: Connection, about: dict[str, Any]) -> None:
        id112 = about.get("id112")
        told = msgspec.json.encode(about).decode()
        number, received_at, step = (await work.fetch(NEW_CALL, (id112, told)))[0]
        ticket = schemas.CallTicket(
            id=f"{received_at.year}-{number}",
            number_day=number,
            number_year=number,
            received_at=received_at,
            status=LIFE[max(0, step - 1)],
            reason=msgspec.convert(about["incident_type"], schemas.Coded),
            address=msgspec.convert(about["address"], schemas.Address),
            source=schemas.TicketSource(
                system="112" if id112 else "phone", id112=[id112] if id112 else []
            ),
            version=step + 1,
            changed_at=datetime.now(UTC),
        )
        await _publish(work, "call.ticket.v1", id112, ticket.id, ticket)

    async def _cancel(self, work: Connection, about: dict[str, Any]) -> bool:
        ended = await work.fetch(
            "UPDATE ambulance.call SET living = false WHERE id112 = %s RETURNING number",
            (about["id112"],),
        )
        return bool(ended)

    async def _live(self) -> int:
        async with self._transaction() as work:
            calls = await work.fetch(NEXT_STEPS, (AT_ONCE,))
            for number, id112, step in calls:
                code, more = LIFE[step], step + 1 < len(LIFE)
                await work.fetch(STEP, (code, more, self._pace_s, number))
                now = datetime.now(UTC)
                call_id = f"{now.year}-{number}"
                event = schemas.StatusEvent(
                    event_id=f"{call_id}/{code}",
                    call_id=call_id,
                    code=code,
                    occurred_at=now,
                    recorded_at=now,
                    id112=id112,
                )
                await _publish(work, "call.status.v1", id112, call_id, event)
        return len(calls)

    async def drive(self, calls: int) -> None:
        """Have so many people call. Raises DatabaseAway."""
        async with self._transaction() as work:
            for _ in range(calls):
                await self._new_call(work, OWN_CALL)

    async def report(self) -> dict[str, Any]:
        """Return calls and counters. Raises DatabaseAway."""
        calls = await self._database.fetch(
            "SELECT number, id112, events, living FROM ambulance.call ORDER BY number"
        )
        heard = await self._database.fetch("SELECT type, count FROM ambulance.heard")
        names = ("number", "id112", "events", "living")
        return {
            "calls": [dict(zip(names, call, strict=True)) for call in calls],
            "heard": dict(heard),
            "living": sum(call[3] for call in calls),
        }


async def _prepare(connection: Connection) -> None:
    """Make our own tables; two of us may begin at once."""
    async with connection.transaction():
        await connection.fetch("SELECT pg_advisory_xact_lock(hashtext('ambulance tables'))")
        await connection.fetch(TABLES)


async def _publish(
    work: Connection, type: str, id112: str | None, call_id: str, body: schemas.Body
) -> None:
    subject = f"112-{id112}" if id112 else f"call-{call_id}"
    payload = msgspec.json.encode(body).decode()
    await work.fetch(
        "SELECT smpbus.publish(%s, %s, %s::jsonb, correlation_id => %s)",
        (type, subject, payload, call_id),
    )


def create_app(settings: SimulatorSettings) -> FaultyApp:
    """Return the simulator's app."""
    ambulance = Ambulance(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        living = asyncio.create_task(ambulance.run())
        yield
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        await ambulance.close()

    async def ledger(_: Request) -> Response:
        try:
            return _json(await ambulance.report())
        except DatabaseAway:
            return Response(status_code=503)

    async def drive(request: Request) -> Response:
        wish = msgspec.json.decode(await request.body())
        try:
            await ambulance.drive(int(wish["calls"]))
        except DatabaseAway:
            return Response(status_code=503)
        return Response(status_code=202)

    routes = [Route("/ledger", ledger), Route("/drive", drive, methods=["POST"])]
    return FaultyApp(Starlette(routes=routes, lifespan=lifespan), settings.faults)


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
