"""Configuration: layers, origins, lines of keys, and the sentence for every kind of fault."""

import re
import shutil
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto import wording
from proto.configuration.shipped import shipped_folder
from proto.configuration.tomlfile import find_line
from router.config import ConfigError, find_file, load
from router.settings import BusSettings, Destination, LogSettings, OpsSettings
from router.settings import StoreSettings as Store

OWN = Path(__file__).parents[2] / "config"


@pytest.fixture(autouse=True)
def _russian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wording, "_chosen", None)
    monkeypatch.delenv("SMPBUS_LANG", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(OWN, tmp_path / "etc")
    return tmp_path / "etc"


def write(folder: Path, file: str, content: str) -> Path:
    (folder / file).write_text(content, encoding="utf-8")
    return folder / "smpbus.toml"


def fault(
    folder: Path, file: str, content: str, environ: dict[str, str] | None = None
) -> ConfigError:
    write(folder, file, content)
    with pytest.raises(ConfigError) as caught:
        load(folder / "smpbus.toml", environ=environ or {})
    return caught.value


# -- the files brought along ----------------------------------------------------------------------


def test_own_files_are_the_built_in_values(folder: Path) -> None:
    loaded = load(folder / "smpbus.toml", environ={})
    built_in = (BusSettings(), OpsSettings(), Store(), LogSettings())
    settings = loaded.settings
    assert (settings.bus, settings.ops, settings.store, settings.log) == built_in
    assert set(loaded.settings.destinations) == {
        "smp", "sys112", "ats", "rmis", "remd", "vimis", "rmr", "tfoms", "external",
        "deadlines", "admin",
    }  # fmt: skip
    assert set(loaded.origins.values()) >= {"built-in"}


def test_commented_values_of_the_own_file_are_the_built_in_ones(folder: Path) -> None:
    commented = (folder / "smpbus.toml").read_text(encoding="utf-8")
    shown = re.sub(r"^# (?=[a-z_]+ = )", "", commented, flags=re.MULTILINE)
    loaded = load(write(folder, "smpbus.toml", shown), environ={})
    assert loaded.settings == load(OWN / "smpbus.toml", environ={}).settings
    for section in ("bus", "ops", "store", "log"):
        assert set(tomllib.loads(shown)[section]) == set(
            getattr(loaded.settings, section).__struct_fields__
        )


def test_documented_backoff_is_the_built_in_one(folder: Path) -> None:
    text = (folder / "routes.toml").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^#   (\w+) = ([\d.]+)", text, re.MULTILINE))
    built_in = Destination()
    own = msgspec.structs.asdict(built_in)
    del own["backoff"]
    expected = {**own, **msgspec.structs.asdict(built_in.backoff)}
    assert {key: float(value) for key, value in documented.items()} == expected


@pytest.mark.parametrize(
    ("source", "type", "to"),
    [
        ("sys112", "incident.card.v1", ("smp", "ats", "deadlines")),
        ("ats", "telephony.call.v1", ("smp",)),
        ("smp", "telephony.dial.v1", ("ats",)),
        ("sys112", "incident.cancelled.v1", ("smp", "deadlines")),
        ("sys112", "deadline.timer.v1", ("deadlines",)),
        ("sys112", "deadline.missed.v1", ("admin",)),
        ("smp", "call.status.v1", ("sys112", "rmis", "deadlines")),
        ("smp", "call.ticket.v1", ("rmis",)),
        ("smp", "call.card.v1", ("rmis", "remd", "vimis", "tfoms")),
        ("tfoms", "register.state.v1", ("smp",)),
        ("smp", "hospital.book.v1", ("rmis",)),
        ("smp", "visit.request.v1", ("rmis",)),
        ("rmis", "hospital.booked.v1", ("smp",)),
        ("rmis", "transfer.state.v1", ("smp",)),
        ("rmis", "visit.state.v1", ("smp",)),
        ("rmis", "input.rejected.v1", ("admin",)),
        ("smp", "incident.card_update.v1", ("sys112",)),
        ("smp", "input.rejected.v1", ("admin",)),
        ("rmr", "worker.changed.v1", ("smp",)),
        ("rmr", "worker.removed.v1", ("smp",)),
        ("admin", "worker.load.v1", ("rmr",)),
        ("smp", "worker.load.v1", ()),
        ("sys112", "input.rejected.v1", ("admin",)),
        ("sys112", "call.status.v1", ()),
        ("smp", "incident.card.v1", ()),
        ("external", "external.call.v1", ("smp",)),
        ("external", "external.cancelled.v1", ("smp",)),
        ("external", "call.status.v1", ()),
        ("smp", "external.status.v1", ("external",)),
        ("external", "external.notice.v1", ("external",)),
        ("smp", "external.call.v1", ()),
    ],
)
def test_own_routes(source: str, type: str, to: tuple[str, ...]) -> None:
    from router.core.routing import Routes

    settings = load(OWN / "smpbus.toml", environ={}).settings
    assert Routes(settings.routes).find(source, type, 2) == to


# -- layers ---------------------------------------------------------------------------------------


def test_layers_in_order(folder: Path) -> None:
    path = write(
        folder, "smpbus.toml", '[store]\nfolder = "/a"\nhistory_hours = 5\ndedup_hours = 6\n'
    )
    environ = {"SMPBUS_STORE__HISTORY_HOURS": "7", "SMPBUS_STORE__FOLDER": "/b"}
    loaded = load(path, {"store.folder": "/c", "log.level": None}, environ)
    store = loaded.settings.store
    assert (store.folder, store.history_hours, store.dedup_hours) == (Path("/c"), 7, 6)
    assert loaded.origins["store.folder"] == "flag"
    assert loaded.origins["store.history_hours"] == "$SMPBUS_STORE__HISTORY_HOURS"
    assert loaded.origins["store.dedup_hours"] == f"{path}:4"
    assert loaded.origins["store.free_bytes_min"] == "built-in"


def test_environment_values_of_each_kind(folder: Path) -> None:
    environ = {
        "SMPBUS_BUS__LISTEN": "ipc:///a/b.sock, tcp://127.0.0.1:5570",
        "SMPBUS_BUS__CURVE": "false",
        "SMPBUS_BUS__IPC_MODE": "0600",
        "SMPBUS_BUS__SESSIONS_MAX": "12",
        "SMPBUS_OPS__HTTP": "",
    }
    settings = load(folder, environ=environ).settings
    assert settings.bus.listen == ("ipc:///a/b.sock", "tcp://127.0.0.1:5570")
    assert (settings.bus.curve, settings.bus.ipc_mode, settings.bus.sessions_max) == (
        False,
        "0600",
        12,
    )
    assert settings.ops.http == ""


def test_relative_paths_start_from_the_folder_of_the_file(folder: Path) -> None:
    content = (
        '[bus]\nlisten = ["ipc://run/b.sock"]\nkeys_dir = "../keys"\n[store]\nfolder = "data"\n'
    )
    loaded = load(write(folder, "smpbus.toml", content), environ={})
    assert loaded.settings.store.folder == folder / "data"
    assert loaded.settings.bus.listen == (f"ipc://{folder}/run/b.sock",)
    assert loaded.settings.bus.key == folder.parent / "keys/router.key"
    assert loaded.where("bus.key") == f"{folder / 'smpbus.toml'}, bus.key"


def test_search_order(tmp_path: Path) -> None:
    assert find_file(tmp_path / "x.toml", {"SMPBUS_CONFIG": "/y.toml"}) == tmp_path / "x.toml"
    assert find_file(None, {"SMPBUS_CONFIG": "/y.toml"}) == Path("/y.toml")
    assert find_file(tmp_path, {}) == tmp_path / "smpbus.toml"
    assert shipped_folder() == OWN


def test_digest_changes_with_any_setting(folder: Path) -> None:
    plain = load(folder, environ={}).digest
    assert plain == load(folder, environ={}).digest
    assert plain != load(folder, {"log.level": "debug"}, {}).digest


def test_connector_tables_are_passed_by(folder: Path) -> None:
    path = write(
        folder,
        "smpbus.toml",
        '[connectors.smp]\nbase_url = "http://x"\n[connectors.smp.retry]\nn = 1\n',
    )
    connectors = load(path, environ={"SMPBUS_CONNECTORS__SMP__X": "1"}).connectors
    assert connectors == {"smp": {"base_url": "http://x", "retry": {"n": 1}, "x": "1"}}


def test_a_peer_without_key_is_a_warning(folder: Path) -> None:
    keys = folder / "keys"
    keys.mkdir()
    (keys / "smp.pub").write_text("x")
    path = write(folder, "smpbus.toml", '[bus]\nkeys_dir = "keys"\n')
    found = load(path, environ={}).warnings
    assert len(found) == 9
    assert not [sentence for sentence in found if "у smp " in sentence]


def test_no_key_warnings_without_curve(folder: Path) -> None:
    path = write(folder, "smpbus.toml", "[bus]\ncurve = false\n")
    assert load(path, environ={}).warnings == ()


# -- faults ---------------------------------------------------------------------------------------

MAIN_FAULTS = {
    "not TOML": ("[bus]\nlisten = [\n", None, 3),
    "unquoted": ("[log]\nlevel = info\n", None, 2),
    "unknown section": ("[buss]\n", "buss", 1),
    "unknown key": ('[bus]\n\nlisen = ["ipc:///x"]\n', "bus.lisen", 3),
    "wrong type": ('[bus]\nsessions_max = "many"\n', "bus.sessions_max", 2),
    "bool for a number": ("[bus]\nsessions_max = true\n", "bus.sessions_max", 2),
    "number for a path": ("[store]\nfolder = 5\n", "store.folder", 2),
    "empty path": ('[store]\nfolder = ""\n', "store.folder", 2),
    "string for a list": ('[bus]\nlisten = "ipc:///x"\n', "bus.listen", 2),
    "number in a list": ('[bus]\nlisten = [\n"ipc:///x",\n5]\n', "bus.listen", 2),
    "too small": ("[store]\nhistory_hours = 0\n", "store.history_hours", 2),
    "not a choice": ('[log]\nlanguage = "de"\n', "log.language", 2),
    "empty listen": ("[bus]\nlisten = []\n", "bus.listen", 2),
    "not an address": ('[bus]\nlisten = ["localhost:5570"]\n', "bus.listen", 2),
    "no port": ('[bus]\nlisten = ["tcp://127.0.0.1"]\n', "bus.listen", 2),
    "port too high": ('[bus]\nlisten = ["tcp://127.0.0.1:70000"]\n', "bus.listen", 2),
    "not an IP": ('[bus]\nlisten = ["tcp://127.0.0.300:5570"]\n', "bus.listen", 2),
    "ipc too long": (f'[bus]\nlisten = ["ipc:///{"x" * 107}"]\n', "bus.listen", 2),
    "ipc without path": ('[bus]\nlisten = ["ipc://"]\n', "bus.listen", 2),
    "twice": ('[bus]\nlisten = ["ipc:///x", "ipc:///x"]\n', "bus.listen", 2),
    "ops as bus": ('[bus]\nlisten = ["ipc:///x"]\n[ops]\nlisten = "ipc:///x"\n', "ops.listen", 4),
    "open": ('[bus]\ncurve = false\nlisten = ["tcp://*:5570"]\n', "bus.listen", 3),
    "ops open": ('[ops]\nlisten = "tcp://0.0.0.0:5571"\n', "ops.listen", 2),
    "ops not an address": ('[ops]\nevents = "x"\n', "ops.events", 2),
    "http": ('[ops]\nhttp = "7180"\n', "ops.http", 2),
    "frame below body": ("[bus]\nframe_bytes_max = 1000\n", "bus.frame_bytes_max", 2),
    "section is a value": ("bus = 5\n", "bus", 1),
    "connector is a value": ("[connectors]\nsmp = 5\n", "connectors.smp", 2),
}


@pytest.mark.parametrize("case", MAIN_FAULTS)
def test_fault_in_smpbus_toml(folder: Path, case: str) -> None:
    content, key, line = MAIN_FAULTS[case]
    error = fault(folder, "smpbus.toml", content)
    assert (error.file, error.key or None, error.line) == (folder / "smpbus.toml", key, line)
    assert_one_sentence(error, folder / "smpbus.toml")


DESTINATIONS = "[destinations.smp]\n[destinations.sys112]\n[destinations.admin]\n"
ROUTES_FAULTS = {
    "not TOML": ("[destinations.smp\n", None, 1),
    "unknown key": (f"{DESTINATIONS}open_maximum = 5\n", "destinations.admin.open_maximum", 4),
    "too large": (f"{DESTINATIONS}backoff.factor = 20\n", "destinations.admin.backoff.factor", 4),
    "nested": (
        f"{DESTINATIONS}[destinations.smp.backoff]\nfirst_ms = 0\n",
        "destinations.smp.backoff.first_ms",
        5,
    ),
    "order": (
        f"{DESTINATIONS}[destinations.smp.backoff]\nlongest_ms = 5\n",
        "destinations.smp.backoff.longest_ms",
        5,
    ),
    "bad name": (f"{DESTINATIONS}[destinations.SMP]\n", "destinations.SMP", 4),
    "unknown destination": (
        f'{DESTINATIONS}[[routes]]\ntype = "a.b"\nto = ["smp"]\n'
        '[[routes]]\ntype = "c.d"\nto = ["nobody"]\n',
        "routes[2].to",
        9,
    ),
    "nowhere": (f'{DESTINATIONS}[[routes]]\ntype = "a.b"\nto = []\n', "routes[1].to", 6),
    "no type": (f'{DESTINATIONS}[[routes]]\nto = ["smp"]\n', "routes[1]", 4),
    "bad type": (f'{DESTINATIONS}[[routes]]\ntype = "a b"\nto = ["smp"]\n', "routes[1].type", 5),
    "star inside": (
        f'{DESTINATIONS}[[routes]]\ntype = "a.*.b"\nto = ["smp"]\n',
        "routes[1].type",
        5,
    ),
    "priority": (
        f'{DESTINATIONS}[[routes]]\ntype = "*"\nto = ["smp"]\npriorities = [4]\n',
        "routes[1].priorities",
        7,
    ),
    "one table": (f'{DESTINATIONS}[routes]\ntype = "*"\n', "routes", 4),
}


@pytest.mark.parametrize("case", ROUTES_FAULTS)
def test_fault_in_routes_toml(folder: Path, case: str) -> None:
    content, key, line = ROUTES_FAULTS[case]
    error = fault(folder, "routes.toml", content)
    assert (error.file, error.key or None, error.line) == (folder / "routes.toml", key, line)
    assert_one_sentence(error, folder / "routes.toml")


PEER_FAULTS = {
    "not TOML": ("peers]\n", None, 1),
    "bad peer": ('[peers."СМП"]\n', "peers.СМП", 1),
    "bad type": ('[peers.smp]\npublish = ["a b"]\n', "peers.smp.publish", 2),
    "unknown destination": ('[peers.smp]\nconsume = ["smpp"]\n', "peers.smp.consume", 2),
    "unknown asked": ('[peers.smp]\nask = ["nobody"]\n', "peers.smp.ask", 2),
    "bad bus": ('[peers.smp]\nrelay = ["3f2a.smp"]\n', "peers.smp.relay", 2),
    "bad prefix": ('[peers.smp]\nask = ["R*"]\n', "peers.smp.ask", 2),
    "unknown key": ('[peers.smp]\npublsh = ["*"]\n', "peers.smp.publsh", 2),
    "string": ('[peers.smp]\npublish = "*"\n', "peers.smp.publish", 2),
    "peer is a value": ("[peers]\nsmp = true\n", "peers.smp", 2),
}


@pytest.mark.parametrize("case", PEER_FAULTS)
def test_fault_in_permissions_toml(folder: Path, case: str) -> None:
    content, key, line = PEER_FAULTS[case]
    error = fault(folder, "permissions.toml", content)
    assert (error.file, error.key or None, error.line) == (folder / "permissions.toml", key, line)
    assert_one_sentence(error, folder / "permissions.toml")


def assert_one_sentence(error: ConfigError, file: Path) -> None:
    assert error.exit_code == 78
    assert str(file) in error.sentence
    assert "\n" not in error.sentence
    assert not re.search(r"[.!?] [А-ЯA-Z]", error.sentence.replace("bind. Требуемый", ""))
    if error.key:
        assert error.key in error.sentence
    if error.line:
        assert f"строка {error.line}" in error.sentence


@pytest.mark.parametrize("file", ["smpbus.toml", "routes.toml", "permissions.toml"])
def test_missing_file(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(ConfigError, match=re.escape(str(folder / file))):
        load(folder / "smpbus.toml", environ={})


def test_file_in_another_encoding(folder: Path) -> None:
    (folder / "smpbus.toml").write_bytes("[bus]\n# Шина\n".encode("cp1251"))
    with pytest.raises(ConfigError, match=r"строка 2: .*UTF-8"):
        load(folder, environ={})


def test_what_was_meant_by_a_key(folder: Path) -> None:
    assert "имелось в виду listen" in fault(folder, "smpbus.toml", "[bus]\nlisen = []\n").sentence


def test_what_was_meant_by_a_destination(folder: Path) -> None:
    route = '[destinations.smp]\n[[routes]]\ntype = "*"\nto = ["smpp"]\n'
    assert 'имелось в виду "smp"' in fault(folder, "routes.toml", route).sentence


def test_bind_form(folder: Path) -> None:
    error = fault(folder, "smpbus.toml", '[bus]\nlisten = ["tcp:/x"]\n')
    assert error.sentence.startswith(
        "Ошибка сокета 22 при выполнении bind. Требуемый адрес для своего контекста неверен: "
        f"tcp:/x ({folder / 'smpbus.toml'}, bus.listen), строка 2: "
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SMPBUS_BUS__LISEN", "ipc:///x"),
        ("SMPBUS_BSU__LISTEN", "ipc:///x"),
        ("SMPBUS_BUS__SESSIONS_MAX", "many"),
        ("SMPBUS_BUS__CURVE", "да"),
        ("SMPBUS_LOG__LEVEL", "loud"),
        ("SMPBUS_BUS__LISTEN", ""),
        ("SMPBUS_STORE__FOLDER", ""),
    ],
)
def test_fault_in_the_environment(folder: Path, variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"${variable}")) as caught:
        load(folder, environ={variable: value})
    assert caught.value.file is None


