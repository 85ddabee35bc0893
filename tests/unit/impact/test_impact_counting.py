"""Counters read again and again, and what came since."""

from __future__ import annotations

import pytest

from gatewayd.compile.rule_sets import COUNTED_SETS
from gatewayd.compile.ruleset import COUNTERS
from gatewayd.impact import counting as module
from gatewayd.impact.counting import NAMES, SETS, Baseline, Counting, PrefixService, Seen, ServiceBucket, Step
from gatewayd.model.transaction import Counted, CounterReading

BOOT = "boot:1"
HOUR_S = 3600.0
FOUR, SIX, SERVICE, INTERFACE = range(4)


def key4(third: int, protocol: int = 17, port: int = 51820) -> bytes:
    return bytes((10, 0, third, 0)) + bytes((protocol, 0, 0, 0)) + port.to_bytes(2, "big") + bytes(2)


def key_service(port: int, bucket: int) -> bytes:
    return bytes((17, 0, 0, 0)) + port.to_bytes(2, "big") + bytes(2) + bytes((bucket, 0, 0, 0))


KEY6 = bytes.fromhex("20010db8000c") + bytes(10) + bytes((50, 0, 0, 0)) + bytes(4)


def counters(**packets: int) -> dict[str, CounterReading]:
    return {name: CounterReading(packets.get(name, 0), packets.get(name, 0) * 60) for name in NAMES}


def read(
    counting: Counting,
    now_s: float,
    elements: dict[tuple[int, bytes], tuple[int, float]],
    *,
    flows: int = 0,
    incarnation: str = BOOT,
    is_counted: bool = True,
) -> Step:
    """A reading; elements with their flows and when they go."""
    comparison = counting.compare(incarnation, now_s)
    for (number, key), (count, expires_s) in elements.items():
        comparison.take(number, [Counted(key, count, expires_s - now_s)])
    for _ in comparison.find_gone():
        pass
    return counting.finish(incarnation, comparison, counters(unregistered_flows=flows), is_counted=is_counted)


def begun(elements: dict[tuple[int, bytes], tuple[int, float]] | None = None, flows: int = 0) -> Counting:
    counting = Counting()
    counting.load(Baseline())
    counting.accept(read(counting, 0.0, elements or {}, flows=flows))
    return counting


def test_the_sets_and_counters_are_those_of_the_rules() -> None:
    assert set(SETS) == set(COUNTED_SETS)
    assert set(NAMES) <= set(COUNTERS)


def test_what_the_counters_had_before_the_first_reading_is_not_counted() -> None:
    counting = Counting()
    counting.load(Baseline())
    step = read(counting, 0.0, {(FOUR, key4(1)): (9, HOUR_S)}, flows=9)
    assert step.begins
    assert not step.prefixes
    assert not step.packets
    counting.accept(step)
    later = read(counting, 60.0, {(FOUR, key4(1)): (12, HOUR_S + 50)}, flows=12)
    assert later.prefixes == {PrefixService(bytes((10, 0, 1)), 17, 51820): 3}
    assert later.packets == {"unregistered_flows": 3}
    assert later.size_bytes == {"unregistered_flows": 180}


def test_keys_are_read_as_the_kernel_has_them() -> None:
    step = read(
        begun(),
        60.0,
        {
            (FOUR, key4(7, 6, 1194)): (1, HOUR_S),
            (SIX, KEY6): (2, HOUR_S),
            (SERVICE, key_service(1194, 99)): (3, HOUR_S),
            (INTERFACE, b"ppp17".ljust(16, b"\0")): (4, HOUR_S),
        },
    )
    assert step.prefixes == {
        PrefixService(bytes((10, 0, 7)), 6, 1194): 1,
        PrefixService(bytes.fromhex("20010db8000c"), 50, 0): 2,
    }
    assert step.services == {ServiceBucket(17, 1194, 99): 3}
    assert step.interfaces == {"ppp17": 4}


def test_nothing_is_taken_as_counted_before_it_is_accepted() -> None:
    counting = begun()
    elements = {(FOUR, key4(1)): (5, HOUR_S)}
    assert read(counting, 60.0, elements, flows=5).prefixes == read(counting, 60.0, elements, flows=5).prefixes
    counting.accept(read(counting, 60.0, elements, flows=5))
    step = read(counting, 120.0, elements, flows=5)
    assert not step.prefixes
    assert not step.packets
    assert not step.changed


