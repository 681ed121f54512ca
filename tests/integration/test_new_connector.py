"""docs/new-connector.md, followed to the letter; only the ports are the ones that are free."""

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.integration.bus import SMPBUS, RouterProcess
from tests.ports import free_ports
from tests.until import wait_for

PAGE = Path(__file__).parents[2] / "docs" / "new-connector.md"
PORTS = ("7121", "8121")
PATIENCE_S = 30.0


class Block(NamedTuple):
    """One block of code of the page: its language, what is to be done with it, its text."""

    language: str
    purpose: str
    text: str


def blocks() -> list[Block]:
    page = PAGE.read_text(encoding="utf-8")
    for written, free in zip(PORTS, free_ports(len(PORTS)), strict=True):
        page = page.replace(written, str(free))
    found = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [Block(*one) for one in found]


class Reader:
    """Somebody who does what the page says, in the folder of a running bus."""

    def __init__(self, router: RouterProcess) -> None:
        self.folder = router.folder
        self.said = ""
        self._processes: list[subprocess.Popen[bytes]] = []
        path = f"{Path(SMPBUS).parent}:{os.environ['PATH']}"
        self._environment = os.environ | {
            "PATH": path, "SMPBUS_CONFIG": str(router.config), "SMPBUS_LANG": "en",
        }  # fmt: skip

    def follow(self, block: Block) -> None:
        name = block.purpose.partition("=")[2]
        match block.purpose.partition("=")[0], block.language:
            case "file", _:
                (self.folder / name).write_text(block.text, encoding="utf-8")
            case "append", _:
                with (self.folder / name).open("a", encoding="utf-8") as file:
                    file.write("\n" + block.text)
            case "background", _:
                for line in block.text.splitlines():
                    self._start(line)
            case "", "sh":
                for line in block.text.splitlines():
                    self._run(line)

    def _start(self, line: str) -> None:
        with (self.folder / "background.log").open("ab") as log:
            command = ["bash", "-c", f"exec env {line}"]
            self._processes.append(subprocess.Popen(
                command, cwd=self.folder, env=self._environment, stdout=log, stderr=log
            ))  # fmt: skip

    def _run(self, line: str) -> None:
        """Run one line; what is not up yet is given a moment."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            done = subprocess.run(
                ["bash", "-c", line], cwd=self.folder, env=self._environment, timeout=PATIENCE_S,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if not done.returncode:
                self.said += done.stdout
                return
            log = self.folder / "background.log"
            assert time.monotonic() < deadline, f"{line}\n{done.stderr}\n{log.read_text()}"
            time.sleep(0.2)

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            assert process.wait(PATIENCE_S) == 0


def test_a_connector_says_what_it_does_and_the_runtime_does_the_rest() -> None:
    (connector,) = (one.text for one in blocks() if one.purpose == "file=laboratory.py")
    assert len(connector.splitlines()) < 60
    assert not re.search(r"decod|figures|settle|\back\b|Retry\(|Starlette|Route|close", connector)


def test_the_page_builds_a_connector_that_works() -> None:
    with RouterProcess() as router:
        reader = Reader(router)
        try:
            for block in blocks():
                reader.follow(block)

            def hops() -> dict[str, Any]:
                messages = router.ask("trace", subject="order-17")["messages"]
                return {one["type"]: one["deliveries"][0] for one in messages}

            wait_for(lambda: hops().get("lab.order.v1", {}).get("state") == "settled", "the order")
            assert hops()["lab.order.v1"]["note"] == "HTTP 201"
            assert hops()["lab.result.v1"]["destination"] == "ward"
            assert "lab.order.v1" in reader.said
            assert "lab.result.v1" in reader.said
            agreed = (
                "what laboratory takes and may do is as routes.toml and permissions.toml have it"
            )
            assert agreed in reader.said
        finally:
            reader.close()
