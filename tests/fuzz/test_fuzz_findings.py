"""What fuzzing has found, each with the input written out, and what the reader makes of it since its mend.

The file of the corpus goes on from there; a test here says what was wrong. `test_` TARGET `__` FILE is its name.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

import msgspec
import pytest

from gatewayd.api.queries import ParameterRejected, read_parameters
from gatewayd.control.drain_keeper import SCHEMA as DRAINS
from gatewayd.control.drain_keeper import _read as read_drains
from gatewayd.errors import EventMalformed, RecordRejected
from gatewayd.feed.canonical import Newer
from gatewayd.feed.record import RecordParser
from gatewayd.kernel import attributes as nl
from gatewayd.kernel.netlink import decode_error
from gatewayd.near_miss.store import decode_line
from gatewayd.registry.guard_record import decode_record
from gatewayd.state_file.file import StateFileUnusable, read_state_file
from gatewayd.subscribers.journal_file import JournalFile
from gatewayd.trial.record import RecordUnusable, decode_state
from tests.fuzz.target import CORPUS, fault_of_message
from tests.fuzz.targets import TARGETS
from tests.fuzz.targets.registry import _hashed

DEPTH = 5000
"""Deeper than a decoder that calls itself can go."""
NESTED = '{"a":' * DEPTH + "1" + "}" * DEPTH


def test_each_file_of_the_corpus_that_has_a_name_has_a_test() -> None:
    files = {
        f"test_{path.parent.name.replace('.', '_')}__{path.name}" for path in CORPUS.glob("*/*") if "_" in path.name
    }
    assert files == {name for name in globals() if "__" in name and name.startswith("test_")}


# -- texts ---------------------------------------------------------------------------------------------------


def test_files_near_miss_line__nested_too_deeply() -> None:
    """RecursionError came out of it: a start with such a file ended."""
    assert decode_line(NESTED) is None


def test_files_trial__nested_too_deeply() -> None:
    with pytest.raises(RecordUnusable, match="nested too deeply"):
        decode_state(_hashed(b'\1{"version":1,"state":' + NESTED.encode() + b"}"))


def test_files_trial__name_that_cannot_be_printed() -> None:
    """The name of a field turned the writing of a terminal around."""
    with pytest.raises(RecordUnusable) as caught:
        decode_state(_hashed('\1{"version":1,"\u202estate":{}}'.encode()))
    assert fault_of_message(str(caught.value)) is None


def test_registry_guard__nested_too_deeply() -> None:
    found = TARGETS["registry.guard"].execute(b'\1{"serial":0,"x":' + NESTED.encode() + b"}")
    assert found is None


def test_registry_guard__format_of_two_thousand_digits() -> None:
    """The message said the number; the trial and the notification of a feed had the same."""
    with pytest.raises(Newer, match="of another format") as caught:
        decode_record(_hashed(b'\1{"serial":0,"format":%s}' % (b"9" * 2000)))
    assert fault_of_message(str(caught.value)) is None
    with pytest.raises(RecordUnusable, match="of another format"):
        decode_state(_hashed(b'\1{"version":%s,"state":{}}' % (b"9" * 2000)))
    assert TARGETS["registry.payload"].execute(b'{"version":%s}' % (b"9" * 2000)) is None


def test_registry_record__number_in_place_of_a_prefix() -> None:
    """The rejection said the value, and a value may be somebody's number."""
    record = {"id": "V", "category": "bank", "status": "active", "clients": ["19230098765430.0/24"]}
    with pytest.raises(RecordRejected) as caught:
        RecordParser().parse(msgspec.json.encode(record))
    assert "9230098765" not in str(caught.value)


def test_http_questions__mark_in_a_name() -> None:
    """A byte order mark in the name of a parameter stood in the answer as it came."""
    with pytest.raises(ParameterRejected) as caught:
        read_parameters([("spo\ufefft", "5")], ("sport",))
    assert fault_of_message(str(caught.value)) is None
    assert "spo" in str(caught.value)


