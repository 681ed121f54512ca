"""The command line without a router: help, exit statuses, keys, schema, tables, drafts."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto import catalogue, wording
from proto.keys import KeyPair, load_public
from router.commands import COMMANDS, main
from router.commands.follower import is_wanted
from router.commands.option import Failure
from router.commands.sender import read_drafts
from router.commands.table import print_table, size, span
from router.commands.timeline import hops

OWN = Path(__file__).parents[2] / "config"
WORDS = [
    *COMMANDS, "config check", "config show", "config import-env", "keys new", "keys list",
    "keys revoke",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(wording, "_chosen", None)
    monkeypatch.setattr(click.Context, "formatter_class", click.HelpFormatter)
    monkeypatch.delenv("SMPBUS_LANG", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    shutil.copytree(OWN, tmp_path / "etc")
    (tmp_path / "etc/smpbus.toml").write_text(
        '[bus]\nkeys_dir = "../keys"\nlisten = ["ipc://b"]\n[ops]\nlisten = "ipc://o"\n'
        'events = "ipc://e"\n'
    )
    monkeypatch.setenv("SMPBUS_CONFIG", str(tmp_path / "etc/smpbus.toml"))


# -- help and failures ----------------------------------------------------------------------------


@pytest.mark.parametrize("word", WORDS)
def test_help_of_every_command(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert main([*word.split(), "--help"]) == 0
    page = capsys.readouterr().out
    assert "Примеры:" in page
    assert max(map(len, page.splitlines())) <= 80


def test_help_lists_every_command_and_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    assert [word for word in COMMANDS if f"\n  {word} " not in page] == []
    statuses = ("0", "1", "64", "65", "69", "73", "74", "75", "77", "78", "130")
    assert [status for status in statuses if f" {status} " not in page] == []
    assert max(map(len, page.splitlines())) <= 80


def test_help_in_english(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help", "--lang", "en"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("Usage: smpbus")
    assert "Examples:" in page


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["statsu"], "statsu"),
        (["status", "--jsno"], "--jsno"),
        (["trace"], "SUBJECT"),
        (["completion", "tcsh"], "tcsh"),
        (["status", "--lang", "de"], "de"),
        (["tail", "--count", "0"], "0"),
    ],
)
def test_wrong_command_line_is_64(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert main(arguments) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ОШИБКА: ")
    assert err.count("\n") == 1
    assert named in err


def test_no_arguments_shows_help_and_is_64(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 64
    assert "Применение: smpbus" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["status"], "ops.listen"),
        (["queues", "--json"], "ops.listen"),
        (["sessions"], "ops.listen"),
        (["trace", "112-1"], "ops.listen"),
        (["reload"], "ops.listen"),
        (["tail"], "ops.events"),
    ],
)
def test_missing_router_is_69(
    capsys: pytest.CaptureFixture[str], arguments: list[str], key: str
) -> None:
    assert main(arguments) == 69
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ОШИБКА: маршрутизатор не отвечает")
    assert f"smpbus.toml, {key}" in err
    assert err.count("\n") == 1


def test_send_without_router_is_69(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    message = tmp_path / "m.json"
    message.write_text('{"type": "call.status.v1"}')
    assert main(["send", str(message)]) == 69
    assert "bus.listen" in capsys.readouterr().err


def test_wrong_configuration_is_78(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "etc/routes.toml").unlink()
    assert main(["config", "check"]) == 78
    assert "routes.toml" in capsys.readouterr().err


def test_keys_can_be_revoked_while_other_files_are_being_edited(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main(["keys", "new", "smp"])
    (tmp_path / "etc/routes.toml").write_text("[[[")
    (tmp_path / "etc/permissions.toml").write_text("[[[")
    assert main(["keys", "revoke", "smp"]) == 0
    assert main(["status"]) == 69


# -- config ---------------------------------------------------------------------------------------


def test_config_check_says_what_it_checked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["config", "check"]) == 0
    out, err = capsys.readouterr()
    assert str(tmp_path / "etc/smpbus.toml") in out
    assert err.count("ПРЕДУПРЕЖДЕНИЕ: ") == 11  # ten peers and the router have no key


def test_config_show_origin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SMPBUS_LOG__LEVEL", "debug")
    assert main(["config", "show", "--origin"]) == 0
    lines = capsys.readouterr().out.splitlines()
    origins = dict(zip(lines[::2], lines[1::2], strict=True))
    assert origins['log.level = "debug"'] == "    # $SMPBUS_LOG__LEVEL"
    assert origins["bus.curve = true"] == "    # built-in"
    assert origins[f'bus.keys_dir = "{tmp_path}/keys"'] == f"    # {tmp_path}/etc/smpbus.toml:2"
    assert origins['routes[2].to = ["sys112"]'].startswith(f"    # {tmp_path}/etc/routes.toml:")
    assert origins["permissions.admin.operate = true"].startswith(
        f"    # {tmp_path}/etc/permissions.toml:"
    )


def test_config_show_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == {"path", "digest", "settings", "origins", "connectors"}
    assert shown["settings"]["bus"]["curve"] is True


# -- keys -----------------------------------------------------------------------------------------


def test_new_key_is_written_and_its_secret_is_not_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["keys", "new", "smp"]) == 0
    out, err = capsys.readouterr()
    key = tmp_path / "keys/smp.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert out.strip() == KeyPair.load(key).public.decode()
    assert key.read_text().strip() not in out + err


@pytest.mark.fault("S14")
def test_what_a_command_writes_is_its_owners_alone_but_public_keys_are_public(
    tmp_path: Path,
) -> None:
    """Journals, state files and registers hold patients' data, whatever umask the shell has."""
    os.umask(0o000)
    assert main(["keys", "new", "smp"]) == 0
    assert stat.S_IMODE((tmp_path / "keys/smp.pub").stat().st_mode) == 0o644
    (tmp_path / "written").write_text("by the same process")
    assert stat.S_IMODE((tmp_path / "written").stat().st_mode) == 0o600


