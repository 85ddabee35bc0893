from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gatewayd.log import Format, Level, RateLimited, get_logger, setup_logging
from gatewayd.log.logger import EVENTS_LIMITED
from gatewayd.model import parse_prefix

logger = get_logger("gatewayd.test")
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """The handlers, levels and the way of warnings are the process's own; put them back."""
    names = ("gatewayd", "aiohttp.access")
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = [logging.getLogger(name).level for name in names]
    shown = warnings.showwarning
    yield
    logging.captureWarnings(False)
    warnings.showwarning = shown
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, former in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(former)


def drain() -> None:
    """Until the handlers' threads have written all."""
    for handler in logging.getLogger().handlers:
        handler.flush()


class Output(io.StringIO):
    def getvalue(self) -> str:
        drain()
        return super().getvalue()


class Terminal(Output):
    def isatty(self) -> bool:
        return True


def listen(format: Format = "console", level: Level = "info") -> io.StringIO:
    stream = Output()
    setup_logging(level, format, stream, {})
    return stream


def console_fields(**fields: Any) -> str:
    """The fields as the console shows them."""
    stream = listen()
    logger.info("e", **fields)
    return stream.getvalue().partition(" e ")[2].removesuffix("\n")


def test_an_event_is_a_name_and_fields_with_time_and_level() -> None:
    stream = listen()
    logger.info("reconcile.applied", added=3, removed=1, duration_ms=4.2, cause="c-7")
    assert re.fullmatch(
        STAMP + r" info    reconcile\.applied added=3 removed=1 duration_ms=4\.2 cause=c-7\n", stream.getvalue()
    )


def test_in_json_the_fields_stand_beside_time_level_and_event() -> None:
    stream = listen("json")
    logger.warning("feed.held", removed=7, source="national", why=None)
    told = json.loads(stream.getvalue())
    assert re.fullmatch(STAMP, told.pop("ts"))
    assert told == {"level": "warning", "event": "feed.held", "removed": 7, "source": "national", "why": None}


def test_a_field_named_as_one_of_ours_gives_way() -> None:
    stream = listen("json")
    logger.info("feed.read", ts=1, level=2, event=3)
    told = json.loads(stream.getvalue())
    assert (told["level"], told["event"]) == ("info", "feed.read")
    assert (told["ts_"], told["level_"], told["event_"]) == (1, 2, 3)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("word", "word"),
        ("لاہور", "لاہور"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "x"', r'"say \"x\""'),
        ("a=b", '"a=b"'),
        ("one\ntwo\r", r'"one\ntwo\r"'),
        ("\x1b[31m\x7f\x9b\u2028", r'"\u001b[31m\u007f\u009b\u2028"'),
        (True, "true"),
        (None, "null"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (parse_prefix("10.0.0.0/8"), "10.0.0.0/8"),
        (b"\x01\xff", "01ff"),
        (["a", 1], "a,1"),
        (("a b", "c"), '"a b,c"'),
        (frozenset({4}), "4"),
        ([None], "[null]"),
        ({"a": [1, {"b": "x"}]}, r'"{\"a\":[1,{\"b\":\"x\"}]}"'),
    ],
)
def test_values_are_quoted_when_they_are_not_one_word(value: object, shown: str) -> None:
    assert console_fields(field=value) == f"field={shown}"


def test_values_that_json_lacks_are_text_in_it() -> None:
    stream = listen("json")
    logger.info("e", prefix=parse_prefix("10.0.0.0/8"), far=float("-inf"), some=(1, "x"))
    told = json.loads(stream.getvalue())
    assert (told["prefix"], told["far"], told["some"]) == ("10.0.0.0/8", "-inf", [1, "x"])


@pytest.mark.parametrize("format", ["console", "json"])
def test_an_exception_is_a_field_and_the_event_stays_one_line(format: Format) -> None:
    stream = listen(format)
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        logger.exception("task.failed", task="sync")
    assert stream.getvalue().count("\n") == 1
    assert r"ValueError: bad\nthing" in stream.getvalue()
    assert "task.failed" in stream.getvalue()


def test_no_exception_is_no_field() -> None:
    stream = listen("json")
    logger.exception("task.failed")
    assert "exception" not in json.loads(stream.getvalue())


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("debug", ["d", "i", "w", "e", "x"]),
        ("info", ["i", "w", "e", "x"]),
        ("warning", ["w", "e", "x"]),
        ("error", ["e", "x"]),
    ],
)
def test_events_below_the_level_are_left_out(level: Level, told: list[str]) -> None:
    stream = listen("json", level)
    logger.debug("d")
    logger.info("i")
    logger.warning("w")
    logger.error("e")
    logger.exception("x")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == told


