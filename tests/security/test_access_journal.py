"""Who looked at whose data: every access is a line that cannot be changed or taken away unseen."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.runtime.access import Unrecorded
from connectors.runtime.accesses import WrittenAccesses
from proto import accesses, accesswriter
from proto.accesses import AccessFiles, accesses_of, files_of, head_of, read
from router.commands import main
from tests.integration.bus import SMPBUS, RouterProcess

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def router() -> Iterator[RouterProcess]:
    with RouterProcess() as running:
        yield running


def fill(
    folder: Path, count: int, *, file_bytes: int = MIB, name: str = "smp", who: str = "smp/doctor7"
) -> AccessFiles:
    files = AccessFiles(folder, name, 366, file_bytes)
    for number in range(count):
        files.append(accesses_of("patient.summary.v1", who, "вызов", [f"call-{number}"]))
    files.close()
    return files


def faults(folder: Path, name: str = "smp") -> list[str]:
    return [line.fault for line in read(folder, name) if line.fault]


def verify(folder: Path, *more: str) -> int:
    return main(["access", "verify", "--folder", str(folder), *more])


class TestSeals:
    def test_the_chain_goes_over_files_and_starts(self, tmp_path: Path) -> None:
        fill(tmp_path, 20, file_bytes=1000)
        fill(tmp_path, 5)
        assert len(files_of(tmp_path, "smp")) > 4
        lines = list(read(tmp_path, "smp"))
        assert [line.access.n for line in lines] == list(range(1, len(lines) + 1))
        assert faults(tmp_path) == []
        assert verify(tmp_path) == 0
        modes = {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
        assert modes == {0o600}

    @pytest.mark.fault("S10")
    def test_a_changed_line_is_found(self, tmp_path: Path) -> None:
        """Nothing recorded who asked for whose data; what is recorded cannot be changed unseen."""
        fill(tmp_path, 5)
        file = files_of(tmp_path, "smp")[0]
        file.write_bytes(file.read_bytes().replace(b"call-2", b"call-9"))
        assert faults(tmp_path) == ["changed"]
        assert verify(tmp_path) == 65

    def test_a_line_taken_out_is_found(self, tmp_path: Path) -> None:
        fill(tmp_path, 5)
        file = files_of(tmp_path, "smp")[0]
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(lines[:2] + lines[3:]))
        assert faults(tmp_path) == ["missing"]
        assert verify(tmp_path) == 65

    def test_a_file_taken_out_is_found(self, tmp_path: Path) -> None:
        fill(tmp_path, 20, file_bytes=1000)
        files_of(tmp_path, "smp")[2].unlink()
        assert faults(tmp_path) == ["missing"]

    def test_an_end_that_is_cut_off_is_found(self, tmp_path: Path) -> None:
        fill(tmp_path, 5)
        file = files_of(tmp_path, "smp")[0]
        whole = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(whole[:-2]))
        assert faults(tmp_path) == []  # the chain alone cannot show it
        assert verify(tmp_path) == 65
        files = fill(tmp_path, 1)  # and whoever goes on says so, for ever
        assert files.was_cut
        assert faults(tmp_path) == ["cut"]
        assert verify(tmp_path) == 65

    def test_the_seal_in_the_log_shows_what_was_written_anew(self, tmp_path: Path) -> None:
        before, after = tmp_path / "before", tmp_path / "after"
        head = fill(before, 5).head
        # All of it, the head too, by somebody with every right on these files.
        fill(after, 8, who="smp/doctor8")
        assert verify(after) == 0
        seal = f"smp:{head.n}:{head.seal[:32]}"
        assert verify(before, "--seal", seal) == 0
        assert verify(after, "--seal", seal) == 65
        assert verify(after, "--seal", f"smp:99:{head.seal[:32]}") == 65

    def test_half_a_line_of_a_lost_machine_is_no_fault(self, tmp_path: Path) -> None:
        fill(tmp_path, 3)
        with files_of(tmp_path, "smp")[0].open("ab") as file:
            file.write(b'{"what":"patient.summa')
        assert verify(tmp_path) == 0
        fill(tmp_path, 3)
        assert faults(tmp_path) == []
        assert head_of(tmp_path, "smp").n == 7  # three, three, and that the file was begun

    def test_a_second_process_of_the_name_has_a_journal_of_its_own(self, tmp_path: Path) -> None:
        with AccessFiles(tmp_path, "smp", 366, MIB) as first:
            first.append(accesses_of("a", "b", "", ()))
            with AccessFiles(tmp_path, "smp", 366, MIB) as second:
                second.append(accesses_of("a", "b", "", ()))
        assert accesses.names_in(tmp_path) == ["smp", "smp-2"]
        assert verify(tmp_path) == 0

    def test_old_files_go_and_the_rest_stays_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = time.time()
        monkeypatch.setattr(accesses, "now_ms", lambda: int((now - 400 * 86400) * 1000))
        fill(tmp_path, 3)
        monkeypatch.undo()
        fill(tmp_path, 3)
        assert len(files_of(tmp_path, "smp")) == 1
        assert verify(tmp_path) == 0


class TestWriter:
    @pytest.mark.fault("S10")
    def test_a_full_disk_stops_nobody_and_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A journal of accesses that cannot be written must not shut a doctor out: it is kept in
        memory, told once, and written later; beyond a bound the access is refused."""

        async def scene() -> None:
            kept = WrittenAccesses(tmp_path / "a", "smp", 366, MIB)
            await kept.note("patient.summary.v1", "smp/doctor7", "call", ["c-1"])
            sync = os.fdatasync

            def full(_: int) -> None:
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(os, "fdatasync", full)
            monkeypatch.setattr(accesswriter, "HELD_MAX", 3)
            for number in range(2, 5):
                await kept.note("patient.summary.v1", "smp/doctor7", "call", [f"c-{number}"])
            with pytest.raises(Unrecorded):
                await kept.note("patient.summary.v1", "smp/doctor7", "call", ["c-5"])
            assert "No space left" in kept.alarm.reason
            monkeypatch.setattr(os, "fdatasync", sync)
            await kept.note("patient.summary.v1", "smp/doctor7", "call", ["c-6"])
            assert kept.alarm.reason == ""
            await kept.close()

        asyncio.run(scene())
        assert faults(tmp_path / "a") == []
        told = [line.access.ids[0] for line in read(tmp_path / "a", "smp") if line.access.why]
        assert list(dict.fromkeys(told)) == ["c-1", "c-2", "c-3", "c-4", "c-6"]
        assert sum("No space left" in record.message for record in caplog.records) == 1

    def test_many_at_once_are_in_order_and_few_syncs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        syncs: list[int] = []
        sync = os.fdatasync

        def noted(fd: int) -> None:
            syncs.append(fd)
            sync(fd)

        monkeypatch.setattr(os, "fdatasync", noted)

        async def scene() -> None:
            kept = WrittenAccesses(tmp_path, "smp", 366, MIB)
            notes = [kept.note("x", "smp/a", "", [str(number)]) for number in range(2000)]
            await asyncio.gather(*notes)
            await kept.close()

        asyncio.run(scene())
        ids = [line.access.ids[0] for line in read(tmp_path, "smp") if line.access.what == "x"]
        assert ids == [str(number) for number in range(2000)]
        assert len(syncs) < 200