def test_a_key_in_force_is_not_replaced(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["keys", "new", "smp", "--dir", str(tmp_path / "k")]) == 0
    before = (tmp_path / "k/smp.key").read_bytes()
    assert main(["keys", "new", "smp", "--dir", str(tmp_path / "k")]) == 73
    assert (tmp_path / "k/smp.key").read_bytes() == before
    (tmp_path / "k/smp.key").unlink()
    assert main(["keys", "new", "smp", "--dir", str(tmp_path / "k")]) == 73


def test_a_revoked_key_is_replaced(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["keys", "new", "smp"])
    old = load_public(tmp_path / "keys/smp.pub")
    assert main(["keys", "revoke", "smp"]) == 0
    assert not (tmp_path / "keys/smp.pub").exists()
    assert load_public(tmp_path / "keys/smp.revoked") == old
    assert main(["keys", "new", "smp"]) == 0
    assert load_public(tmp_path / "keys/smp.pub") != old
    capsys.readouterr()
    assert main(["keys", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["keys"]
    assert sorted((key["name"], key["state"]) for key in listed) == [
        ("smp", "active"),
        ("smp", "revoked"),
    ]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["new", "../x"], 65), (["new", "СМП"], 65), (["revoke", "nobody"], 1)],
)
def test_refused_key_commands(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int
) -> None:
    assert main(["keys", *arguments]) == status
    assert capsys.readouterr().err.startswith("ОШИБКА: ")


# -- schema, explain, completion, version ---------------------------------------------------------


def test_schema_of_every_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--json"]) == 0
    types = [row["type"] for row in json.loads(capsys.readouterr().out)]
    assert types == [entry.name for entry in catalogue.entries()]
    for type in types:
        assert main(["schema", type]) == 0
        assert "$ref" in json.loads(capsys.readouterr().out)


def test_every_example_is_a_message_that_can_be_sent(capsys: pytest.CaptureFixture[str]) -> None:
    for entry in catalogue.entries():
        main(["schema", entry.name, "--example"])
        [draft] = read_drafts(capsys.readouterr().out, "-")
        assert entry.read(draft.message("smp").body) == entry.read(bytes(draft.body))


def test_unknown_type_and_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "no.such"]) == 1
    assert main(["explain", "no_such"]) == 1
    assert main(["explain", "queue_full"]) == 0
    assert "open_max" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    assert "_SMPBUS_COMPLETE" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {
        "version", "protocol", "python", "libzmq", "sqlite",
    }  # fmt: skip


