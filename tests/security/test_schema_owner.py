"""Whose the schema in the ambulance's database is: on a real PostgreSQL."""

import subprocess
from collections.abc import Iterator

import psycopg
import pytest

from connectors.smpsql.tables import SCHEMA
from tests.integration.bus import SMPBUS
from tests.integration.postgres import OWNER, PASSWORD, VENDOR, Postgres


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