class TestRouter:
    @pytest.mark.fault("S10")
    def test_what_an_operator_was_shown_and_changed_is_written_by_the_router(
        self, router: RouterProcess
    ) -> None:
        """`trace`, `dead` and the changes left no line of who ran them; whoever asks the socket
        himself, without our commands, is written down as well, by what the kernel says of him."""
        router.ask("trace", subject="112-4711")
        router.ask("dead")
        router.ask("hold", destination="sink", reason="обслуживание", operator="somebody else")
        router.ask("release", destination="sink")
        command = [SMPBUS, "access", "list", "--json", "--config", str(router.config)]
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        rows = json.loads(listed.stdout)
        mine = [(one["what"], one["ids"], one["why"]) for one in rows]
        assert mine[-4:] == [
            ("ops.trace", ["112-4711"], ""),
            ("ops.dead", [], ""),
            ("ops.hold", ["sink"], "обслуживание"),
            ("ops.release", ["sink"], ""),
        ]
        assert {one["who"].split("/")[1] for one in rows} == {str(os.getuid())}
        assert router.ask("status")["accesses"]["reason"] == ""

    def test_the_list_is_for_people_and_pipes(self, router: RouterProcess) -> None:
        router.ask("trace", subject="112-4712")
        command = [SMPBUS, "access", "list", "--id", "112-4712", "--config", str(router.config)]
        environment = os.environ | {"COLUMNS": "80"}
        listed = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=30, env=environment
        )
        assert max(map(len, listed.stdout.splitlines())) <= 80
        assert "ops.trace" in listed.stdout
        assert "112-4712" in listed.stdout
        assert main(["access", "list", "--id", "nobody", "--config", str(router.config)]) == 1
        assert main(["access", "verify", "--config", str(router.config)]) == 0

    def test_a_reload_of_the_whole_router_goes_on_with_the_chain(
        self, router: RouterProcess
    ) -> None:
        router.ask("trace", subject="before")
        router.stop()
        assert "печать" in router.log.read_text()
        router.start()
        router.ask("trace", subject="after")
        folder = router.folder / "data" / "access"
        ids = [line.access.ids for line in read(folder, "router")]
        assert ids[-2:] == [("before",), ("after",)]
        assert verify(folder) == 0
