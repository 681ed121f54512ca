"""Names and keys, over real CURVE sockets: who is let in, as whom, and for how long."""

import asyncio
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from proto import BusClient, BusError, KeyPair, Refused, frames
from proto.errors import NotConnected
from proto.exits import StartError
from proto.frames import PEER_READS
from router.shell.keyring import ZAP_DOMAIN
from router.shell.socket import open_router, self_test
from tests.integration.bus import SMPBUS, RouterProcess

PERMISSIONS = (
    '[peers.producer]\npublish = ["test.*"]\n'
    '[peers.consumer]\nconsume = ["sink"]\n[peers.spare]\nconsume = ["sink"]\n'
)


@pytest.fixture(scope="module")
def router() -> Iterator[RouterProcess]:
    peers = ("producer", "consumer", "spare", "nobody")
    with RouterProcess(peers=peers, permissions=PERMISSIONS) as running:
        yield running


class Raw:
    """A DEALER without our client: says what it likes, as whom it likes."""

    def __init__(self, address: str, key: KeyPair | None = None, server: bytes = b"") -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket: zmq.Socket[bytes] = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        if key is not None:
            self.socket.curve_publickey = key.public
            self.socket.curve_secretkey = key.secret
            self.socket.curve_serverkey = server
        self.monitor = self.socket.get_monitor_socket()
        self.address = address

    def __enter__(self) -> "Raw":
        self.socket.connect(self.address)
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(0)
        self.context.term()

    def greet(self, name: str) -> Any:
        """Say HELLO; return the answer's payload, or None when none comes within a second."""
        self.socket.send_multipart([frames.HELLO, frames.encode(frames.Hello([1], name))])
        if not self.socket.poll(1000):
            return None
        return frames.read(self.socket.recv_multipart(), PEER_READS)


def sessions(router: RouterProcess) -> list[str]:
    return [row["name"] for row in router.ask("sessions")["sessions"]]


def server_key(router: RouterProcess) -> bytes:
    return (router.keys / "router.pub").read_bytes().strip()


class TestWhoIsLetIn:
    def test_a_known_key_is(self, router: RouterProcess) -> None:
        key = KeyPair.load(router.keys / "producer.key")
        with Raw(router.address, key, server_key(router)) as raw:
            assert isinstance(raw.greet("producer"), frames.Welcome)

    def test_an_unknown_key_is_not(self, router: RouterProcess) -> None:
        before = sessions(router)
        with Raw(router.address, KeyPair.new(), server_key(router)) as raw:
            assert raw.greet("producer") is None
        assert sessions(router) == before

    def test_the_client_says_so_at_once(self, router: RouterProcess) -> None:
        async def connect() -> None:
            async with router.client("producer", key=KeyPair.new()):
                pass

        with pytest.raises(BusError, match="does not know this key"):
            asyncio.run(connect())

    def test_a_client_without_curve_is_not(self, router: RouterProcess) -> None:
        with Raw(router.address) as raw:
            assert raw.greet("producer") is None

    def test_nor_one_with_a_password(self, router: RouterProcess) -> None:
        raw = Raw(router.address)
        raw.socket.plain_username = b"producer"
        raw.socket.plain_password = b"password"
        with raw:
            assert raw.greet("producer") is None

    def test_nor_one_that_takes_another_router_for_ours(self, router: RouterProcess) -> None:
        key = KeyPair.load(router.keys / "producer.key")
        with Raw(router.address, key, KeyPair.new().public) as raw:
            assert raw.greet("producer") is None

    def test_over_tcp_the_same_holds(self, router: RouterProcess) -> None:
        key = KeyPair.load(router.keys / "producer.key")
        with Raw(router.tcp(), key, server_key(router)) as raw:
            assert isinstance(raw.greet("producer"), frames.Welcome)
        with Raw(router.tcp(), KeyPair.new(), server_key(router)) as raw:
            assert raw.greet("producer") is None


class TestAsWhom:
    def test_a_name_cannot_be_borrowed(self, router: RouterProcess) -> None:
        key = KeyPair.load(router.keys / "consumer.key")
        with Raw(router.address, key, server_key(router)) as raw:
            answer = raw.greet("producer")
        assert answer.code == "name_mismatch"

    def test_a_name_without_permissions_is_turned_away(self, router: RouterProcess) -> None:
        key = KeyPair.load(router.keys / "nobody.key")
        with Raw(router.address, key, server_key(router)) as raw:
            answer = raw.greet("nobody")
        assert answer.code == "unknown_name"

    def test_the_routers_own_key_is_no_peer(self, router: RouterProcess) -> None:
        key = KeyPair.load(router.keys / "router.key")
        with Raw(router.address, key, server_key(router)) as raw:
            answer = raw.greet("router")
        assert answer is None or answer.code == "unknown_name"

    def test_nobody_publishes_in_anothers_name(self, router: RouterProcess) -> None:
        with router.blocking("producer") as bus:
            message = bus.message("test.message.v1", b"x")
            forged = type(message)(message.id, message.type, "consumer", "", message.time)
            with pytest.raises(Refused, match="source_mismatch"):
                bus.publish(forged)