def test_an_exception_below_the_level_is_left_out() -> None:
    stream = listen()
    logging.getLogger("gatewayd").setLevel(logging.CRITICAL)
    logger.exception("x")
    assert stream.getvalue() == ""


def test_another_setup_takes_the_place_of_the_first_and_leaves_other_handlers() -> None:
    external = logging.NullHandler()
    logging.getLogger().addHandler(external)
    first, second = listen(), listen("json")
    logger.info("e")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1
    assert external in logging.getLogger().handlers


def test_other_libraries_are_heard_from_warning_on_with_their_text_as_a_field() -> None:
    stream = listen("json", "debug")
    logging.getLogger("asyncio").info("chatter")
    logging.getLogger("asyncio").error("Task %s was destroyed", "x")
    told = json.loads(stream.getvalue())
    assert (told["level"], told["event"], told["message"]) == ("error", "asyncio", "Task x was destroyed")


def test_the_access_log_is_never_heard() -> None:
    stream = listen("json", "debug")
    logging.getLogger("aiohttp.access").error("GET /")
    assert stream.getvalue() == ""


def test_warnings_become_events() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        stream = listen("json")
        warnings.warn("old\nways", DeprecationWarning, stacklevel=1)
    told = json.loads(stream.getvalue())
    assert (told["level"], told["event"]) == ("warning", "py.warnings")
    assert "old\nways" in told["message"]


def test_auto_is_console_on_a_terminal_and_json_elsewhere() -> None:
    terminal, pipe = Terminal(), Output()
    setup_logging("info", "auto", terminal, {})
    logger.info("e", added=3)
    setup_logging("info", "auto", pipe, {})
    logger.info("e", added=3)
    assert terminal.getvalue().endswith(" e added=3\n")
    assert json.loads(pipe.getvalue())["added"] == 3


def test_under_the_journal_lines_have_a_priority_and_no_time(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with path.open("w") as stream:
        status = os.fstat(stream.fileno())
        setup_logging("debug", "auto", stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        logger.debug("d")
        logger.info("i", added=3)
        logger.warning("w")
        logger.error("e")
        logging.getLogger("asyncio").critical("c")
        drain()
    assert path.read_text().splitlines() == ["<7>d", "<6>i added=3", "<4>w", "<3>e", "<2>asyncio message=c"]


def test_json_under_the_journal_has_the_priority_in_front(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with path.open("w") as stream:
        status = os.fstat(stream.fileno())
        setup_logging("info", "json", stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        logger.info("i")
        drain()
    assert path.read_text().startswith('<6>{"ts":')


def test_a_journal_that_was_inherited_but_is_not_written_to_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("w") as stream:
        setup_logging("info", "auto", stream, {"JOURNAL_STREAM": "1:1"})
        logger.info("i")
        drain()
    assert json.loads(path.read_text())["event"] == "i"


def test_the_stream_is_stderr_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Output()
    monkeypatch.setattr(sys, "stderr", stream)
    setup_logging(environ={})
    logger.info("i")
    assert json.loads(stream.getvalue())["event"] == "i"


def test_an_event_is_logged_once_in_an_interval_and_says_how_many_were_left_out() -> None:
    stream = listen("json")
    now = 100.0
    limited = RateLimited(logger, 10.0, lambda: now)
    for now in (100.0, 101.0, 109.9, 110.0, 130.0):
        limited.warning("events.lost", at=now)
    limited.error("other")
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(one["event"], one.get("at"), one.get("suppressed")) for one in told] == [
        ("events.lost", 100.0, None),
        ("events.lost", 110.0, 2),
        ("events.lost", 130.0, None),
        ("other", None, None),
    ]


def test_the_events_that_are_limited_are_bounded() -> None:
    stream = listen("json")
    limited = RateLimited(logger, 10.0, lambda: 0.0)
    for number in range(EVENTS_LIMITED + 1):
        limited.info(f"event.{number}")
    limited.info("event.0")
    limited.info(f"event.{EVENTS_LIMITED}")
    assert stream.getvalue().count("\n") == EVENTS_LIMITED + 2


def test_a_daemon_does_not_load_rich_and_a_command_still_can() -> None:
    code = """
import sys
import gatewayd.cli.service, gatewayd.daemon
assert "structlog" in sys.modules
assert not any(name.partition(".")[0] in ("rich", "pygments") for name in sys.modules)
from rich.console import Console
"""
    subprocess.run([sys.executable, "-c", code], check=True)
