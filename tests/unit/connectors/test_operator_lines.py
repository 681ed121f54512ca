"""What the administrator reads of an outage, and what systemd hears."""

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.runtime.log import LOG
from connectors.runtime.partner.outage import Outage
from proto.logs import LineFormatter
from proto.notify import notify
from proto.wording import set_language


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    handler = Lines()
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    handler.setFormatter(LineFormatter())
    monkeypatch.setattr(LOG, "handlers", [handler])
    monkeypatch.setattr(LOG, "propagate", False)
    LOG.setLevel(logging.DEBUG)
    set_language("ru")
    yield handler
    LOG.setLevel(logging.NOTSET)


def test_an_outage_is_one_line_at_its_start_and_one_with_the_count_at_its_end(
    lines: Lines,
) -> None:
    outage = Outage("Система-112", "10.1.1.1:80")
    outage.recovered(0.0)
    for moment in range(5):
        outage.failed(float(moment))
    outage.recovered(9.0)
    outage.recovered(10.0)
    assert len(lines.lines) == 2
    assert lines.lines[0].startswith(
        "ОШИБКА: Unable to complete network request to host «10.1.1.1:80». "
        "Failed to establish a connection. "
    )
    assert "Система-112" in lines.lines[0]
    assert "5" in lines.lines[1]
    assert "9.0" in lines.lines[1]
    outage.failed(11.0, "HTTP 503")
    assert "HTTP 503" in lines.lines[2]


def test_who_was_asked_before_the_end_of_an_outage_begins_no_other_one(lines: Lines) -> None:
    outage = Outage("Система-112", "10.1.1.1:80")
    outage.failed(1.0, asked_at=0.0)
    outage.recovered(5.0)
    outage.failed(6.0, asked_at=4.0)  # it has waited for its answer all the time
    assert outage.count == 0
    outage.failed(8.0, asked_at=7.0)
    outage.failed(8.5, asked_at=4.0)
    outage.recovered(9.0)
    assert len(lines.lines) == 4
    assert "2" in lines.lines[3]


def test_notify_sends_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        assert notify("READY=1")
        assert channel.recv(100) == b"READY=1"
    path.unlink()
    assert not notify("READY=1")


def test_notify_without_systemd_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")


def test_notify_speaks_to_the_abstract_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"smpbus-test-{id(monkeypatch)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert notify("STOPPING=1")
        assert channel.recv(100) == b"STOPPING=1"
