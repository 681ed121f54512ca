"""docs/new-client.md, followed to the letter, and the programs in the clients' examples folders."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.integration.bus import LOOK_S, SMPBUS, RouterProcess
from tests.integration.scenes import MISSING

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "new-client.md"
CLIENTS = ROOT / "proto" / "clients"
RUN = {
    "py": [sys.executable, "-u"],
    "php": [shutil.which("php") or ""],
    "mjs": [shutil.which("node") or ""],
}
PATIENCE_S = 20


class Reader:
    """Somebody who does what the page says, at a bus that is at work."""

    def __init__(self, router: RouterProcess) -> None:
        self.router = router
        self.folder = router.folder
        # What installing the packages would lay there.
        (self.folder / "smpbus_client").symlink_to(ROOT / "proto")
        (self.folder / "node_modules").mkdir()
        (self.folder / "node_modules" / "smpbus-client").symlink_to(CLIENTS / "node")
        path = f"{Path(SMPBUS).parent}:{os.environ['PATH']}"
        self._environment = os.environ | {
            "PATH": path, "SMPBUS_CONFIG": str(router.config), "PYTHONPATH": str(self.folder),
        }  # fmt: skip
        page = PAGE.read_text(encoding="utf-8")
        for written, here in {
            "tcp://127.0.0.1:7100": router.tcp(),
            "/etc/smpbus/keys": str(router.keys),
            "/opt/smpbus": str(ROOT),
        }.items():
            assert written in page
            page = page.replace(written, here)
        for language, purpose, text in re.findall(r"(?ms)^```(\w+) ?(\S*)\n(.*?)^```$", page):
            what, _, name = purpose.partition("=")
            if what == "append":
                with (self.folder / name).open("a", encoding="utf-8") as file:
                    file.write("\n" + text)
            elif what == "file":
                (self.folder / name).write_text(text, encoding="utf-8")
            else:
                assert language == "sh", purpose
                for line in text.splitlines():
                    self.say(["bash", "-c", line])

    def say(self, command: list[str]) -> str:
        """Run to the end; return what it said."""
        ended = subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True,
            timeout=PATIENCE_S,
        )  # fmt: skip
        assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def run(self, what: str, kind: str) -> str:
        """Run one of the page's programs to its end; return what it said."""
        return self.say([*RUN[kind], f"{what}.{kind}"])

    @contextmanager
    def running(self, command: list[str]) -> Iterator["Running"]:
        """Have a program running that ends when it is told to."""
        said = self.folder / "said"
        with said.open("w") as out:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self._environment, stdout=out, stderr=out
            )
        try:
            yield Running(process, said)
        finally:
            process.kill()
            process.wait(PATIENCE_S)


class Running(NamedTuple):
    """A program at work, and the file of what it says."""

    process: "subprocess.Popen[bytes]"
    said: Path

    def wait_for(self, words: str) -> None:
        """Wait until it has said this."""
        deadline = time.monotonic() + PATIENCE_S
        while words not in self.said.read_text(encoding="utf-8"):
            assert self.process.poll() is None, self.said.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, self.said.read_text(encoding="utf-8")
            time.sleep(LOOK_S)


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    for kind, command in RUN.items():
        assert command[0], f"what runs .{kind} {MISSING}"
    with RouterProcess(peers=(), routes="", permissions="") as router:
        yield Reader(router)


@pytest.mark.parametrize("kind", RUN)
def test_each_language_publishes_consumes_and_asks(reader: Reader, kind: str) -> None:
    assert reader.run("publish", kind) == "accepted sitcentre.note.v1\n"
    with reader.running([*RUN[kind], f"consume.{kind}"]) as consumer:
        language = {"py": "Python", "php": "PHP", "mjs": "Node"}[kind]
        consumer.wait_for(f"taken от {language}\n")
        answers = {reader.run("ask", other).replace(" ", "") for other in RUN}
        assert answers == {'answer{"taken":1}\n'}
    reader.router.wait_until("status", lambda s: not s["open"])


EXAMPLES = {
    "php": CLIENTS / "php" / "examples" / "consumer.php",
    "mjs": CLIENTS / "node" / "examples" / "consumer.js",
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_an_example_prints_and_leaves_when_it_is_told_to(reader: Reader, kind: str) -> None:
    command = [*RUN[kind], str(EXAMPLES[kind]), reader.router.tcp(), "sitcentre"]
    with reader.running([*command, str(reader.router.keys)]) as consumer:
        reader.run("publish", "py")
        consumer.wait_for(' 112-1 {"text":"от Python"}\n')
        assert "1" in reader.run("ask", "py")
        consumer.process.send_signal(signal.SIGTERM)
        assert consumer.process.wait(PATIENCE_S) == 0
    reader.router.wait_until("status", lambda s: not s["open"] and not s["sessions"])
