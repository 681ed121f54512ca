"""The limit of requests a minute: never more in any 60 seconds, however many processes ask."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.runtime.partner.quota import STATE, Quota
from proto.exits import StartError

SEVERAL = """
import sys
from pathlib import Path
from connectors.runtime.partner.quota import Quota
quota = Quota(50, file=Path(sys.argv[1]))
print(*(quota.reserve(1000.0) for _ in range(25)))
"""


def most_in_a_minute(times: list[float]) -> int:
    times = sorted(times)
    return max(sum(1 for one in times if begin <= one < begin + 60) for begin in times)


@given(
    st.integers(2, 60),
    st.integers(1, 20),
    st.lists(st.floats(0, 40), min_size=1, max_size=200),
)
def test_no_minute_has_more_than_its_requests(
    per_minute: int, burst: int, pauses: list[float]
) -> None:
    quota = Quota(per_minute, burst)
    now, sent = 0.0, []
    for pause in pauses:
        now += pause
        sent.append(now + quota.reserve(now))
    assert most_in_a_minute(sent) <= per_minute


def test_the_limit_is_used_and_not_only_kept() -> None:
    quota = Quota(50)
    sent = [quota.reserve(100.0) for _ in range(200)]
    assert max(sent) <= 200 / 45 * 60
    assert sent == sorted(sent)


def test_processes_share_one_limit(tmp_path: Path) -> None:
    file = tmp_path / "nsi.quota"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SEVERAL, str(file)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    sent = [float(one) for process in processes for one in process.communicate()[0].split()]
    assert len(sent) == 100
    assert most_in_a_minute(sent) <= 50


def test_a_restart_gives_no_second_burst(tmp_path: Path) -> None:
    file = tmp_path / "nsi.quota"
    first = Quota(50, file=file)
    assert [first.reserve(10.0) for _ in range(5)] == [0.0] * 5
    first.close()
    second = Quota(50, file=file)
    assert second.reserve(10.0) > 1.0
    second.close()


@pytest.mark.parametrize(
    "kept",
    [
        b"rubbish",
        bytes(range(0, 256, 16)),
        STATE.pack(5.0, 1e9),
        STATE.pack(float("nan"), 5.0),
        b"",
    ],
)
def test_a_file_from_before_a_reboot_or_of_rubbish_harms_nothing(
    kept: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "nsi.quota"
    file.write_bytes(kept)
    quota = Quota(50, file=file)
    sent = [quota.reserve(10.0) for _ in range(60)]
    assert most_in_a_minute(sent) <= 50
    assert sent[0] <= 2.0
    quota.close()


def test_a_file_that_cannot_be_is_named() -> None:
    with pytest.raises(StartError, match="/nowhere/quota"):
        Quota(50, file=Path("/nowhere/quota"))
