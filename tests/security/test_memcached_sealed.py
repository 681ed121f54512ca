"""What lies in memcached is no use to whoever reads, moves or forges it, or has an old secret."""

import secrets
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from pymemcache import Client

from connectors.services.lookup import PATIENT
from connectors.services.lookup.entry import new_entry, pack, seal, unseal
from connectors.services.lookup.secret import NONCE_BYTES, Secret
from proto.schemas import Person
from tests.integration.memcache import Memcache
from tests.until import wait_for

NOW = 1_800_000_000.0
MARKS = ("МАРКЕРОВА", "Пелагея", "11223344595", "9971650880000029")
MARKED = Person(family=MARKS[0], given=MARKS[1], snils=MARKS[2], enp=MARKS[3])
QUESTION = ("enp", MARKS[3])
LARGE = Person(family=MARKS[0] * 900, given=MARKS[1] * 900)  # is pressed before it is sealed


@pytest.fixture(scope="module")
def cache() -> Iterator[Memcache]:
    running = Memcache()
    running.start()
    yield running
    running.kill()


@pytest.fixture
def secret() -> Secret:
    return Secret(secrets.token_bytes(32))


def sealed(secret: Secret, key: str, value: Any = MARKED) -> bytes:
    return seal(pack(new_entry(PATIENT, value, NOW, 60.0), PATIENT), key, secret)


def opened(secret: Secret, key: str, what: bytes) -> Any:
    found = unseal(what, PATIENT, key, secret, NOW + 1)
    return None if found is None else found.value


@pytest.mark.fault("S16")
def test_a_dump_holds_no_mark(cache: Memcache, secret: Secret) -> None:
    """Values were signed MessagePack: names and numbers could be read out of it by any local user;
    here out of all keys and values, and out of the memory of memcached itself."""
    with closing(Client(cache.server)) as client:
        for number, value in enumerate((MARKED, LARGE, MARKED)):
            key = secret.key("patient", (*QUESTION, str(number)))
            client.set(key, sealed(secret, key, value), noreply=False)
    keys = wait_for(lambda: found if len(found := cache.keys()) == 3 else None, "a whole dump")
    values = [cache.say(f"get {unquote(key)}\r\n".encode()) for key in keys]
    assert cache.process is not None
    memory = memory_of(cache.process.pid)
    small = min(values, key=len).partition(b"\r\n")[2].partition(b"\r\nEND")[0]
    assert len(small) > NONCE_BYTES
    assert small in memory, "it was looked at where the values are"
    dump = b"\n".join([*(key.encode() for key in keys), *values])
    for mark in (*MARKS, "family", "birth_date", "patient"):
        assert mark.encode() not in dump
        assert mark.encode() not in memory


def memory_of(pid: int) -> bytes:
    """Return what a process has in its own writable memory."""
    found = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        for line in maps:
            place, rights, _, device = line.split()[:4]
            if rights.startswith("rw") and device == "00:00" and "[v" not in line:
                begin, end = (int(part, 16) for part in place.split("-"))
                memory.seek(begin)
                found.append(memory.read(end - begin))
    return b"".join(found)


@pytest.mark.fault("S16")
def test_a_value_is_read_under_its_own_key_only(secret: Secret) -> None:
    """The answer about one person, laid under another's key, would be a wrong patient's allergies:
    the key is part of what is sealed. So is every byte."""
    key, another = (secret.key("patient", ("enp", number)) for number in ("1", "2"))
    whole = sealed(secret, key)
    assert opened(secret, key, whole) == MARKED
    assert opened(secret, another, whole) is None
    for at in (0, NONCE_BYTES, len(whole) // 2, len(whole) - 1):
        assert opened(secret, key, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]) is None
    for length in (0, 1, NONCE_BYTES, NONCE_BYTES + 15, len(whole) - 1):
        assert opened(secret, key, whole[:length]) is None


@pytest.mark.fault("S16")
def test_a_new_secret_makes_the_old_values_unreadable(secret: Secret) -> None:
    """Rotation: keys differ, so old values are not even found; moved under the new key they are not
    read. What was cached is asked again, which a cache may always cost."""
    new = Secret(secrets.token_bytes(32))
    old_key, new_key = (one.key("patient", QUESTION) for one in (secret, new))
    assert old_key != new_key
    old = sealed(secret, old_key)
    assert opened(new, old_key, old) is None
    assert opened(new, new_key, old) is None


@pytest.mark.fault("S16")
def test_what_encrypts_is_not_what_makes_keys(secret: Secret) -> None:
    """Two uses of one secret are told apart before it is digested, and no nonce comes twice."""
    key = secret.key("patient", QUESTION)
    values = [sealed(secret, key) for _ in range(200)]
    assert len({one[:NONCE_BYTES] for one in values}) == len(values)
    assert secret.key("patient", QUESTION) == key != secret.key("encrypt", ())
    plain = msgspec.msgpack.encode(("patient", QUESTION))
    assert secret._digest(b"key", plain) != secret._digest(b"encrypt", plain)
