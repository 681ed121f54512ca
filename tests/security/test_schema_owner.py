"""Whose the schema in the ambulance's database is: on a real PostgreSQL."""

import asyncio
import subprocess
from collections.abc import Iterator

import psycopg
import pytest

from connectors.partners.smpsql.database import Address, Database, DatabaseAway
from connectors.partners.smpsql.tables import SCHEMA, greet
from tests.integration.bus import SMPBUS
from tests.integration.postgres import BUS, OWNER, PASSWORD, VENDOR, Postgres


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


def install(server: Postgres, database: str) -> "subprocess.CompletedProcess[str]":
    secret = server.folder / f"{database}.password"
    secret.touch(mode=0o600)
    secret.write_text(f"{OWNER}:{PASSWORD}", encoding="utf-8")
    url = f"postgresql://127.0.0.1:{server.port}/{database}"
    return subprocess.run(
        [SMPBUS, "sql", "install", "--url", url, "--credentials-file", secret],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.fault("S20")
def test_a_schema_of_another_role_is_not_installed_into(server: Postgres) -> None:
    """A role that may create schemas had smpbus first, and so owned what was installed into it: it
    put a smpbus.publish of its own in the place of ours."""
    with server.connect() as owner:
        owner.execute("CREATE DATABASE squatted")
        owner.execute(f"GRANT CREATE ON DATABASE squatted TO {VENDOR}")
        owner.execute("CREATE DATABASE free")
    with server.connect("squatted", VENDOR) as vendor:
        vendor.execute("CREATE SCHEMA smpbus")
    refused = install(server, "squatted")
    assert refused.returncode == 78, refused.stderr
    assert VENDOR in refused.stderr
    assert refused.stderr.count("\n") == 1
    with server.connect("squatted") as owner:
        assert owner.execute("SELECT to_regclass('smpbus.outbox')").fetchone() == (None,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="another role"):
            owner.execute(SCHEMA.read_text(encoding="utf-8"))  # as psql does
    for _ in range(2):  # over itself, too
        done = install(server, "free")
        assert done.returncode == 0, done.stderr


@pytest.mark.fault("S20")
def test_a_table_that_was_there_first_is_not_taken_for_ours(server: Postgres) -> None:
    """Nor is anything of another role within a schema of our own."""
    with server.connect() as owner:
        owner.execute("CREATE DATABASE planted")
    with server.connect("planted") as owner:
        owner.execute(f"CREATE SCHEMA smpbus; GRANT ALL ON SCHEMA smpbus TO {VENDOR}")
    with server.connect("planted", VENDOR) as vendor:
        vendor.execute("CREATE TABLE smpbus.inbox (seq bigint)")
    refused = install(server, "planted")
    assert refused.returncode == 78
    assert VENDOR in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.fault("S20")
def test_a_function_that_was_put_in_the_place_of_ours_is_found_by_the_connector(
    server: Postgres,
) -> None:
    """After the installation, too: a role that owned the schema dropped smpbus.publish and made its
    own. The owner of the database and a superuser may, and are not suspected."""
    with server.connect() as owner:
        owner.execute("CREATE ROLE keeper LOGIN")
        owner.execute("CREATE DATABASE replaced OWNER keeper")
    assert install(server, "replaced").returncode == 0
    with server.connect("replaced") as owner:
        owner.execute(f"SELECT smpbus.allow_bus('{BUS}')")
        owner.execute("ALTER TABLE smpbus.inbox OWNER TO keeper")
    assert greeting(server, "replaced") == ""
    with server.connect("replaced") as owner:
        owner.execute(f"GRANT ALL ON SCHEMA smpbus TO {VENDOR}")
    with server.connect("replaced", VENDOR) as vendor:
        vendor.execute("CREATE FUNCTION smpbus.publish() RETURNS void LANGUAGE sql AS ''")
    assert VENDOR in greeting(server, "replaced")


def greeting(server: Postgres, database: str) -> str:
    """Return what the connector has against a database."""
    secret = server.folder / "bus.password"
    secret.touch(mode=0o600)
    secret.write_text(f"{BUS}:{PASSWORD}", encoding="utf-8")

    async def greeted() -> str:
        address = Address(f"postgresql://127.0.0.1:{server.port}/{database}", secret, connect_s=5)
        connected = Database(address, 20.0, greet)
        try:
            await connected.fetch("SELECT 1")
        except DatabaseAway as away:
            return away.answer
        finally:
            await connected.close()
        return ""

    return asyncio.run(greeted())