def test_english_sentences(folder: Path) -> None:
    wording.set_language("en")
    error = fault(folder, "smpbus.toml", "[log]\nlevel = 5\n")
    assert error.sentence == (
        f"{folder / 'smpbus.toml'}, line 2: log.level: must be a string in quotes, not 5"
    )


# -- lines ----------------------------------------------------------------------------------------

LINES = '''\
top = 1
[a]
x = """
x = 2
"""
"y z" = 3
[a.b]
x = [
  "q = 1",
]
[[r]]
to = 1
[r.in]
to = 2
[[r]]
k.l = 3
'''


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("top",), 1),
        (("a",), 2),
        (("a", "x"), 3),
        (("a", "y z"), 6),
        (("a", "b", "x"), 8),
        (("a", "b", "x", 0), 8),
        (("r", 0), 11),
        (("r", 0, "to"), 12),
        (("r", 0, "in", "to"), 14),
        (("r", 1), 15),
        (("r", 1, "k", "l"), 16),
        (("r", 1, "missing"), 15),
        (("missing",), None),
    ],
)
def test_line_of_a_key(key: tuple[str | int, ...], line: int | None) -> None:
    assert find_line(LINES, key) == line


names = st.from_regex(r"[a-z]{1,6}", fullmatch=True)
tables = st.dictionaries(names, st.dictionaries(names, st.integers(), min_size=1), min_size=1)


@settings(deadline=None)
@given(tables, st.integers(0, 3))
def test_line_of_every_key_of_any_file(tree: dict[str, dict[str, int]], gap: int) -> None:
    lines = []
    expected = {}
    for table, entries in tree.items():
        lines += ["# comment = 1", f"[{table}]"]
        for key, value in entries.items():
            lines += [""] * gap + [f"{key} = {value}"]
            expected[table, key] = len(lines)
    text = "\n".join(lines)
    assert tomllib.loads(text) == tree
    assert {key: find_line(text, key) for key in expected} == expected
