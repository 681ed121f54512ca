"""What others say, and what they may make of our log: a code by its grammar, and nothing more."""

import asyncio
import logging
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from connectors.partners.smp import SmpConnector
from connectors.partners.smp.connector import SmpSettings
from connectors.partners.smp.contract import CommitRequest
from connectors.partners.sys112.connector import coded_reply
from connectors.runtime.bus.intake import Intake
from connectors.runtime.door.body import BadInput
from connectors.runtime.oddities import fit_path, oddities
from connectors.runtime.partner.http import HttpAnswer
from connectors.runtime.words import RejectInWords, code_of, id_of, reason_of
from proto import catalogue
from proto.client import Reject
from tests.contract.stage import Bus, Scene
from tests.faults.doorstep import play
from tests.integration.bus import RouterProcess
from tests.until import until

NAME, BORN = "Канарейкина", "1980-13-45"
CARD = catalogue.entry("incident.card.v1").example
OWN = f"""
import gc, logging, threading, warnings
from proto.logs import configure_logs
configure_logs("debug")
log = logging.getLogger("smpbus.connector")
def broken():
    born = {BORN!r}
    raise ValueError("no date: " + born + " {NAME}")
try:
    broken()
except ValueError:
    log.exception("it failed")
    log.error("and again", exc_info=True, stack_info=True)
thread = threading.Thread(target=broken)
thread.start()
thread.join()
class Leaving:
    def __del__(self):
        broken()
leaving = Leaving()
del leaving
gc.collect()
warnings.warn("{NAME}")
broken()
"""


@pytest.mark.fault("S15")
def test_a_partners_sentence_goes_to_the_dead_letter_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The reason with which the ambulance refused a card was written to the log, a name in it and
    all; it is kept with the dead letter."""
    words = f"пациент {NAME} 01.01.1950 уже в базе"
    routes = '[destinations.smp]\n[[routes]]\ntype = "incident.*"\nto = ["smp"]\n'
    permissions = '[peers.sys112]\npublish = ["*"]\n[peers.smp]\nconsume = ["smp"]\n'
    table = {"partner": {"url": "http://unused"}, "listen": "127.0.0.1:0", "mode": "queue"}

    async def whole(router: RouterProcess) -> list[Any]:
        async with router.client("sys112") as sender, router.client("smp") as bus:
            connector = SmpConnector("smp", msgspec.convert(table, SmpSettings), bus)
            intake = Intake.of(connector)
            taking = asyncio.create_task(intake.run())
            assert connector.queue is not None
            card = sender.message("incident.card.v1", CARD, subject="112-1")
            # Its sender's own id: no more fit for a log than the words.
            await sender.publish(msgspec.structs.replace(card, id=f"card-{NAME}"))
            received: list[Any] = []
            while not received:
                received = connector.queue.receive(1)
                await connector.queue.wait(1.0)
            connector.queue.commit(CommitRequest([received[0].ref], "reject", reason=words))

            async def letters() -> list[Any]:
                return list((await asyncio.to_thread(router.ask, "dead"))["letters"])

            dead: list[Any] = await until(letters, "the dead letter")
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            await connector.close()
            return dead

    with (
        RouterProcess(peers=("sys112", "smp"), routes=routes, permissions=permissions) as router,
        caplog.at_level(logging.DEBUG, "smpbus"),
    ):
        dead = asyncio.run(whole(router))
        assert NAME not in router.log.read_text(encoding="utf-8")
    assert words in msgspec.json.encode(dead).decode()
    assert "smpbus dead list" in caplog.text
    assert NAME not in caplog.text


@pytest.mark.fault("S15")
def test_a_code_is_a_word_of_its_grammar(caplog: pytest.LogCaptureFixture) -> None:
    """System-112's Code of any length and any words was logged as the note of a refusal."""
    assert code_of("VALIDATION_ERROR.2-a") == "VALIDATION_ERROR.2-a"
    for said in ("", "нет карточки", "a" * 41, "a b", "422\n", "422\r", "422\x1b[31m", "４22"):
        assert code_of(said) == "?"
    body = msgspec.json.encode({"Code": f"422 нет карточки: {NAME}"})
    answer = HttpAnswer(200, {"content-type": "application/json"}, body)
    assert coded_reply(answer)[1].startswith("422 ")  # what it is compared with is what was said

    async def act(stage: Scene, _: Bus) -> None:
        stage.connector.partner.ask = lambda *_: said_by_112(answer)  # type: ignore[assignment]
        with pytest.raises(Reject) as caught:
            await stage.connector._send("PUT", "112-1", "", {}, "key")  # type: ignore[attr-defined]
        assert NAME in str(caught.value)
        assert type(caught.value) is not Reject  # the intake keeps its words to the dead letter

    play("sys112", act)


async def said_by_112(answer: HttpAnswer) -> tuple[int, str]:
    return coded_reply(answer)


@pytest.mark.fault("S15")
def test_no_exception_brings_its_text_into_the_log() -> None:
    """A traceback of our own, of a thread, of a warning or of nobody's exception ended in a text
    that may quote what was worked on; the kind and the places are told, on one line."""
    told = subprocess.run([sys.executable, "-c", OWN], capture_output=True, timeout=60, check=False)
    said = (told.stdout + told.stderr).decode()
    assert told.returncode == 1
    for secret in (NAME, BORN, "Traceback", "Stack (most recent"):
        assert secret not in said
    lines = said.splitlines()
    assert sum("ValueError, <string>:8" in line for line in lines) == 5, said
    assert sum("it failed" in line for line in lines) == 1


@pytest.mark.fault("S15")
def test_nothing_in_a_line_steers_a_terminal() -> None:
    """CR and ESC reached the log, and whoever read it saw lines that nobody had written."""
    steering = "".join(map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0x202E, 0xFEFF)))
    code = (
        "import logging\nfrom proto.logs import configure_logs\nconfigure_logs()\n"
        f"logging.getLogger('smpbus.x').warning('a%sb', {steering!r})\nlogging.shutdown()\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    said = told.stderr.decode()
    assert said.endswith("\n")
    assert said[:-1].isprintable()
    assert "\\x1b" in said
    assert "\\u2028" in said


@pytest.mark.fault("S15")
def test_no_name_of_a_field_brings_words_into_the_log() -> None:
    """What a partner calls a field is the partner's word, too: of an odd value the path was logged
    as it came, a person as the key in it."""
    assert fit_path("Card.Address[3].House") == "Card.Address[3].House"
    assert fit_path("Content-Encoding") == "Content-Encoding"
    for said in (NAME, "79161234567", "Card[79161234567]", f"Card.{NAME}.Age", "a b", "a" * 65):
        told = fit_path(said)
        assert "?" in told
        assert not set("АИО7") & set(told)
    odd = list(oddities({"Card": {NAME: {"IVANOV.1943": "\x01"}}}))
    assert [one.path for one in odd] == ["Card.?.?"]
    bad = BadInput(f"Card.{NAME}", "is odd")
    assert NAME not in bad.sentence + str(bad)


@pytest.mark.fault("S15")
def test_an_id_of_words_stays_out_of_the_log() -> None:
    """The ambulance numbers its messages itself: an id that holds a name was in each line about the
    message (see the first test), and so was a partner's sentence in lines beside the intake's."""
    assert id_of("kv-2026-1") == "kv-2026-1"
    for said in (NAME, f"card-{NAME}", "a" * 129, "a b", "a\n"):
        assert id_of(said) == "?"
    assert NAME not in reason_of(RejectInWords(f"пациент {NAME}"))
    assert reason_of(Reject("HTTP 422")) == "HTTP 422"
