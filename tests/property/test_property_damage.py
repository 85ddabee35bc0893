"""What was good and is damaged: a record that can still be told by its id is not lost, and the last good is one
that was. That nothing but declared errors comes out is for tests/fuzz."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.errors import SourceUnusable
from gatewayd.feed.reading import CsvReader, NdjsonReader, ReadLimits
from gatewayd.feed.record import FIELDS, registration_of
from gatewayd.model import Registration
from gatewayd.model.registration import changes_in_slices, run_slices
from gatewayd.sources.last_good import Restored
from gatewayd.sources.last_good_store import LastGood
from gatewayd.sources.update import FeedPosition, SourceUpdate
from tests.support.feeds import fields_of, line_of

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


HEADER = (",".join(FIELDS) + "\n").encode()
NDJSON = b"".join(line_of(fields_of(id)) for id in PREVIOUS)
CSV = HEADER + b"".join(b"%s,bank,active,203.0.113.0/28,,,,,,,,\n" % id.encode() for id in PREVIOUS)


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