def test_http_server__gone_within_the_body() -> None:
    """A client that announces 50 bytes and goes after one was an internal error."""
    request = b"PUT /v1/bindings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n["
    assert TARGETS["http.server"].execute(b"\1" + request) is None
    assert TARGETS["http.server"].execute(b"\0" + request) is None


# -- binary --------------------------------------------------------------------------------------------------


def test_registry_last_good_chunk__nested_too_deeply() -> None:
    assert TARGETS["registry.last_good_chunk"].execute(b"s" + b"\x91" * DEPTH) is None


def test_registry_last_good_chunk__columns_that_do_not_fit() -> None:
    raw = bytes.fromhex("97d1619109d0d1d0d1c0d0d100")
    assert TARGETS["registry.last_good_chunk"].execute(b"s" + raw) is None


def test_sessions_rows__nested_too_deeply() -> None:
    key = b"session"
    assert TARGETS["sessions.rows"].execute(bytes([len(key)]) + key + bytes(4) + b"\x91" * DEPTH) is None


def test_kernel_notifications__program_with_an_escape() -> None:
    """A program chooses its name: one with an escape sequence came into the log."""
    commit = nl.be32(1, 7) + nl.be32(2, 13) + nl.attribute(3, b"a\x1b[2J\0")
    raw = nl.MESSAGE_HEADER.pack(20 + len(commit), 0x0A0F, 0, 0, 0) + bytes([0, 0, 0, 1]) + commit
    assert TARGETS["kernel.notifications"].execute(bytes([len(raw) // 4]) + raw) is None


def test_kernel_objects__list_shorter_than_a_header() -> None:
    assert TARGETS["kernel.objects"].execute(b"\t" + bytes.fromhex("0500030000000000")) is None


def test_kernel_messages__error_without_a_code() -> None:
    """The first message has a header alone, and it is the end of the datagram."""
    raw = nl.MESSAGE_HEADER.pack(16, nl.NLMSG_ERROR, 0x1000, 1, 0)
    ((_, flags, _, start, _),) = nl.iter_messages(raw)
    with pytest.raises(EventMalformed, match="netlink error"):
        decode_error(raw, start, flags)


# -- SQLite --------------------------------------------------------------------------------------------------


def schema_with(path: Path, word: bytes, other: bytes) -> None:
    """SQLite repeats the schema in its message where it does not parse."""
    raw = path.read_bytes()
    assert word in raw
    path.write_bytes(raw.replace(word, other))


def fault_of_schema(path: Path, statement: bytes) -> str:
    """What is said of a state file whose first statement is another."""
    connection = sqlite3.connect(path, isolation_level=None)
    for each in DRAINS.statements:
        connection.execute(each)
    connection.execute(f"PRAGMA user_version = {DRAINS.version}")
    connection.close()
    schema_with(path, b"CREATE TABLE ", statement)
    with pytest.raises(StateFileUnusable) as caught:
        read_state_file(path, DRAINS, partial(read_drains, "boot-1"))
    return str(caught.value)


def test_files_state_files__bytes_in_the_schema(tmp_path: Path) -> None:
    fault = fault_of_schema(tmp_path / "x", b"CREATE TA\x1b\xffLE")
    assert fault_of_message(fault) is None


def test_files_state_files__control_sign_in_the_schema(tmp_path: Path) -> None:
    """This byte is text, and SQLite's sentence had it as it came."""
    fault = fault_of_schema(tmp_path / "x", b"CREATE \x1dABLE ")
    assert "malformed database schema" in fault
    assert fault_of_message(fault) is None


def test_files_journal__bytes_in_the_schema(tmp_path: Path) -> None:
    """The row of the schema was not UTF-8, and sqlite3 raised UnicodeDecodeError, which no handler expected."""
    path = tmp_path / "j.sqlite"
    file = JournalFile(path)
    file.open()
    file.close()
    schema_with(path, b"CREATE TABLE ", b"CREATE TA\x1b\xffLE")
    again = JournalFile(path)
    try:
        assert list(again.open()) == []
    finally:
        again.close()