class TestForHowLong:
    def test_a_revoked_key_ends_its_open_session_and_frees_what_it_held(self) -> None:
        with RouterProcess(peers=("producer", "consumer", "spare"), permissions=PERMISSIONS) as own:
            asyncio.run(self.revoke(own))

    async def revoke(self, router: RouterProcess) -> None:
        async with router.client("consumer") as consumer:
            deliveries = consumer.consume("sink")
            async with router.client("producer") as producer:
                await producer.publish(producer.message("test.message.v1", b"x", subject="call"))
            first = await anext(deliveries)
            revoked = await asyncio.to_thread(self.smpbus, router, "keys", "revoke", "consumer")
            assert revoked.returncode == 0, revoked.stderr
            with pytest.raises(BusError, match="revoked"):
                await asyncio.wait_for(anext(deliveries), 5)
        async with router.client("spare") as spare:
            again = await asyncio.wait_for(anext(spare.consume("sink")), 5)
            assert (again.id, again.attempt) == (first.id, 2)
            again.ack()
        made = await asyncio.to_thread(self.smpbus, router, "keys", "new", "consumer")
        assert made.returncode == 0, made.stderr
        await asyncio.to_thread(router.ask, "reload")
        async with router.client("consumer", connect_timeout_s=5):
            assert "consumer" in sessions(router)

    @staticmethod
    def smpbus(router: RouterProcess, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [SMPBUS, *arguments, "--config", str(router.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    def test_a_secret_key_is_its_owners_alone_and_never_replaced(self, tmp_path: Path) -> None:
        """Even under a umask that keeps nothing from anybody."""
        config = tmp_path / "smpbus.toml"
        config.write_text('[bus]\nkeys_dir = "keys"\nkey = "keys/router.key"\n')
        for name in ("routes", "permissions"):
            (tmp_path / f"{name}.toml").write_text("")
        command = [SMPBUS, "keys", "new", "fresh", "--config", str(config)]
        made = subprocess.run(command, capture_output=True, text=True, timeout=30, umask=0)
        assert made.returncode == 0, made.stderr
        secret = tmp_path / "keys" / "fresh.key"
        before = secret.read_text()
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert stat.S_IMODE(secret.parent.stat().st_mode) & 0o022 == 0
        assert before.strip() not in made.stdout + made.stderr
        again = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert again.returncode == 73
        with pytest.raises(FileExistsError):  # two at the same moment: one of them loses
            KeyPair.new().save(secret.parent, "fresh")
        assert secret.read_text() == before


class TestTheRouter:
    def test_tells_no_secret(self, router: RouterProcess) -> None:
        stranger = KeyPair.new()
        refused = Raw(router.address, stranger, server_key(router))
        password = Raw(router.address)
        password.socket.plain_username, password.socket.plain_password = b"producer", b"S3same"
        for raw in (refused, password):
            with raw:
                assert raw.greet("producer") is None
        secrets = [file.read_text().strip() for file in router.keys.glob("*.key")]
        log = router.log.read_text()
        command = Path(f"/proc/{router.pid}/cmdline").read_text()
        environment = Path(f"/proc/{router.pid}/environ").read_text()
        assert len(secrets) == 5
        for secret in (*secrets, stranger.secret.decode(), "S3same"):
            assert secret not in log
            assert secret not in command
            assert secret not in environment

    def test_guards_its_sockets_by_their_mode(self, router: RouterProcess) -> None:
        modes = {
            name: stat.S_IMODE(os.stat(router.folder / f"{name}.sock").st_mode)
            for name in ("bus", "ops", "events")
        }
        assert modes == {"bus": 0o660, "ops": 0o600, "events": 0o600}

    @pytest.mark.parametrize("door", ["no handler", "a handler that nods", "no curve"])
    def test_refuses_to_run_if_it_lets_a_stranger_in(self, tmp_path: Path, door: str) -> None:
        """CURVE without a ZAP handler admits every key: the self-test must notice."""
        context: zmq.Context[Any] = zmq.Context()
        pair = KeyPair.new()
        authenticator = None
        if door == "a handler that nods":
            authenticator = ThreadAuthenticator(context)
            authenticator.start()
            authenticator.configure_curve(domain=ZAP_DOMAIN, location=zmq.auth.CURVE_ALLOW_ANY)
        server = open_router(context, None if door == "no curve" else pair, 1024)
        if door == "no handler":  # as libzmq is when nobody asks for more
            server.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 0)
        address = f"ipc://{tmp_path}/open.sock"
        server.bind(address)
        try:
            with pytest.raises(StartError, match="NULL" if door == "no curve" else "CURVE"):
                self_test(context, address, pair.public)
        finally:
            if authenticator is not None:
                authenticator.stop()
            context.destroy(0)

    @pytest.mark.parametrize("address", ["tcp://0.0.0.0:*", "tcp://*:7100"])
    def test_does_not_listen_off_this_machine_without_curve(
        self, tmp_path: Path, address: str
    ) -> None:
        config = tmp_path / "smpbus.toml"
        config.write_text(
            f'[bus]\nlisten = ["{address}"]\ncurve = false\n[store]\nfolder = "data"\n'
            f'[ops]\nlisten = "ipc://{tmp_path}/ops.sock"\nevents = "ipc://{tmp_path}/e.sock"\n'
            'http = ""\n'
        )
        (tmp_path / "routes.toml").write_text("")
        (tmp_path / "permissions.toml").write_text("")
        ended = subprocess.run(
            [SMPBUS, "router", "--config", str(config)], capture_output=True, text=True, timeout=30
        )
        assert ended.returncode == 78
        assert len(ended.stderr.strip().splitlines()) == 1
        assert "smpbus.toml" in ended.stderr
        assert "curve" in ended.stderr


def test_a_client_that_cannot_reach_a_router_says_so(tmp_path: Path) -> None:
    async def connect() -> None:

        async with BusClient(f"ipc://{tmp_path}/none.sock", name="x", connect_timeout_s=0.5):
            pass

    with pytest.raises(NotConnected, match="no answer from the router"):
        asyncio.run(connect())
