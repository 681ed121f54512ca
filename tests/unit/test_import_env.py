"""`smpbus config import-env`: an old environment file, strictly, line by line."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto import wording
from proto.configuration.shipped import shipped_folder
from router.commands import main
from router.oldenvironment import FILE, import_environment, load_known

KNOWN = load_known(shipped_folder() / FILE)
GOOD = """
# Система-112
export SERVER_112_STATUS=true
CLIENT_112_SERVER_PROTOCOL=HTTP
CLIENT_112_SERVER="10.1.2.3"
CLIENT_112_SERVER_PORT=8080
CLIENT_112_SERVER_TIMEOUT='20'

CLIENT_112_SERVER_PATH=/112/soap
FB_M_TFOMS285=false
FB_M_EXTERNAL_REQUESTS=true
DB_PASSWORD=fable
"""


@pytest.fixture(autouse=True)
def _russian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wording, "_chosen", None)
    monkeypatch.delenv("SMPBUS_LANG", raising=False)


def run(tmp_path: Path, told: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    file = tmp_path / "old.env"
    file.write_text(told, encoding="utf-8")
    code = main(["config", "import-env", str(file)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_a_good_file_becomes_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(tmp_path, GOOD, capsys)
    assert code == 0
    partner = {"url": "http://10.1.2.3:8080/112/soap", "timeout_s": 20}
    assert tomllib.loads(out) == {"connectors": {"sys112": {"partner": partner}}}
    assert "# Было включено: systemctl enable --now smpbus-connector@sys112" in out
    assert "# Было выключено: коннектор tfoms не запускайте" in out
    assert err.splitlines() == [
        "не перенесено: DB_PASSWORD", "не перенесено: FB_M_EXTERNAL_REQUESTS",
    ]  # fmt: skip
    assert "fable" not in out + err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("SERVER_112_STATUS=true – активация сервера", "строка 2: после значения похоже на поясн"),
        ("CLIENT_112_SERVER_PORT=8080;", "строка 2: значение кончается на «;»"),
        ("CLIENT_112_SERVER_PORT=8080 #порт", "строка 2: после значения похоже на пояснение"),
        ("CLIENT_112_SERVER_PORT=ab#cd", "строка 2: после значения похоже на пояснение"),
        ("CLIENT_112_SERVER_PORT=70000", "строка 2: CLIENT_112_SERVER_PORT: нужно число от 1"),
        ("CLIENT_112_SERVER_PROTOCOL=soap", "строка 2: CLIENT_112_SERVER_PROTOCOL: нужно http или"),
        ("CLIENT_112_SERVER_TIMEOUT=30000", "не миллисекунды ли это?"),
        ("CLIENT_112_SERVER_PATH='/a b'", "строка 2: CLIENT_112_SERVER_PATH: нужен путь"),
        ("CLIENT_112_SERVER_HOST=other", "строка 2: CLIENT_112_SERVER_HOST задано дважды"),
        (
            "CLIENT_112_SERVER=again",
            "строка 2: CLIENT_112_SERVER задано дважды, впервые в строке 1",
        ),
        ("SERVER_112_STATUS=да", "строка 2: SERVER_112_STATUS: нужно true или false"),
        ('CLIENT_112_SERVER_PATH="/a', "строка 2: кавычка не закрыта"),
        ("Адрес сервера", "строка 2: не вида ИМЯ=ЗНАЧЕНИЕ"),
        ("A = b", "строка 2: не вида ИМЯ=ЗНАЧЕНИЕ"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_printed(
    line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(tmp_path, f"CLIENT_112_SERVER=smp\n{line}\n", capsys)
    assert (code, out) == (65, "")
    assert said in err
    assert "исправьте строки: 1" in err
    assert "70000" not in err


def test_an_address_without_a_server_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(tmp_path, "CLIENT_112_SERVER_PORT=80\n", capsys)
    assert (code, out) == (65, "")
    assert "нет CLIENT_112_SERVER, а без него не сложить connectors.sys112.partner.url" in err


def test_a_file_that_is_not_there_or_no_text_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "import-env", str(tmp_path / "none.env")]) == 65
    assert "none.env: No such file" in capsys.readouterr().err
    file = tmp_path / "cp1251.env"
    file.write_bytes("# Система".encode("cp1251"))
    assert main(["config", "import-env", str(file)]) == 65
    assert "не текст в UTF-8" in capsys.readouterr().err


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), max_size=20))
def test_whatever_stands_there_is_read_or_told(lines: list[str]) -> None:
    found = import_environment(lines, KNOWN)
    bare = [line.strip() for line in lines]
    meant = [line for line in bare if line and not line.startswith("#")]
    assert len(found.unknown) + len(found.problems) >= bool(meant)
    assert found.settings == {}
