"""Rubbish, and good input gone bad, into whatever of the registry reads bytes: only declared errors come out.

Beside the unit tests, which do this for notifications, keys, records, deltas and the configuration
(`test_registry_notification`, `…_record`, `…_feed`, `test_settings_load`).
"""

from __future__ import annotations

import asyncio
import gzip
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.errors import FeedRefused, OverridesInvalid, SourceFailed, SourceTooLarge, SourceUnusable
from gatewayd.feed.files import PIECE_BYTES, DeltaReader, FileReading, GzipDamaged, Inflater, Pending
from gatewayd.feed.notification import SnapshotRef
from gatewayd.feed.reading import CsvReader, NdjsonReader, ReadLimits
from gatewayd.feed.record import FIELDS, REASONS, registration_of
from gatewayd.model import Registration
from gatewayd.model.registration import changes_in_slices, run_slices
from gatewayd.sources.files import read_overrides
from gatewayd.sources.last_good import Restored
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.override_file import parse_overrides
from gatewayd.sources.update import FeedPosition, SourceUpdate
from tests.support.feeds import fields_of, line_of, sha256, upsert, withdraw

LIMITS = ReadLimits(max_bytes=300_000, max_records=20)
PREVIOUS = {id: registration_of(fields_of(id)) for id in ("a", "b", "c")}


@st.composite
def spoiled(draw: st.DrawFn, content: bytes) -> bytes:
    """Good bytes with some bytes changed, put in or taken out, cut short, or followed by others."""
    raw = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(raw)))
        length = draw(st.sampled_from((0, 1, 2, 40, len(raw))))
        raw[start : start + length] = draw(st.binary(max_size=4))
    return bytes(raw)


# -- gzip ----------------------------------------------------------------------------------------------------

PACKED = gzip.compress(b"".join(line_of(fields_of(id)) for id in "abc"), mtime=0)


@given(st.binary(max_size=300) | spoiled(PACKED) | spoiled(PACKED).map(lambda raw: PACKED + raw), st.booleans())
def test_what_is_inflated_comes_in_bounded_pieces_or_is_damaged(raw: bytes, must_be_gzip: bool) -> None:
    inflater = Inflater(must_be_gzip)
    with suppress(GzipDamaged):
        for start in range(0, len(raw), 50):
            assert all(len(piece) <= PIECE_BYTES for piece in inflater.feed(raw[start : start + 50]))
        assert len(inflater.finish()) <= 1
        assert inflater.is_whole() in (True, False)


@given(st.binary(max_size=200) | spoiled(PACKED), st.booleans())
def test_a_file_of_a_feed_is_read_or_refused(raw: bytes, is_delta: bool) -> None:
    """Its size and hash being as stated: what a registry signed that has gone mad."""
    changes: Pending = {}
    reader = (
        DeltaReader("lab", 2, LIMITS, PREVIOUS, changes, is_exact=True)
        if is_delta
        else NdjsonReader("lab", LIMITS, PREVIOUS)
    )
    file = FileReading("snapshot", SnapshotRef("x", sha256(raw), len(raw), 3), reader, LIMITS)
    with suppress(FeedRefused):
        run_slices(file.feed(raw))
        file.finish()
        assert reader.rejected.keys() <= set(REASONS)


# -- lines ---------------------------------------------------------------------------------------------------

HEADER = (",".join(FIELDS) + "\n").encode()
NDJSON = b"".join(line_of(fields_of(id)) for id in PREVIOUS)
CSV = HEADER + b"".join(b"%s,bank,active,203.0.113.0/28,,,,,,,,\n" % id.encode() for id in PREVIOUS)
DELTA = b"".join(map(line_of, (upsert("d"), withdraw("a"), upsert("b", "203.0.113.64/28"))))


@given(st.binary(max_size=300) | spoiled(NDJSON))
def test_ndjson_is_read_or_refused_as_a_whole(raw: bytes) -> None:
    read(NdjsonReader("lab", LIMITS, PREVIOUS), raw)


@given(st.binary(max_size=300) | spoiled(CSV) | st.binary(max_size=200).map(lambda raw: HEADER + raw))
def test_csv_is_read_or_refused_as_a_whole(raw: bytes) -> None:
    read(CsvReader("lab", LIMITS, PREVIOUS), raw)


def read(reader: NdjsonReader, raw: bytes) -> None:
    try:
        reader.feed(raw)
        reader.finish()
    except (SourceTooLarge, SourceUnusable):
        return
    assert reader.rejected.keys() <= set(REASONS)
    assert len(reader.registrations) - reader.retained + reader.rejected.total() == reader.records


@given(st.binary(max_size=200) | spoiled(DELTA))
def test_a_delta_is_read_or_refused(raw: bytes) -> None:
    changes: Pending = {}
    reader = DeltaReader("lab", 2, LIMITS, PREVIOUS, changes, is_exact=True)
    with suppress(FeedRefused, SourceFailed):
        reader.feed(raw)
        reader.finish()
        assert all(id in PREVIOUS for id, registration in changes.items() if registration is None)


