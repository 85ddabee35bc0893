from __future__ import annotations

from gatewayd.subscribers.sessions.session import Tombstone, Tombstones


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
