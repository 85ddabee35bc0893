from __future__ import annotations

import tracemalloc

import pytest

from gatewayd.subscribers.sessions.tombstones import Tombstone, Tombstones, short_id


def test_of_two_ends_the_later_counts() -> None:
    stones: Tombstones[str] = Tombstones(keep_s=100, most=9)
    stones.bury("a", 10, 1000)
    stones.bury("b", 11, 1001)
    assert stones.next_due() == 1100
    stones.bury("a", 5, 1002)
    assert stones.get("a") == Tombstone(10, 1002)
    assert stones.next_due() == 1101


def test_it_says_when_the_thing_was_last_somebody_elses() -> None:
    stones: Tombstones[str] = Tombstones(keep_s=100, most=9)
    for at_s, subscriber in ((20, b"A"), (10, b"B"), (15, b"A"), (5, b"C")):
        stones.bury("a", at_s, 1000, subscriber)
    stone = stones.get("a")
    assert stone is not None
    assert [stone.last_but_of(subscriber) for subscriber in (b"A", b"B", None)] == [10, 20, 20]
    stones.bury("a", 30, 1000, b"B")
    assert stones.get("a") == Tombstone(30, 1000, b"B", 20)


def test_a_tombstone_is_forgotten_when_its_time_is_over() -> None:
    stones: Tombstones[str] = Tombstones(keep_s=100, most=9)
    for number in range(5):
        stones.bury(str(number), 10, 1000 + number)
    stones.prune(1099, 9)
    assert len(stones) == 5
    stones.prune(1104, 2)
    assert len(stones) == 3
    stones.bury("5", 10, 1104)
    assert len(stones) == 2, "burying prunes as it goes"
    stones.prune(1300, 9)
    assert stones.next_due() is None
    assert stones.lost == 0


def test_beyond_the_bound_the_oldest_goes_first_and_is_counted() -> None:
    stones: Tombstones[str] = Tombstones(keep_s=100, most=2)
    for number in range(3):
        stones.bury(str(number), 10, 1000)
    assert stones.get("0") is None
    assert len(stones) == 2
    assert stones.lost == 1


def test_the_keys_of_those_that_go_are_told() -> None:
    gone: list[str] = []
    stones: Tombstones[str] = Tombstones(keep_s=100, most=1, on_forgotten=gone.append)
    stones.bury("a", 10, 1000)
    stones.bury("b", 10, 1000)
    stones.drop("b")
    stones.drop("never there")
    assert gone == ["a"], "a dropped one is not told"


def test_those_of_before_a_restart_are_put_back_within_the_bound() -> None:
    stones: Tombstones[str] = Tombstones(keep_s=100, most=1)
    for key in "ab":
        stones.put_back(key, Tombstone(10, 1000))
    assert (stones.get("a"), stones.get("b"), stones.lost) == (None, Tombstone(10, 1000), 1)
    assert not stones.is_over(Tombstone(10, 1000), 1099)
    assert stones.is_over(Tombstone(10, 1000), 1100)


@pytest.mark.parametrize("id", ["", "8a01", "x" * 32])
def test_a_short_session_id_stands_for_itself(id: str) -> None:
    assert short_id(id) == id


@pytest.mark.parametrize("id", ["x" * 33, "ä", "x" * 253])
def test_a_long_session_id_has_a_digest_of_its_own(id: str) -> None:
    assert len(short_id(id)) == 32
    assert short_id(id) != short_id(id + "x")


@pytest.mark.parametrize("length", [8, 32, 253])
def test_a_tombstone_takes_500_bytes_at_most_whatever_the_session_id(length: int) -> None:
    count = 20_000
    tracemalloc.start()
    try:
        stones: Tombstones[tuple[str, str]] = Tombstones(keep_s=900, most=count)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            session = str(number).rjust(length, "x")
            stones.bury(
                ("bng1", short_id(session)), number + 0.5, number / count + 0.25, number.to_bytes(32, "big")
            )
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(stones) == count
    assert (after - before) / count <= 500
