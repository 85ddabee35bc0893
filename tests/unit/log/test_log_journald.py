"""Entries with fields, over the journal's native protocol, to a socket that stands for the journal's."""

from __future__ import annotations

import array
import json
import logging
import os
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd.log import Format, Level, get_logger, queued, setup_logging
from gatewayd.log.journald import JournalHandler, encode_entry, field_name

logger = get_logger("gatewayd.test")
TIMEOUT_S = 30.0


def decode_entry(entry: bytes) -> dict[str, str]:
    """The fields of a datagram, as systemd.io/JOURNAL_NATIVE_PROTOCOL has them."""
    fields = {}
    while entry:
        line, _, entry = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(entry[:8], "little")
            value, end, entry = entry[8 : 8 + size], entry[8 + size : 9 + size], entry[9 + size :]
            assert end == b"\n"
        fields[name.decode()] = value.decode()
    return fields


class Journal:
    """A socket where the journal's would be, and a stream that leads to it by $JOURNAL_STREAM."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "socket")
        self.stream = (directory / "stderr").open("w+")
        status = os.fstat(self.stream.fileno())
        self.environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        self.socket = self.listen()

    def listen(self) -> socket.socket:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        found.bind(self.path)
        found.settimeout(TIMEOUT_S)
        return found

    def set_up(self, level: Level = "info", format: Format = "auto") -> None:
        setup_logging(level, format, self.stream, self.environ, self.path)

    def read(self) -> dict[str, str]:
        entry, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        if not entry:
            descriptor = array.array("i", ancillary[0][2])[0]
            with open(descriptor, "rb") as file:
                file.seek(0)
                entry = file.read()
        return decode_entry(entry)

    def told_stream(self) -> str:
        for handler in logging.getLogger().handlers:
            handler.flush()
        self.stream.flush()
        return Path(self.stream.name).read_text()


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """The handlers, levels and the way of warnings are the process's own; put them back."""
    root = logging.getLogger()
    handlers, level, shown = list(root.handlers), root.level, warnings.showwarning
    level_of_ours = logging.getLogger("gatewayd").level
    yield
    logging.captureWarnings(False)
    warnings.showwarning = shown
    for handler in root.handlers:
        if isinstance(handler, JournalHandler):
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("gatewayd").setLevel(level_of_ours)
    logging.getLogger("aiohttp.access").setLevel(logging.NOTSET)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = Journal(tmp_path)
    yield found
    found.socket.close()
    found.stream.close()


def test_an_event_is_an_entry_with_a_field_for_each_of_its_fields(journal: Journal) -> None:
    journal.set_up()
    logger.warning("feed.held", removed=7, source="national", why=None, names=["a", "b"], to_be="one two")
    assert journal.read() == {
        "MESSAGE": 'feed.held removed=7 source=national why=null names=a,b to_be="one two"',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "gatewayd",
        "GATEWAYD_EVENT": "feed.held",
        "GATEWAYD_LOGGER": "gatewayd.test",
        "GATEWAYD_REMOVED": "7",
        "GATEWAYD_SOURCE": "national",
        "GATEWAYD_WHY": "null",
        "GATEWAYD_NAMES": "a,b",
        "GATEWAYD_TO_BE": "one two",
    }
    assert journal.told_stream() == ""


def test_the_priority_is_that_of_the_level(journal: Journal) -> None:
    journal.set_up("debug")
    logger.debug("d")
    logger.info("i")
    logger.warning("w")
    logger.error("e")
    logging.getLogger("asyncio").critical("c")
    assert [(entry["GATEWAYD_EVENT"], entry["PRIORITY"]) for entry in (journal.read() for _ in range(5))] == [
        ("d", "7"), ("i", "6"), ("w", "4"), ("e", "3"), ("asyncio", "2"),
    ]  # fmt: skip


def test_a_record_of_another_library_has_its_text_as_a_field(journal: Journal) -> None:
    journal.set_up()
    logging.getLogger("asyncio").error("Task %s was destroyed", "x")
    entry = journal.read()
    assert (entry["GATEWAYD_EVENT"], entry["GATEWAYD_MESSAGE"]) == ("asyncio", "Task x was destroyed")
    assert entry["MESSAGE"] == 'asyncio message="Task x was destroyed"'


def test_an_exception_keeps_its_lines_in_a_field_and_the_message_is_one_line(journal: Journal) -> None:
    journal.set_up()
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        logger.exception("task.failed", task="sync")
    entry = journal.read()
    assert entry["GATEWAYD_EXCEPTION"].endswith("\nValueError: bad\nthing")
    assert r"ValueError: bad\nthing" in entry["MESSAGE"]
    assert "\n" not in entry["MESSAGE"]


def test_a_field_named_as_one_of_the_entry_gives_way(journal: Journal) -> None:
    journal.set_up()
    logger.info("feed.read", event=3, logger=4)
    entry = journal.read()
    assert (entry["GATEWAYD_EVENT"], entry["GATEWAYD_LOGGER"]) == ("feed.read", "gatewayd.test")


def test_the_message_of_an_entry_is_json_where_that_is_configured(journal: Journal) -> None:
    journal.set_up(format="json")
    logger.info("feed.read", added=3)
    entry = journal.read()
    assert json.loads(entry["MESSAGE"])["added"] == 3
    assert entry["GATEWAYD_ADDED"] == "3"


