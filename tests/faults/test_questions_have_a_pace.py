"""Whoever asks the router's operator socket or its page without pause delays no message."""

import asyncio
import contextlib
import json
import socket
import time
from typing import Any

import pytest
import zmq

from router.shell.pace import SHARE, Pace
from tests.integration.bus import RouterProcess
from tests.ports import free_port

COUNT = 20
COST_S = 0.004
ASKED_S = 1.5
ANSWERS_MAX = 1000  # of either; without a pace several thousand


@pytest.mark.fault("D4")
def test_turns_take_a_share_of_the_time_and_come_in_order() -> None:
    """50 connections that asked for /metrics without pause took the whole loop: messages waited
    0.7 s. A tenth of the loop's time is theirs."""
    came: list[int] = []

    async def one(pace: Pace, number: int) -> None:
        await pace.turn()
        came.append(number)
        pace.took(COST_S)

    async def all_of_them() -> float:
        pace, began = Pace(), time.monotonic()
        await one(pace, -1)
        assert time.monotonic() - began < COST_S, "one now and then does not wait"
        for number in range(COUNT):
            await one(pace, number)
        return time.monotonic() - began

    took_s = asyncio.run(all_of_them())
    assert came == list(range(-1, COUNT))
    assert took_s > COUNT * COST_S / SHARE * 0.8


@pytest.mark.fault("D4")
def test_a_crowd_that_asks_without_pause_is_answered_at_a_pace() -> None:
    """The operator's socket and the page answered as fast as they were asked; both still answer."""
    port = free_port()
    with RouterProcess() as router:
        told = router.config.read_text().replace('http = ""', f'http = "127.0.0.1:{port}"')
        router.config.write_text(told)
        assert router.stop() == 0
        router.start()
        ended = time.monotonic() + ASKED_S
        with zmq.Context() as context, context.socket(zmq.DEALER) as asker:
            asker.setsockopt(zmq.LINGER, 0)
            asker.connect(router.ops)
            answers = _ask_both(asker, port, ended)
        assert 0 < answers["ops"] < ANSWERS_MAX
        assert 0 < answers["page"] < ANSWERS_MAX
        assert router.ask("status", timeout_s=10)["state"] == "running"


def _ask_both(asker: Any, port: int, ended: float) -> dict[str, int]:
    answers = {"ops": 0, "page": 0}
    question = [b"", json.dumps({"command": "versions"}).encode()]
    page = socket.create_connection(("127.0.0.1", port), 5.0)
    with page:
        page.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" * 3000)
        page.settimeout(0.01)
        for _ in range(900):
            asker.send_multipart(question)
        while time.monotonic() < ended:
            with contextlib.suppress(TimeoutError):
                answers["page"] += page.recv(1 << 20).count(b"HTTP/1.1 200")
            while asker.poll(0):
                asker.recv_multipart()
                answers["ops"] += 1
                asker.send_multipart(question)
    return answers
