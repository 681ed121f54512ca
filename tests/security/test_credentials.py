"""Secrets that systemd hands to a service, and their modes."""

from pathlib import Path

import pytest

from connectors.runtime.secretfile import read_secret
from proto.exits import StartError
from proto.keys import KeyFileError, KeyPair

pytestmark = pytest.mark.fault("S6")


def test_the_mask_of_an_access_list_is_no_right_of_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a kernel with tmpfs for credentials (Debian 13) each has the mode 0440: the service was
    told that others may read its key, and did not start."""
    KeyPair.new().save(tmp_path, "smp")
    key = tmp_path / "smp.key"
    key.chmod(0o440)
    with pytest.raises(KeyFileError):
        KeyPair.load(key)
    with pytest.raises(StartError):
        read_secret(key)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_secret(key) == KeyPair.load(key).secret
    for mode in (0o444, 0o460, 0o441):
        key.chmod(mode)
        with pytest.raises(KeyFileError):
            KeyPair.load(key)
    beside = tmp_path / "beside"
    beside.mkdir()
    KeyPair.new().save(beside, "smp")
    (beside / "smp.key").chmod(0o440)
    with pytest.raises(KeyFileError):
        KeyPair.load(beside / "smp.key")
