"""The demo as a user runs it: real processes, a folder of its own, and nothing left behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.simulators.demo.folder import PARTNERS, DemoFolder, open_folder
from connectors.simulators.demo.supervision import SMPBUS, Supervisor, render
from proto.catalogue import entry
from proto.exits import StartError
from proto.keys import KeyPair
from tests.until import wait_for

CARDS = "4"
PATIENCE_S = 60.0
COMPLETE = r"Путь полон: карточка 112-\S+ → вызов \d+-\d+"
PROGRAMS = ("router", *PARTNERS, *(f"sim-{name}" for name in PARTNERS))


def start(data: Path, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """Start `smpbus demo` from another working directory."""
    environment = {name: value for name, value in os.environ.items() if "SMPBUS" not in name}
    return subprocess.Popen(
        [SMPBUS, "demo", "--data", str(data), "--cards", CARDS, *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        umask=0,  # as a shell may have it: what the demo writes is its owner's all the same
    )


def open_to_others(folder: Path) -> set[str]:
    """Return what others may read or write there."""
    found = [one for one in folder.rglob("*") if not one.is_symlink()]
    assert len(found) > 50
    return {str(one.relative_to(folder)) for one in found if one.stat().st_mode & 0o077}


def finish(demo: subprocess.Popen[str]) -> str:
    """Wait for the end and return all that was shown."""
    try:
        shown, _ = demo.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        demo.terminate()
        shown, _ = demo.communicate()
        pytest.fail(f"the demo did not end:\n{shown}")
    return shown


def read_until(demo: subprocess.Popen[str], words: str) -> str:
    """Read lines up to the one that holds `words`."""
    assert demo.stdout is not None
    lines = []
    for line in demo.stdout:
        lines.append(line)
        if words in line:
            return "".join(lines)
    pytest.fail(f"the demo ended before {words!r}:\n{''.join(lines)}")


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of living processes that name this folder."""
    found = []
    for one in Path("/proc").iterdir():
        try:
            line = (one / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if one.name.isdigit() and str(folder) in line:
            found.append(line)
    return found


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """Where a demo may live; whatever it leaves running fails the test."""
    path = tmp_path / "demo"
    yield path
    assert processes_of(path) == []


class TestDemo:
    @pytest.mark.fault("S14")
    def test_a_day_twice_in_one_folder(self, data: Path, tmp_path: Path) -> None:
        first = start(data, "--once", cwd=tmp_path)
        shown = finish(first)
        assert first.returncode == 0, shown
        assert re.search(COMPLETE, shown), shown
        assert "отказ 1" in shown, "the malformed card must be seen to be refused"
        assert "$ smpbus trace 112-" in shown
        assert "оплачено" in shown
        assert "register.state.v1" in shown, "the fund's word is on the trace"
        assert "→ smp: доставлено: HTTP 201, created" in shown
        assert "→ sys112: доставлено: HTTP 200" in shown
        assert {f"{name}.log" for name in PROGRAMS} <= {
            path.name for path in (data / "logs").iterdir()
        }
        keys = (data / "keys" / "router.key").read_bytes()
        public = {f"keys/{name}.pub" for name in ("router", "admin", *PARTNERS)}
        assert open_to_others(data) == public

        second = start(data, "--resume", cwd=Path("/"))
        shown = read_until(second, "Ctrl-C")
        second.send_signal(signal.SIGHUP)
        finish(second)
        assert second.returncode == 0, shown
        assert re.search(COMPLETE, shown), shown
        assert (data / "keys" / "router.key").read_bytes() == keys

    def test_a_signal_while_it_starts_ends_everything_in_order(
        self, data: Path, tmp_path: Path
    ) -> None:
        demo = start(data, cwd=tmp_path)
        read_until(demo, "имитатор ИС СМП отвечает")
        assert len(processes_of(data)) == 1 + 1 + len(PROGRAMS)  # the demo, supervisord, programs

        demo.send_signal(signal.SIGTERM)

        shown = finish(demo)
        assert demo.returncode == 0, shown
        assert "Остановлено, процессов не осталось" in shown
        assert "сняты принудительно" not in shown

    def test_it_stays_until_told_and_shows_how_to_look_inside(
        self, data: Path, tmp_path: Path
    ) -> None:
        demo = start(data, cwd=tmp_path)
        shown = read_until(demo, "Ctrl-C")
        settings = re.search(r"status --config (\S+)", shown)
        assert settings is not None, shown
        asked = subprocess.run(
            [SMPBUS, "status", "--config", settings[1]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert asked.returncode == 0, asked.stderr

        refused = start(data, "--once", cwd=tmp_path)
        assert "уже идёт демонстрация" in finish(refused)
        assert refused.returncode == 75

        demo.send_signal(signal.SIGINT)
        assert "Остановлено, процессов не осталось" in finish(demo)
        assert demo.returncode == 0

    def test_what_a_killed_demo_left_is_stopped_by_the_next(
        self, data: Path, tmp_path: Path
    ) -> None:
        killed = start(data, cwd=tmp_path)
        read_until(killed, "имитатор ИС СМП отвечает")
        killed.kill()
        killed.communicate()
        assert len(processes_of(data)) == 1 + len(PROGRAMS)

        following = start(data, "--once", "--lang", "en", cwd=tmp_path)
        shown = finish(following)
        assert following.returncode == 0, shown
        assert "stopped an earlier demo" in shown
        assert "The way is complete: card 112-" in shown
        assert not re.search(r"[а-яё]", shown), shown

    def test_a_dead_program_is_named(self, data: Path, tmp_path: Path) -> None:
        folder = open_folder(data)
        folder.prepare()
        (data / "keys" / "router.key").write_text("not a key\n")
        folder.close()
        ended = subprocess.run(
            [SMPBUS, "demo", "--once", "--resume", "--wait", "10", "--data", str(data)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 69, ended.stdout
        assert ended.stderr.startswith("ОШИБКА: маршрутизатор: нет ответа")
        assert "router.key" in ended.stderr


class TestFolder:
    def test_a_foreign_folder_is_never_touched(self, data: Path, tmp_path: Path) -> None:
        data.mkdir()
        (data / "thesis.txt").write_text("years of work")
        demo = start(data, "--once", cwd=tmp_path)
        shown = finish(demo)
        assert demo.returncode == 73
        assert shown.startswith("ОШИБКА: ")
        assert [path.name for path in data.iterdir()] == ["thesis.txt"]

    def test_emptying_follows_no_link_out(self, data: Path, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "kept").touch()
        folder = open_folder(data)
        (data / "link").symlink_to(outside)
        folder.empty()
        folder.close()
        assert (outside / "kept").exists()
        assert not (data / "link").exists()

    def test_ports_are_remembered_unless_taken(self, data: Path) -> None:
        folder = prepared(data)
        before = dict(folder.memory.ports)
        folder.close()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", before["smp"]))
            taken.listen()
            folder = prepared(data)
            after = dict(folder.memory.ports)
            folder.close()
        assert after.pop("smp") != before.pop("smp")
        assert after == before

    def test_a_long_path_has_its_sockets_elsewhere(self, tmp_path: Path) -> None:
        folder = prepared(tmp_path / ("a" * 100))
        run = folder.run
        assert run.parent == Path("/tmp")
        assert len(f"{run}/events.sock") < 107
        folder.close()
        assert not run.exists()

    def test_an_open_socket_folder_of_another_is_refused(self, tmp_path: Path) -> None:
        folder = open_folder(tmp_path / ("b" * 100))
        folder.run.mkdir(mode=0o777)
        folder.run.chmod(0o777)
        with pytest.raises(StartError, match=re.escape(str(folder.run))):
            folder.prepare()
        folder.close()

    def test_secrets_are_for_their_owner(self, data: Path) -> None:
        folder = prepared(data)
        modes = {path.stat().st_mode & 0o777 for path in (data / "keys").glob("*.key")}
        folder.close()
        assert modes == {0o600}
        assert data.stat().st_mode & 0o077 == 0


def prepared(path: Path) -> DemoFolder:
    """Open and prepare a folder."""
    folder = open_folder(path)
    folder.prepare()
    return folder


class TestReadme:
    def test_the_system_of_the_readme_connects(self, data: Path) -> None:
        readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
        (toml,) = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
        (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
        code = code.replace("smpbus_client", "proto")  # the same modules; the wheel has a test
        folder = prepared(data)
        permissions, routes = toml.split("# routes.toml")
        for name, added in (("permissions.toml", permissions), ("routes.toml", routes)):
            with (folder.config / name).open("a", encoding="utf-8") as file:
                file.write(added)
        KeyPair.new().save(data / "keys", "sitcentre")
        code = code.replace("/etc/smpbus", str(data)).replace("/run/smpbus", str(folder.run))
        assert len(re.findall(r"^.+$", code, re.MULTILINE)) <= 12

        supervisor = Supervisor(folder, render(folder, {}))
        client = subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE)
        try:
            line = _first_line(client, folder)
        finally:
            client.terminate()
            client.communicate()
            supervisor.stop()
            folder.close()
        assert line.startswith("112-4711 {")


def _first_line(client: subprocess.Popen[str], folder: DemoFolder) -> str:
    """Send one status as the ambulance's connector would and return what the client printed."""
    sample = {
        "type": "call.status.v1",
        "subject": "112-4711",
        "body": entry("call.status.v1").example,
    }

    def is_sent() -> bool:
        sent = subprocess.run(
            [SMPBUS, "send", "-", "--name", "smp", "--config", str(folder.settings)],
            input=json.dumps(sample),
            text=True,
            stdout=subprocess.DEVNULL,
            check=False,
        )
        return sent.returncode == 0

    wait_for(is_sent, "the status to be accepted", PATIENCE_S)
    assert client.stdout is not None
    return client.stdout.readline()
