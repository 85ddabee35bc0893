"""An output that takes nothing holds no caller up; what it did not take is counted, and it goes on later."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import pytest

from gatewayd.log import LOST, get_logger, is_any_stuck, setup_logging
from gatewayd.log.queued import MAX_WAITING, StreamHandler

log = get_logger("gatewayd.test")
RECORDS = 10_000
"""More than wait for an output and fill a pipe (64 KiB)."""


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """The end to read from, and a stream into the other end."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        yield reading, stream
        os.set_blocking(reading, False)
        read(reading)
        for handler in logging.getLogger().handlers:
            handler.flush()
        setup_logging()
    os.close(reading)


def read(reading: int) -> str:
    """What is there now."""
    pieces = []
    try:
        while piece := os.read(reading, 1 << 16):
            pieces.append(piece)
    except BlockingIOError:
        pass
    return b"".join(pieces).decode()


def test_a_pipe_that_nobody_reads_holds_no_caller_up(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    setup_logging("info", "console", stream, {})
    before = LOST.total
    for number in range(RECORDS):
        log.info("event", number=number, text="x" * 100)
    assert is_any_stuck()
    assert LOST.total - before >= RECORDS - MAX_WAITING - 1000
    # A reload keeps the handler, and waits for nothing.
    setup_logging("info", "console", stream, {})
    lost = LOST.total - before
    os.set_blocking(reading, False)
    text = read(reading)
    while is_any_stuck() or text.count("\n") < RECORDS - lost:
        text += read(reading)
        time.sleep(0.001)
    assert text.count("\n") == RECORDS - lost
    log.info("afterwards")
    while "afterwards" not in text:
        text += read(reading)
        time.sleep(0.001)


def test_an_output_that_fails_costs_its_records_alone() -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115
    with suppress(OSError), full:  # closing it writes what it holds
        setup_logging("info", "console", full, {})
        (handler,) = (each for each in logging.getLogger().handlers if isinstance(each, StreamHandler))
        before = LOST.total
        log.info("into the void")
        handler.flush()
        assert (LOST.total - before, handler.lost) == (1, 1)
        setup_logging()
