"""Counting against a dumb counter over packets: whatever happens between two readings, no flow is lost unsaid.

Elements go when they have counted nothing for an hour; daemons end at any moment, before or after what they read is
on disk; the table is made anew; the disk takes nothing for a time. The oracle counts packets.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gatewayd.compile.rule_sets import COUNTED_TIMEOUT_S
from gatewayd.impact.buckets import bound_prefixes
from gatewayd.impact.counting import Baseline, Counting, Element, PrefixService, Seen, Step
from gatewayd.model.transaction import Counted, CounterReading

KEYS = [bytes((10, 0, number, 0, 17, 0, 0, 0, 0, 53, 0, 0)) for number in range(4)]
ROOM = 3


@dataclass
class Kernel:
    """The set of prefixes, and the total."""

    number: int = 1
    total: int = 0
    unplaced: int = 0
    elements: dict[bytes, tuple[int, float]] = field(default_factory=dict)

    def pass_time(self, now_s: float) -> None:
        self.elements = {key: each for key, each in self.elements.items() if each[1] > now_s}

    def count(self, key: bytes, now_s: float) -> bool:
        """Whether it had a place."""
        self.total += 1
        if key not in self.elements and len(self.elements) >= ROOM:
            self.unplaced += 1
            return False
        self.elements[key] = self.elements.get(key, (0, 0.0))[0] + 1, now_s + COUNTED_TIMEOUT_S
        return True


@dataclass
class Disk:
    """As the store keeps it."""

    baseline: Baseline = field(default_factory=Baseline)
    prefixes: dict[PrefixService, int] = field(default_factory=dict)
    packets: dict[str, int] = field(default_factory=dict)

    def write(self, step: Step) -> None:
        elements: dict[Element, Seen] = {} if step.is_new_table else dict(self.baseline.elements)
        elements.update(step.changed)
        for gone in step.gone:
            elements.pop(gone, None)
        counters = step.counters
        self.baseline = Baseline(counters.incarnation, counters.packets, counters.size_bytes, elements)
        for key, flows in step.prefixes.items():
            self.prefixes[key] = self.prefixes.get(key, 0) + flows
        for name, flows in step.packets.items():
            self.packets[name] = self.packets.get(name, 0) + flows


class CountingMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.kernel = Kernel()
        self.disk = Disk()
        self.counting = Counting()
        self.counting.load(self.disk.baseline)
        self.truth = dict.fromkeys(KEYS, 0)
        self.waiting = dict.fromkeys(KEYS, 0)
        """Flows since the latest reading that is on disk, of elements that may go with them."""
        self.may_be_lost = 0
        self.total_truth = self.read_total = 0
        self.read(keeps=True)

    @rule(key=st.sampled_from(KEYS), flows=st.integers(1, 5))
    def packets(self, key: bytes, flows: int) -> None:
        for _ in range(flows):
            self.total_truth += 1
            if key not in self.kernel.elements:
                # Of an element that came again, what it has now cannot be told from what it had when it was read.
                seen = self.counting.whole().elements.get((0, key))
                self.may_be_lost += self.waiting[key] + (seen.flows if seen else 0)
                self.waiting[key] = 0
            if self.kernel.count(key, self.now_s):
                self.truth[key] += 1
                self.waiting[key] += 1

    @rule(minutes=st.integers(1, 90))
    def time_passes(self, minutes: int) -> None:
        self.now_s += 60.0 * minutes
        self.kernel.pass_time(self.now_s)

    @rule(keeps=st.booleans())
    def read(self, keeps: bool) -> None:
        """`keeps`: what was read goes to disk."""
        incarnation = f"boot:{self.kernel.number}"
        comparison = self.counting.compare(incarnation, self.now_s)
        counters = {
            "unregistered_flows": CounterReading(self.kernel.total, 0),
            "unplaced_flows": CounterReading(self.kernel.unplaced, 0),
        }
        elements = self.kernel.elements.items()
        comparison.take(0, [Counted(key, flows, until_s - self.now_s) for key, (flows, until_s) in elements])
        for _ in comparison.find_gone():
            pass
        step = self.counting.finish(incarnation, comparison, counters)
        if keeps:
            self.disk.write(step)
            self.counting.accept(step)
            self.read_total = self.kernel.total
            self.may_be_lost += sum(self.waiting[key] for key in KEYS if key not in self.kernel.elements)
            self.waiting = dict.fromkeys(KEYS, 0)

    @rule()
    def the_daemon_ends_and_another_begins(self) -> None:
        self.counting = Counting()
        self.counting.load(self.disk.baseline)

    @precondition(lambda self: self.kernel.total == self.read_total)
    @rule()
    def the_table_is_made_anew_after_a_reading(self) -> None:
        self.kernel = Kernel(self.kernel.number + 1)
        self.waiting = dict.fromkeys(KEYS, 0)

    @rule()
    def after_a_reading_the_total_is_that_of_the_packets(self) -> None:
        """And what is missing in a part is no more than what went unread with its element."""
        self.read(keeps=True)
        assert self.disk.packets.get("unregistered_flows", 0) == self.total_truth
        missing = sum(self.truth.values()) - sum(self.disk.prefixes.values())
        assert 0 <= missing <= self.may_be_lost
        self.may_be_lost = missing
        assert self.disk.baseline == self.counting.whole()

    @invariant()
    def no_part_is_more_than_its_packets(self) -> None:
        for key, flows in self.disk.prefixes.items():
            assert flows <= next(count for each, count in self.truth.items() if each[:3] == key.prefix)


TestCounting = CountingMachine.TestCase


@given(
    st.lists(
        st.dictionaries(
            st.builds(
                PrefixService,
                st.sampled_from([bytes((10, 0, each)) for each in range(9)]),
                st.just(6),
                st.integers(1, 2),
            ),
            st.integers(1, 100),
        ),
        max_size=6,
    ),
    st.integers(0, 6),
)
def test_whatever_the_bound_no_flow_of_a_service_is_left_out(
    steps: list[dict[PrefixService, int]], most: int
) -> None:
    kept: dict[PrefixService, int] = {}
    truth: dict[int, int] = {}
    for came in steps:
        for key, flows in bound_prefixes(came, [each for each in kept if each.prefix], most).items():
            kept[key] = kept.get(key, 0) + flows
        for key, flows in came.items():
            truth[key.port] = truth.get(key.port, 0) + flows
    found: dict[int, int] = {}
    for key, flows in kept.items():
        found[key.port] = found.get(key.port, 0) + flows
    assert found == truth
    assert sum(1 for key in kept if key.prefix) <= most
