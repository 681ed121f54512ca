"""Files of keys that are no good: each of them admits nobody, and stands in nobody's way."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from proto import BusError, KeyPair
from proto.keys import load_public_folder
from router.shell.keyring import Keyring
from tests.integration.bus import SMPBUS, RouterProcess

PERMISSIONS = (
    '[peers.producer]\npublish = ["test.*"]\n'
    '[peers.consumer]\nconsume = ["sink"]\n[peers.spare]\nconsume = ["sink"]\n'
)
PEERS = ("producer", "consumer", "spare")


def smpbus(config: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [SMPBUS, *arguments, "--config", str(config), "--lang", "en"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


async def revoke(router: RouterProcess, name: str) -> str:
    """Revoke the key of somebody who is connected; return what the command says."""
    async with router.client(name) as client:
        deliveries = client.consume("sink")
        await client.wait_welcomed()
        done = await asyncio.to_thread(smpbus, router.config, "keys", "revoke", name)
        assert done.returncode == 0, done.stderr
        with pytest.raises(BusError, match="revoked"):
            await asyncio.wait_for(anext(deliveries), 10)
    return done.stderr


@pytest.mark.fault("S7")
def test_a_broken_key_file_keeps_no_revocation_out() -> None:
    """With one unreadable .pub in the folder the router kept its whole old list for ever, while
    `keys revoke` said that the key was revoked; the broken file is told once, and by `status`."""
    with RouterProcess(peers=PEERS, permissions=PERMISSIONS) as router:
        (router.keys / "notes.pub").write_text("to do: ask for the key\n", encoding="ascii")
        (router.keys / "folder.pub").mkdir()
        assert "no session of consumer" in asyncio.run(revoke(router, "consumer"))
        status = router.ask("status")
        assert sorted(status["keys"]["refused"]) == ["folder.pub", "notes.pub"]
        assert status["keys"]["admitted"] == ["producer", "router", "spare"]
        shown = smpbus(router.config, "status").stdout
        assert "notes.pub" in shown
        assert "folder.pub" in shown
        # And a router that starts with such files starts, and admits the others.
        router.stop()
        assert router.log.read_text(encoding="utf-8").count("notes.pub") == 1
        router.start()
        assert "no session of spare" in asyncio.run(revoke(router, "spare"))


@pytest.mark.fault("S7")
def test_one_key_is_one_name() -> None:
    """A copy of a key file under another name made its owner somebody else; who is known by the key
    stays, the copy admits nobody, and a revocation names it."""
    with RouterProcess(peers=PEERS, permissions=PERMISSIONS) as router:
        shutil.copy(router.keys / "consumer.pub", router.keys / "aaa.pub")
        router.ask("reload")
        status = router.ask("status")
        assert "consumer" in status["keys"]["admitted"]
        assert list(status["keys"]["refused"]) == ["aaa.pub"]
        assert "aaa.pub" in asyncio.run(revoke(router, "consumer"))
        both = load_public_folder(router.keys)
        assert list(both.refused) == []
        shutil.copy(router.keys / "spare.pub", router.keys / "zzz.pub")
        fresh = Keyring(router.keys)  # as one that starts: nobody is known yet
        assert sorted(fresh.refused) == ["spare.pub", "zzz.pub"]
        assert sorted(fresh.names.values()) == ["aaa", "producer", "router"]


@pytest.mark.fault("S7")
def test_a_revocation_that_does_not_reach_the_router_is_no_success() -> None:
    """The command said "revoked" whatever the router made of it, of another folder too."""
    with RouterProcess(peers=PEERS, permissions=PERMISSIONS) as router:
        elsewhere = router.folder / "other"
        shutil.copytree(router.keys, elsewhere / "keys")
        for file in router.folder.glob("*.toml"):
            shutil.copy(file, elsewhere)
        done = smpbus(elsewhere / "smpbus.toml", "keys", "revoke", "consumer")
        assert done.returncode == 75, done.stderr
        assert "keys_dir" in done.stderr
        router.stop()
        asleep = smpbus(router.config, "keys", "revoke", "consumer")
        assert asleep.returncode == 0, asleep.stderr
        assert "was not asked" in asleep.stderr


@pytest.mark.fault("S7")
def test_a_folder_that_cannot_be_read_revokes_nobody(tmp_path: Path) -> None:
    """A folder of keys that was not there counted as an empty one, and ended every session."""
    folder = tmp_path / "keys"
    KeyPair.new().save(folder, "smp")
    ring = Keyring(folder)
    folder.rename(tmp_path / "moved")
    assert not ring.refresh(force=True)
    assert list(ring.names.values()) == ["smp"]
    (tmp_path / "moved").rename(folder)
    (folder / "smp.pub").unlink()
    assert ring.refresh()
    assert ring.names == {}
