"""No library writes a word of its own into the log: it may be somebody's name or birth date."""

import subprocess
import sys

import pytest

NAME, BORN = "Канарейкина", "1980-13-45"
LIBRARIES = (
    "zeep", "zeep.xsd.types.simple", "httpx", "httpcore.http11", "lxml", "urllib3.connection",
    "requests", "psycopg", "psycopg.pool", "uvicorn.error", "starlette", "asyncio", "concurrent",
    "pymemcache", "apsw", "py.warnings", "root", "anything.else",
)  # fmt: skip
SAYS = f"""
import asyncio, logging, sys, warnings
from proto.logs import configure_logs
configure_logs({{level!r}})
logging.captureWarnings(True)
def broken():
    born = {BORN!r}
    raise ValueError("no date: " + born + " {NAME}")
for name in {LIBRARIES!r}:
    log = logging.getLogger(None if name == "root" else name)
    log.setLevel(logging.DEBUG)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        log.log(level, "born %s: {NAME}", {BORN!r})
        log.log(level, "{NAME} 100%")
    try:
        broken()
    except ValueError:
        log.exception("{NAME}", stack_info=True)
        log.warning("{NAME}", exc_info=True)
warnings.warn("{NAME}")
async def lost():
    asyncio.get_running_loop().create_task(fails())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
async def fails():
    broken()
asyncio.run(lost())
import gc; gc.collect()
logging.getLogger("smpbus.connector").error("our own words, 100%% and %s", "more")
logging.shutdown()
"""


@pytest.mark.fault("C7")
@pytest.mark.parametrize("level", ["info", "debug"])
def test_whatever_a_library_says_its_words_are_not_written(level: str) -> None:
    """zeep logged a traceback with a birth date in it: sentences, arguments, tracebacks, warnings
    and lost tasks of every library are stripped in one place, also at the level debug."""
    told = subprocess.run(
        [sys.executable, "-c", SAYS.format(level=level)],
        capture_output=True,
        timeout=60,
        check=True,
    )
    said = (told.stdout + told.stderr).decode()
    assert NAME not in said
    assert BORN not in said
    assert "our own words, 100% and more" in said
    assert "zeep.xsd.types.simple" in said
    assert "ValueError" in said
    assert "Traceback" not in said


@pytest.mark.fault("C7")
def test_the_line_names_the_place_and_the_kind(caplog: pytest.LogCaptureFixture) -> None:
    """So that whoever looks for it finds it."""
    code = (
        "import logging\nfrom proto.logs import configure_logs\nconfigure_logs()\n"
        "try:\n    {}['x']\nexcept KeyError:\n    logging.getLogger('zeep.x').exception('no')\n"
        "logging.shutdown()\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    assert "zeep.x (<string>:7, KeyError)" in told.stderr.decode()
    assert not caplog.records