def test_a_counter_that_is_less_than_before_began_again() -> None:
    counting = begun({(FOUR, key4(1)): (10, HOUR_S)}, flows=10)
    step = read(counting, 2 * HOUR_S, {(FOUR, key4(1)): (4, 3 * HOUR_S)}, flows=3)
    assert list(step.prefixes.values()) == [4]
    assert step.packets == {"unregistered_flows": 3}


def test_as_many_as_before_in_another_hour_are_others() -> None:
    counting = begun({(FOUR, key4(1)): (4, HOUR_S)})
    assert not read(counting, 60.0, {(FOUR, key4(1)): (4, HOUR_S + 1)}).prefixes
    step = read(counting, HOUR_S + 60, {(FOUR, key4(1)): (4, 2 * HOUR_S)})
    assert list(step.prefixes.values()) == [4]


def test_an_element_that_comes_twice_in_a_reading_counts_as_it_came_last() -> None:
    counting = begun()
    comparison = counting.compare(BOOT, 60.0)
    comparison.take(FOUR, [Counted(key4(1), 5, HOUR_S), Counted(key4(2), 1, HOUR_S), Counted(key4(1), 6, HOUR_S)])
    step = counting.finish(BOOT, comparison, counters())
    assert sorted(step.prefixes.values()) == [1, 6]


def test_an_element_that_a_reading_leaves_out_is_not_forgotten_before_its_time() -> None:
    counting = begun({(FOUR, key4(1)): (4, HOUR_S)})
    counting.accept(read(counting, 60.0, {}))
    assert len(counting) == 1
    step = read(counting, 120.0, {(FOUR, key4(1)): (6, HOUR_S + 100)})
    assert list(step.prefixes.values()) == [2]
    step = read(counting, HOUR_S + 61, {})
    assert step.gone == [(FOUR, key4(1))]
    counting.accept(step)
    assert len(counting) == 0
    counting.accept(step)


def test_what_came_again_is_not_gone() -> None:
    counting = begun({(FOUR, key4(1)): (4, HOUR_S)})
    step = read(counting, 2 * HOUR_S, {(FOUR, key4(1)): (1, 3 * HOUR_S)})
    assert step.gone == []


def test_another_table_counts_from_zero() -> None:
    counting = begun({(FOUR, key4(1)): (4, HOUR_S), (FOUR, key4(2)): (1, HOUR_S)}, flows=5)
    step = read(counting, 60.0, {(FOUR, key4(1)): (9, HOUR_S)}, flows=9, incarnation="boot:2")
    assert step.is_new_table
    assert not step.begins
    assert list(step.prefixes.values()) == [9]
    assert step.packets == {"unregistered_flows": 9}
    counting.accept(step)
    assert (counting.incarnation, len(counting)) == ("boot:2", 1)


def test_another_daemon_goes_on_from_what_is_on_disk() -> None:
    first = begun({(FOUR, key4(1)): (4, HOUR_S)}, flows=4)
    baseline = first.whole()
    assert baseline == Baseline(
        BOOT,
        {name: 4 if name == "unregistered_flows" else 0 for name in NAMES},
        {name: 240 if name == "unregistered_flows" else 0 for name in NAMES},
        {(FOUR, key4(1)): Seen(4, HOUR_S)},
    )
    second = Counting()
    second.load(baseline)
    step = read(second, 60.0, {(FOUR, key4(1)): (7, HOUR_S + 30)}, flows=7)
    assert list(step.prefixes.values()) == [3]
    assert step.packets == {"unregistered_flows": 3}


def test_while_flows_are_not_counted_what_the_rules_count_besides_is_left_out() -> None:
    counting = begun(flows=5)
    step = read(counting, 60.0, {}, flows=50, is_counted=False)
    assert not step.packets
    counting.accept(step)
    assert read(counting, 120.0, {}, flows=51).packets == {"unregistered_flows": 1}


@pytest.mark.parametrize("name", NAMES)
def test_a_counter_that_the_kernel_does_not_have_is_none(name: str) -> None:
    counting = begun()
    some = {each: reading for each, reading in counters().items() if each != name}
    step = counting.finish(BOOT, counting.compare(BOOT, 60.0), some)
    assert name not in step.counters.packets


def test_a_large_baseline_is_looked_at_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", 2)
    counting = begun({(FOUR, key4(number)): (1, HOUR_S) for number in range(5)})
    comparison = counting.compare(BOOT, 3 * HOUR_S)
    assert len(list(comparison.find_gone())) == 2
    assert len(comparison.gone) == 5