DAMAGE = st.one_of(
    st.binary(min_size=1, max_size=40), st.sampled_from([b"\0", b"\xff", b'"', b",", b"x" * 70_000, b"}", b"{"])
).filter(lambda raw: b"\n" not in raw)


@given(DAMAGE, st.booleans(), st.booleans())
def test_a_record_that_was_good_and_can_still_be_told_by_its_id_is_not_lost(
    damage: bytes, is_csv: bool, is_put_in: bool
) -> None:
    good, mark = (CSV, b"bank,active") if is_csv else (NDJSON, b'"bank"')
    lines = good.splitlines(keepends=True)
    place = -2  # the record of b
    head, _, tail = lines[place].partition(mark)
    lines[place] = head + damage + (mark if is_put_in else b"") + tail
    reader = (CsvReader if is_csv else NdjsonReader)("lab", ReadLimits(), PREVIOUS)
    with suppress(SourceUnusable):  # a quote that is never closed
        reader.feed(b"".join(lines))
        reader.finish()
        assert reader.registrations.keys() >= PREVIOUS.keys()


# -- local overrides -----------------------------------------------------------------------------------------

OVERRIDES = """\
pins:
  - {id: LOCAL-1, category: bank, clients: [203.0.113.0/28], services: [ipsec], comment: "phone", until: null}
filters:
  - {id: PK-1, comment: compromised, until: 2030-01-01T00:00:00Z}
  - {prefix: 198.51.100.0/24, comment: hijacked}
"""
YAML_BITS = st.sampled_from(
    [*"{}[]:,-?&*!|>'\"%@`#~ \n\t", "\n  ", ": ", "- ", "---\n", "<<: ", "&a ", "*a", "!!binary ", "\\U", "null",
     "pins", "filters", "id", "prefix", "clients", "comment", "until", "1", "é", "\ud800", "\x85", "\ufeff"]
)  # fmt: skip


@st.composite
def overrides_gone_bad(draw: st.DrawFn) -> str:
    text = OVERRIDES
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        text = text[:start] + draw(YAML_BITS) + text[start + draw(st.integers(0, 6)) :]
    return text


@given(st.text(max_size=80) | st.lists(YAML_BITS).map("".join) | overrides_gone_bad())
def test_overrides_are_read_or_have_faults(text: str) -> None:
    faults: tuple[str, ...] = ("x.yaml: none",)
    try:
        file = parse_overrides(text, "x.yaml", "x.yaml")
        assert len({pin.id for pin in file.pins}) == len(file.pins)
    except OverridesInvalid as error:
        faults = error.faults
    assert faults
    assert all(fault.startswith("x.yaml:") and fault.isprintable() for fault in faults)


@settings(max_examples=50)
@given(st.binary(max_size=100) | spoiled(OVERRIDES.encode()))
def test_a_file_of_overrides_is_read_or_has_faults(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "x.yaml").write_bytes(raw)
        reading = read_overrides(Path(directory))
    assert len(reading.files) == (not reading.faults)


# -- the last good -------------------------------------------------------------------------------------------

SESSION = "6b9a7f0e-0000-4000-8000-000000000001"


def registry(*ids: str) -> dict[str, Registration]:
    return {id: registration_of(fields_of(id)) for id in ids}


HISTORY = (registry("a", "b"), registry("a", "b", "c"), registry("a", "c"))
"""What was in force at the serials 1, 2 and 3."""


def last_good(directory: Path) -> LastGood:
    return LastGood(directory, clock=lambda: 5.0, monotonic=lambda: 0.0)


def update(serial: int) -> SourceUpdate:
    """The first is a reading, the others are deltas."""
    after = HISTORY[serial - 1]
    changes = run_slices(changes_in_slices(HISTORY[serial - 2], after)) if serial > 1 else None
    at, before = FeedPosition(SESSION, serial), FeedPosition(SESSION, serial - 1)
    return SourceUpdate("lab", 5.0, registrations=after, changes=changes, position=at, before=before)


def saved() -> bytes:
    """The file of a reading and two deltas."""
    with tempfile.TemporaryDirectory() as directory:
        kept = last_good(Path(directory))
        for serial in (1, 2, 3):
            asyncio.run(kept.save(update(serial)))
        return Path(directory, FILE).read_bytes()


FILE = "registry/lab.sqlite3"
SAVED = saved()


@settings(max_examples=200)
@given(st.binary(max_size=60) | spoiled(SAVED), st.none() | st.binary(max_size=600))
def test_whatever_becomes_of_its_file_the_last_good_is_one_that_was(file: bytes, journal: bytes | None) -> None:
    async def load_and_save(directory: Path) -> Restored:
        kept = last_good(directory)
        found = await kept.load("lab")
        await kept.save(replace(update(3), position=FeedPosition(SESSION, 9), changes=None))
        again = await last_good(directory).load("lab")
        assert (again.registrations, again.damage) == (HISTORY[2], None)
        return found

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, FILE)
        path.parent.mkdir()
        path.write_bytes(file)
        if journal is not None:
            Path(f"{path}-journal").write_bytes(journal)
        restored = asyncio.run(load_and_save(Path(directory)))
    if restored.position is None:
        assert restored.registrations == {}
    else:
        assert restored.registrations == HISTORY[restored.position.serial - 1]