def test_a_closed_pipe_is_no_failure() -> None:
    command = [sys.executable, "-m", "router.commands", "schema", "--json"]
    run = subprocess.run(
        f"{' '.join(command)} | head -c 1", shell=True, capture_output=True, check=True, text=True
    )
    assert (run.stdout, run.stderr) == ("[", "")


# -- tables, times, drafts, events ----------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("абв g", max_size=90), st.integers(0, 10**9)), max_size=5))
def test_tables_fit_the_terminal(rows: list[tuple[str, int]]) -> None:
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(click, "echo", lines.append)
        patch.setenv("NO_COLOR", "1")
        print_table(["имя", "число"], rows)
    assert len(lines) == len(rows) + 1
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (0, "0 мс"),
        (850, "850 мс"),
        (4200, "4.2 с"),
        (125_000, "2 мин 5 с"),
        (11_520_000, "3 ч 12 мин"),
        (3 * 86_400_000, "3 д 0 ч"),
    ],
)
def test_span(ms: int, shown: str) -> None:
    assert span(ms) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 Б"),
        (1023, "1023 Б"),
        (1536, "1.5 КиБ"),
        (200 << 20, "200 МиБ"),
        (1 << 40, "1024 ГиБ"),
    ],
)
def test_size(count: int, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    "content",
    [
        '{"type": "a.b", "body": {"x": 1}}',
        '{\n  "type": "a.b",\n  "body": {"x": 1}\n}\n',
        '[{"type": "a.b", "body": {"x": 1}}]',
        '\n{"type": "a.b", "body": {"x": 1}}\n\n',
    ],
)
def test_one_draft(content: str) -> None:
    [draft] = read_drafts(content, "f")
    message = draft.message("smp")
    assert (message.type, message.source, json.loads(message.body)) == ("a.b", "smp", {"x": 1})


def test_several_drafts_as_lines() -> None:
    assert [draft.priority for draft in read_drafts(
        '{"type": "a.b", "priority": 0}\n\n{"type": "a.b", "priority": 3}', "f"
    )] == [0, 3]  # fmt: skip


DEEP = '{"type": "a.b", "body": ' + "[" * 100_000 + "]" * 100_000 + "}"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "f"),
        ("{", "строка 1"),
        ('{"type": "a.b"}\n{"typ": "a.b"}', "строка 2"),
        ('{"type": "a"}', "type"),
        ('{"type": "a.b", "priority": 4}', "priority"),
        ('{"type": "a.b", "source": "smp"}', "source"),
        ('[{"type": 5}]', "type"),
        (DEEP, "строка 1"),
        ('{"type": "a.b"}\n' + DEEP, "строка 2"),
    ],
)
def test_bad_drafts_are_65(content: str, named: str) -> None:
    with pytest.raises(Failure, match=named) as caught:
        read_drafts(content, "f")
    assert caught.value.exit_code == 65


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ({"type": None}, True),
        ({"type": "a.b"}, True),
        ({"type": "a.*"}, True),
        ({"type": "a"}, False),
        ({"type": "b.*"}, False),
        ({"subject": "112-*"}, False),
        ({"type": "a.b", "subject": "x"}, False),
    ],
)
def test_filter_of_events(wanted: dict[str, str | None], shown: bool) -> None:
    assert is_wanted({"type": "a.b"}, wanted) is shown


def test_hops_are_in_order_of_time() -> None:
    delivery = {
        "destination": "smp", "state": "settled", "attempts": 2, "delivered_at": 140,
        "settled_at": 150, "due": None, "note": "HTTP 200",
        "history": [
            {"at": 120, "outcome": "retry", "note": "HTTP 503"},
            {"at": 130, "outcome": "retry", "note": "client.stopped"},
        ],
    }  # fmt: skip
    message = {"time": 100, "accepted_at": 105, "source": "sys112", "deliveries": [delivery]}
    assert hops(message) == [
        (100, "отправлено: sys112"),
        (105, "принято шиной, на диске"),
        (120, "→ smp: вернулось: HTTP 503"),
        (130, "→ smp: вернулось: потребитель остановлен"),
        (140, "→ smp: выдано, попытка 2"),
        (150, "→ smp: доставлено: HTTP 200"),
    ]