def test_an_entry_too_large_for_a_datagram_arrives_whole(journal: Journal) -> None:
    journal.set_up()
    ids = "x" * (4 << 20)
    logger.info("reconcile.past_bound", ids=ids)
    logger.info("next")
    assert journal.read()["GATEWAYD_IDS"] == ids
    assert journal.read()["GATEWAYD_EVENT"] == "next"


def test_a_reload_keeps_the_way_to_the_journal(journal: Journal) -> None:
    journal.set_up()
    first = [handler for handler in logging.getLogger().handlers if isinstance(handler, JournalHandler)]
    journal.set_up("warning", "json")
    assert [each for each in logging.getLogger().handlers if isinstance(each, JournalHandler)] == first
    logger.info("i")
    logger.warning("w")
    assert journal.read()["MESSAGE"].startswith("{")


def test_another_journal_takes_the_place_of_the_first(journal: Journal) -> None:
    journal.set_up()
    first = journal.socket
    journal.path += "-2"
    with first, journal.listen() as journal.socket:
        journal.set_up()
        logger.info("i")
        assert journal.read()["GATEWAYD_EVENT"] == "i"
        assert len([each for each in logging.getLogger().handlers if isinstance(each, JournalHandler)]) == 1


def test_a_field_that_cannot_be_shown_costs_its_entry_alone(
    journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def __str__(self) -> str:
            raise ValueError("no text")

    journal.set_up()
    logger.info("broken", field=Broken())
    logger.info("next")
    assert journal.read()["GATEWAYD_EVENT"] == "next"
    assert "ValueError: no text" in capsys.readouterr().err


def test_without_a_socket_of_the_journal_lines_go_to_its_stream(journal: Journal) -> None:
    journal.path += ".none"
    journal.set_up()
    logger.warning("w", added=3)
    assert journal.told_stream() == "<4>w added=3\n"


def test_a_stream_elsewhere_is_written_to_although_there_is_a_journal(journal: Journal, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as stream:
        setup_logging("info", "auto", stream, journal.environ, journal.path)
        logger.info("i")
        for handler in logging.getLogger().handlers:
            handler.flush()
    assert json.loads((tmp_path / "file").read_text())["event"] == "i"


def test_a_journal_that_does_not_read_never_blocks_and_is_told_how_much_was_lost(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads while all of this is logged: more than any queue of the kernel's (net.unix.max_dgram_qlen)."""
    monkeypatch.setattr(queued, "MAX_WAITING", 20)
    journal.set_up()
    for number in range(5000):
        logger.info("i", number=number)
    entries: list[dict[str, str]] = []
    while not entries or entries[-1]["GATEWAYD_EVENT"] != "end":
        logger.info("end")
        entries.append(journal.read())
    numbers = [int(entry["GATEWAYD_NUMBER"]) for entry in entries if entry["GATEWAYD_EVENT"] == "i"]
    assert numbers == sorted(set(numbers))
    assert len(numbers) < 5000
    assert sum(int(entry.get("GATEWAYD_LOG_LOST", 0)) for entry in entries) >= 5000 - len(numbers)


def test_another_journald_in_the_place_of_the_first_is_told_what_was_lost(journal: Journal) -> None:
    journal.set_up()
    logger.info("first")
    assert journal.read()["GATEWAYD_EVENT"] == "first"
    journal.socket.close()
    os.unlink(journal.path)
    logger.info("second")
    (handler,) = [each for each in logging.getLogger().handlers if isinstance(each, JournalHandler)]
    while handler.lost == 0:
        time.sleep(0.01)
    journal.socket = journal.listen()
    logger.info("third")
    entry = journal.read()
    assert (entry["GATEWAYD_EVENT"], entry["GATEWAYD_LOG_LOST"]) == ("third", "1")


def test_the_entries_that_wait_are_sent_at_the_end(journal: Journal) -> None:
    journal.set_up()
    (handler,) = [each for each in logging.getLogger().handlers if isinstance(each, JournalHandler)]
    logger.info("last")
    handler.close()
    handler.close()
    assert journal.read()["GATEWAYD_EVENT"] == "last"


def test_a_journal_that_does_not_read_holds_up_the_end_for_a_moment_only(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queued, "MAX_WAITING", 3)
    monkeypatch.setattr(queued, "CLOSE_S", 0.01)
    journal.set_up()
    (handler,) = [each for each in logging.getLogger().handlers if isinstance(each, JournalHandler)]
    for number in range(5000):
        logger.info("i", number=number)
    handler.close()
    journal.read()


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("retry_in_s", "GATEWAYD_RETRY_IN_S"),
        ("größe-1", "GATEWAYD_GR_SSE_1"),
        ("x" * 100, "GATEWAYD_" + "X" * 55),
    ],
)
def test_a_field_name_has_what_the_journal_takes(name: str, field: str) -> None:
    assert field_name(name) == field


def test_a_value_with_a_newline_has_its_length() -> None:
    assert encode_entry({"A": "one", "B": "x\ny"}) == b"A=one\nB\n\x03\0\0\0\0\0\0\0x\ny\n"


def test_a_value_that_is_no_text_of_unicode_is_escaped() -> None:
    assert encode_entry({"A": "\udcff"}) == b"A=\\udcff\n"
