"""The files of a signed feed: what they must be, and what a delta makes of the registrations before it."""

from __future__ import annotations

import gzip
import hashlib

import pytest

from gatewayd.errors import (
    DeltaConflict,
    DeltaMalformed,
    FileDamaged,
    FileTooLarge,
    HashMismatch,
    SizeMismatch,
)
from gatewayd.feed.files import DeltaReader, FileReading, LayeredRegistrations, Pending, net_changes
from gatewayd.feed.notification import SnapshotRef
from gatewayd.feed.reading import NdjsonReader, ReadLimits
from gatewayd.feed.record import MAX_LINE_BYTES
from gatewayd.model import Registration
from gatewayd.model.registration import SLICE, run_slices
from tests.support.feeds import fields_of, line_of, upsert, withdraw

LIMITS = ReadLimits(max_bytes=100_000, max_records=10)


def registrations(*ids: str) -> dict[str, Registration]:
    reader = NdjsonReader("lab")
    for id in ids:
        reader.feed(line_of(fields_of(id)))
    return reader.registrations


# -- registrations in layers -------------------------------------------------------------------------------


def test_a_change_makes_the_next_registrations_and_leaves_those_before() -> None:
    base = registrations("a", "b")
    first = LayeredRegistrations.of(base)
    assert LayeredRegistrations.of(first) is first
    (c,) = registrations("c").values()
    second = first.changed({"c": c, "a": None, "b": base["b"], "gone": None})
    assert dict(first) == base
    assert (list(second), len(second)) == (["c", "b"], 2)
    assert second["c"] is c
    assert "a" not in second
    assert "c" in second
    assert "b" in second
    assert "z" not in second
    with pytest.raises(KeyError):
        second["a"]
    with pytest.raises(KeyError):
        second["z"]
    assert not second.is_deep
    flat = run_slices(second.flatten())
    assert (dict(flat), len(flat)) == (dict(second), 2)


def test_so_many_changes_are_deep() -> None:
    (each,) = registrations("a").values()
    layered = LayeredRegistrations.of({}).changed({f"x{number}": each for number in range(SLICE + 1)})
    assert layered.is_deep


def test_the_net_of_a_chain_leaves_out_what_is_so_already() -> None:
    before = registrations("a", "b")
    (c,) = registrations("c").values()
    net, changes = run_slices(net_changes(before, {"a": before["a"], "b": None, "c": c, "z": None}))
    assert net == {"b": None, "c": c}
    assert ([each.id for each in changes.upserts], changes.withdrawals) == (["c"], ("b",))


# -- operations --------------------------------------------------------------------------------------------


def read_delta(
    *lines: bytes, before: dict[str, Registration] | None = None, is_exact: bool = True
) -> tuple[DeltaReader, Pending]:
    pending: Pending = {}
    reader = DeltaReader("lab", 7, LIMITS, before or {}, pending, is_exact=is_exact)
    for line in lines:
        reader.feed(line)
    reader.finish()
    return reader, pending


def test_operations_say_what_becomes_of_an_id() -> None:
    before = registrations("a", "b")
    reader, pending = read_delta(
        line_of(upsert("c")), b"  \n", line_of(upsert("a")), line_of(withdraw("b")), before=before
    )
    assert list(pending) == ["c", "a", "b"]
    assert pending["a"] is before["a"]
    assert pending["b"] is None
    assert reader.is_exact


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b'{"op":"other"}\n',
        b'{"op":"upsert"}\n',
        b'{"op":"upsert","registration":{},"id":"a"}\n',
        b'{"op":"withdraw"}\n',
        b'{"op":"withdraw","id":"a b"}\n',
        b'{"op":"withdraw","id":"a","registration":{}}\n',
        b'{"op":' + b"[" * 20_000 + b"\n",
        b" " * (MAX_LINE_BYTES + 1) + b"\n",
    ],
)
def test_a_line_that_is_no_operation_is_a_fault_of_the_whole_delta(line: bytes) -> None:
    with pytest.raises(DeltaMalformed, match="line 1"):
        read_delta(line, b"nonsense\n", line_of(upsert("a")))


def test_a_withdrawal_of_what_is_not_there_is_a_conflict_unless_a_record_was_rejected_before() -> None:
    with pytest.raises(DeltaConflict, match="line 1: withdraws a"):
        read_delta(line_of(withdraw("a")))
    with pytest.raises(DeltaConflict):
        read_delta(line_of(withdraw("b")), line_of(withdraw("b")), before=registrations("b"))
    assert read_delta(line_of(withdraw("a")), is_exact=False)[1] == {}
    reader, pending = read_delta(line_of(upsert("n", phone="0300")), line_of(withdraw("n")))
    assert (pending, reader.is_exact, dict(reader.rejected)) == ({}, False, {"identity_field": 1})


def test_an_id_that_looks_like_a_phone_number_is_not_repeated() -> None:
    reader, pending = read_delta(line_of(upsert("0300-7654321")), line_of(withdraw("0300-7654321")))
    assert (pending, dict(reader.rejected)) == ({}, {"phone_number": 1})
    assert "7654321" not in str(reader.rejections)
    with pytest.raises(DeltaConflict) as caught:
        read_delta(line_of(withdraw("0300-7654321")))
    assert "7654321" not in str(caught.value)


# -- a file as served --------------------------------------------------------------------------------------

PLAIN = b"".join(line_of(fields_of(id)) for id in ("a", "b", "c"))
PACKED = gzip.compress(PLAIN)


def read_file(raw: bytes, limits: ReadLimits = LIMITS, **ref: object) -> NdjsonReader:
    stated = SnapshotRef("url", hashlib.sha256(raw).hexdigest(), len(raw), 3)
    if ref:
        stated = SnapshotRef("url", str(ref.get("sha256", stated.sha256)), int(str(ref.get("size", len(raw)))), 3)
    reader = NdjsonReader("lab", limits)
    reading = FileReading("snapshot", stated, reader, limits)
    for start in range(0, len(raw), 50):
        run_slices(reading.feed(raw[start : start + 50]))
    reading.finish()
    return reader


def test_a_file_that_is_as_stated_is_read() -> None:
    assert read_file(PACKED).registrations == registrations("a", "b", "c")


def test_another_size_or_hash_is_refused() -> None:
    with pytest.raises(SizeMismatch):
        read_file(PACKED, size=len(PACKED) - 1)
    with pytest.raises(SizeMismatch):
        read_file(PACKED, size=len(PACKED) + 1)
    with pytest.raises(HashMismatch):
        read_file(PACKED, sha256="00" * 32)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (PLAIN, "not gzip, or damaged"),
        (PACKED[:-4], "its gzip has no end"),
        (gzip.compress(PLAIN[:-20]), "cut off"),
        (gzip.compress(b"PK\x03\x04"), "is an archive"),
    ],
)
def test_what_is_no_whole_gzip_of_whole_lines_is_damaged(raw: bytes, why: str) -> None:
    with pytest.raises(FileDamaged, match=why):
        read_file(raw)


def test_more_than_the_limits_is_too_large() -> None:
    with pytest.raises(FileTooLarge, match="bytes"):
        read_file(PACKED, ReadLimits(max_bytes=50, max_records=10))
    with pytest.raises(FileTooLarge, match="records"):
        read_file(PACKED, ReadLimits(max_bytes=100_000, max_records=2))
    with pytest.raises(FileTooLarge, match="records"):
        read_file(gzip.compress(PLAIN.rstrip()), ReadLimits(max_bytes=100_000, max_records=2))
