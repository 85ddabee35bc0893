"""What else goes on in the kernel, said once and kept in view."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gatewayd.doctor.settings_checks import SMALL_SIZE
from gatewayd.errors import DumpInterrupted, EventMalformed
from gatewayd.kernel import external as kernel
from gatewayd.model.transaction import ConntrackSize, Neighbour
from gatewayd.watch.surroundings import RULES_EVERY_S, Surroundings, warnings_of
from tests.support.manual_clock import Time

MASK = 0xFF000000
WRITER = Neighbour("writes", "inet", "a", "c", 3)
LEAKER = Neighbour("leaks", "ip", "mangle", "PREROUTING", 6)


class FakeRules:
    def __init__(self) -> None:
        self.found: tuple[Neighbour, ...] = ()
        self.number = 1
        self.readings = 0
        self.failures = 0
        self.failure: Exception = DumpInterrupted("list rules of all tables")

    async def generation(self) -> int:
        return self.number

    async def neighbours(self) -> tuple[Neighbour, ...]:
        self.readings += 1
        if self.failures:
            self.failures -= 1
            raise self.failure
        return self.found


class Looking:
    def __init__(self, time: Time) -> None:
        self.rules = FakeRules()
        self.size: ConntrackSize | None = ConntrackSize(10, SMALL_SIZE, 0, 0, 0)
        self.surroundings = Surroundings(
            self.rules,
            MASK,
            monotonic=time.clock.monotonic,
            read_size=lambda: self.size,
        )


def look(time: Time, seconds: float, change: Any) -> Looking:
    """Run for so long; `change` is told each second of it."""
    it = Looking(time)

    async def run() -> None:
        task = asyncio.ensure_future(it.surroundings.run())
        try:
            for second in range(int(seconds)):
                change(it, second)
                await asyncio.sleep(1)
        finally:
            task.cancel()

    time.run(run())
    return it


def test_rules_are_listed_when_something_was_committed_and_at_most_once_a_minute() -> None:
    with Time() as time:

        def change(it: Looking, second: int) -> None:
            if 200 <= second < 400:
                it.rules.number += 1

        it = look(time, 600, change)
        assert 1 + 200 // RULES_EVERY_S <= it.rules.readings <= 2 + 200 // RULES_EVERY_S + 1


def test_neighbours_are_said_when_they_change_and_when_they_are_gone(caplog: pytest.LogCaptureFixture) -> None:
    with Time() as time, caplog.at_level("INFO"):

        def change(it: Looking, second: int) -> None:
            if second == 100:
                it.rules.found, it.rules.number = (WRITER, WRITER, LEAKER), 2
            elif second == 300:
                assert it.surroundings.neighbours == (WRITER, WRITER, LEAKER)
                it.rules.found, it.rules.number = (), 3

        it = look(time, 500, change)
        assert it.surroundings.neighbours == ()
    assert [record.getMessage() for record in caplog.records] == [
        "neighbours.found", "neighbours.found", "neighbours.gone",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "failure", [DumpInterrupted("list rules of all tables"), EventMalformed("netlink message", "length 3")]
)
def test_a_failure_leaves_what_was_found_and_is_tried_again(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with Time() as time:

        def change(it: Looking, second: int) -> None:
            if second == 0:
                it.rules.found, it.rules.failure = (WRITER,), failure
            elif second == 100:
                it.rules.number, it.rules.failures, it.rules.found = 2, 1, ()
            elif second == 130:
                assert it.surroundings.neighbours == (WRITER,)

        assert look(time, 300, change).surroundings.neighbours == ()
    assert [each.getMessage() for each in caplog.records].count("neighbours.failed") == 1


def test_a_small_table_is_said_once_and_a_full_one_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    with Time() as time, caplog.at_level("INFO"):

        def change(it: Looking, second: int) -> None:
            entries = 900 if 100 <= second < 2000 else 10
            it.size = None if second < 20 else ConntrackSize(entries, 1000, 0, 0, 0)

        look(time, 2500, change)
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "conntrack.small"
    assert set(said[1:]) == {"conntrack.filling"}
    assert 3 <= len(said[1:]) <= 4


def test_dropped_packets_are_said_when_they_rise(caplog: pytest.LogCaptureFixture) -> None:
    with Time() as time, caplog.at_level("INFO"):

        def change(it: Looking, second: int) -> None:
            it.size = ConntrackSize(10, SMALL_SIZE, 5 if second < 50 else 9, 0, 0)

        look(time, 100, change)
    assert [record.getMessage() for record in caplog.records] == ["conntrack.dropping"]


@pytest.mark.parametrize(
    ("neighbours", "size", "beginnings"),
    [
        ((), None, []),
        ((), ConntrackSize(1, SMALL_SIZE), []),
        ((WRITER,), None, ["a rule of another program (inet a c handle 3) sets the ct mark over our bits"]),
        ((WRITER, WRITER), None, ["2 rules of other programs (the first is inet a c handle 3) set the ct mark"]),
        (
            (LEAKER, WRITER), ConntrackSize(900, 1000),
            ["a rule", "connection tracking is 90% full", "a rule of another program (ip mangle", "net."],
        ),
    ],
)  # fmt: skip
def test_warnings_are_sentences_and_the_worst_is_first(
    neighbours: tuple[Neighbour, ...], size: ConntrackSize | None, beginnings: list[str]
) -> None:
    found = warnings_of(neighbours, size, MASK)
    assert len(found) == len(beginnings)
    for sentence, beginning in zip(found, beginnings, strict=True):
        assert sentence.startswith(beginning)


STATISTICS = """\
entries  clashres found insert_failed drop early_drop
00000010  00000000 00000001 0000000a 00000002 00000001
00000010  00000000 00000001 00000001 00000003 00000000
"""


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kernel, "_SETTINGS", tmp_path)
    monkeypatch.setattr(kernel, "_STATISTICS", tmp_path / "stat")
    return tmp_path


def test_the_size_is_read_from_proc(proc: Path) -> None:
    assert kernel.read_conntrack_size() is None
    (proc / "nf_conntrack_max").write_text("1000\n")
    assert kernel.read_conntrack_size() is None
    (proc / "nf_conntrack_count").write_text("250\n")
    assert kernel.read_conntrack_size() == ConntrackSize(250, 1000)
    (proc / "stat").write_text(STATISTICS)
    found = kernel.read_conntrack_size()
    assert found == ConntrackSize(250, 1000, dropped=5, insert_failed=11, early_dropped=1)
    assert found.fill == 0.25
    assert ConntrackSize(1, 0).fill == 0
    (proc / "stat").write_text("drop\nnot a number\n")
    assert kernel.read_conntrack_size() == ConntrackSize(250, 1000)
    (proc / "stat").write_text("")
    assert kernel.read_conntrack_size() == ConntrackSize(250, 1000)
