from __future__ import annotations

import pytest

from gatewayd.allowlist import Radix
from gatewayd.allowlist.radix import CROWD
from gatewayd.model import Prefix, parse_address, parse_prefix


def radix_of(*pairs: tuple[str, object]) -> Radix[object]:
    radix: Radix[object] = Radix()
    for prefix, value in pairs:
        radix.insert(parse_prefix(prefix), value)
    return radix


def covering(radix: Radix[object], address: str) -> list[object]:
    return list(radix.covering(parse_address(address)))


def test_an_empty_radix_covers_nothing() -> None:
    radix = radix_of()
    assert covering(radix, "10.0.0.1") == covering(radix, "2001:db8::1") == []
    assert len(radix) == 0


def test_all_covering_prefixes_are_found_longest_first() -> None:
    radix = radix_of(("10.0.0.0/8", 8), ("10.1.0.0/16", 16), ("10.1.2.0/24", 24), ("10.1.2.3/32", 32))
    assert covering(radix, "10.1.2.3") == [32, 24, 16, 8]
    assert covering(radix, "10.1.9.9") == [16, 8]
    assert covering(radix, "10.200.0.1") == [8]


def test_an_address_whose_leading_bytes_are_in_use_may_still_be_uncovered() -> None:
    assert covering(radix_of(("10.1.2.0/24", 1)), "10.1.3.1") == []


def test_several_values_at_one_prefix_come_in_order_of_insertion() -> None:
    radix = radix_of(("10.1.2.0/24", "b"), ("10.1.2.0/24", "a"), ("10.0.0.0/8", "c"))
    assert covering(radix, "10.1.2.3") == ["b", "a", "c"]
    assert radix.exact(parse_prefix("10.1.2.0/24")) == ("b", "a")
    assert len(radix) == 3


def test_exact_is_no_longest_match() -> None:
    radix = radix_of(("10.0.0.0/8", 8))
    assert radix.exact(parse_prefix("10.0.0.0/8")) == (8,)
    assert radix.exact(parse_prefix("10.1.0.0/16")) == ()


def test_the_families_do_not_see_each_other() -> None:
    radix = radix_of(("32.1.0.0/16", 4), ("2001:db8::/32", 6), ("2001::/16", "wide"))
    assert covering(radix, "32.1.13.184") == [4]
    assert covering(radix, "2001:db8::1") == [6, "wide"]


def test_a_prefix_of_length_zero_covers_all_of_its_family() -> None:
    radix = radix_of()
    for packed in (bytes(4), bytes(16)):
        radix.insert(Prefix(packed, 0), "all")
    assert covering(radix, "255.255.255.255") == covering(radix, "ffff::1") == ["all"]
    for packed in (bytes(4), bytes(16)):
        radix.remove(Prefix(packed, 0), "all")
    assert covering(radix, "255.255.255.255") == covering(radix, "ffff::1") == []


def test_removing_takes_one_value_and_leaves_the_rest() -> None:
    radix = radix_of(("10.0.0.0/8", "outer"), ("10.1.0.0/16", "a"), ("10.1.0.0/16", "b"), ("10.1.0.0/16", "c"))
    radix.remove(parse_prefix("10.1.0.0/16"), "b")
    assert covering(radix, "10.1.0.1") == ["a", "c", "outer"]
    radix.remove(parse_prefix("10.1.0.0/16"), "a")
    assert covering(radix, "10.1.0.1") == ["c", "outer"]
    radix.remove(parse_prefix("10.0.0.0/8"), "outer")
    assert covering(radix, "10.1.0.1") == ["c"]
    assert covering(radix, "10.2.0.1") == []
    radix.remove(parse_prefix("10.1.0.0/16"), "c")
    assert covering(radix, "10.1.0.1") == []
    assert len(radix) == 0


def test_values_are_told_apart_by_identity() -> None:
    one, equal = [1], [1]
    radix = radix_of(("10.0.0.0/8", one))
    with pytest.raises(KeyError, match=r"10\.0\.0\.0/8"):
        radix.remove(parse_prefix("10.0.0.0/8"), equal)
    assert covering(radix, "10.0.0.1") == [one]


def test_removing_what_is_not_there_is_a_bug_and_changes_nothing() -> None:
    radix = radix_of(("10.0.0.0/8", "a"))
    with pytest.raises(KeyError):
        radix.remove(parse_prefix("10.1.0.0/16"), "a")
    assert len(radix) == 1
    assert covering(radix, "10.1.0.1") == ["a"]


def longer(radix: Radix[object], address: str, shortest: int) -> list[object]:
    return list(radix.covering_longer(parse_address(address), shortest))


def test_of_what_covers_an_address_the_longer_prefixes_are_found() -> None:
    radix = radix_of(("10.0.0.0/8", "a"), ("10.1.2.0/24", "b"), ("10.1.2.0/24", "c"), ("10.1.2.7/32", "d"))
    assert longer(radix, "10.1.2.7", 24) == ["d", "b", "c"]
    assert longer(radix, "10.1.2.8", 24) == ["b", "c"]
    assert longer(radix, "10.1.2.8", 25) == []
    assert longer(radix, "10.9.9.9", 9) == []
    assert longer(radix, "11.0.0.1", 1) == []
    assert longer(radix_of(("2001:db8:7::/48", "e")), "2001:db8:7::1", 48) == ["e"]


# -- a crowd at one prefix ---------------------------------------------------------------------------------


class Line:
    """A value with peers."""

    def __init__(self, *peers: str) -> None:
        self.peers = tuple(parse_prefix(each) for each in peers)


def peers_of(line: Line) -> tuple[Prefix, ...]:
    return line.peers


HOME = parse_prefix("203.0.113.0/28")
INSIDE, PEER, STRANGER = (parse_address(each) for each in ("203.0.113.5", "198.51.100.7", "192.0.2.1"))


def crowded(count: int = CROWD + 1) -> tuple[Radix[Line], list[Line]]:
    radix: Radix[Line] = Radix(peers_of)
    lines = [Line(f"198.51.100.{number}/32") for number in range(count)]
    for line in lines:
        radix.insert(HOME, line)
    return radix, lines


def test_of_a_few_at_one_prefix_all_face_an_address_and_of_a_crowd_those_that_may_have_it() -> None:
    radix, lines = crowded(CROWD)
    assert list(radix.facing(INSIDE, PEER)) == lines
    radix, lines = crowded()
    assert list(radix.facing(INSIDE, PEER)) == [lines[7]]
    assert list(radix.facing(INSIDE, STRANGER)) == []
    assert list(radix.facing(STRANGER, PEER)) == list(radix.facing(bytes(16), PEER)) == []
    assert list(radix.covering(INSIDE)) == list(radix.exact(HOME)) == lines
    assert len(radix) == len(lines)


def test_in_a_crowd_those_for_any_peer_and_those_with_several_are_found() -> None:
    radix, lines = crowded()
    several, to_any = Line("198.51.100.0/24", "198.51.100.7/32", "2001:db8::/32"), Line()
    for line in (several, to_any):
        radix.insert(HOME, line)
    assert set(radix.facing(INSIDE, PEER)) == {lines[7], several, to_any}
    assert set(radix.facing(INSIDE, parse_address("2001:db8::1"))) == {several, to_any}
    for line in (several, to_any):
        radix.remove(HOME, line)
    assert set(radix.facing(INSIDE, PEER)) == {lines[7]}


def test_crowds_at_prefixes_within_each_other_are_all_asked() -> None:
    radix, lines = crowded()
    wide = [Line(f"198.51.100.{number}/32") for number in range(CROWD + 1)]
    for line in wide:
        radix.insert(parse_prefix("203.0.113.0/24"), line)
    single = Line("192.0.2.0/24")
    radix.insert(parse_prefix("203.0.113.5/32"), single)
    assert list(radix.facing(INSIDE, PEER)) == [single, lines[7], wide[7]]
    assert list(radix.covering(INSIDE)) == [single, *lines, *wide]


def test_a_crowd_that_shrinks_is_a_few_again_and_goes_with_its_last() -> None:
    radix, lines = crowded()
    with pytest.raises(KeyError):
        radix.remove(HOME, Line())
    for number, line in enumerate(lines, 1):
        radix.remove(HOME, line)
        assert list(radix.covering(INSIDE)) == lines[number:]
        with pytest.raises(KeyError):
            radix.remove(HOME, line)
    assert len(radix) == 0
    assert list(radix.facing(INSIDE, PEER)) == []


def test_without_a_way_to_ask_for_peers_there_is_no_crowd() -> None:
    radix: Radix[Line] = Radix()
    lines = [Line() for _ in range(CROWD + 5)]
    for line in lines:
        radix.insert(HOME, line)
    assert list(radix.facing(INSIDE, PEER)) == lines


def test_a_single_value_and_a_few_face_every_address() -> None:
    radix: Radix[Line] = Radix(peers_of)
    one, two = Line("198.51.100.1/32"), Line("198.51.100.2/32")
    radix.insert(HOME, one)
    assert list(radix.facing(INSIDE, STRANGER)) == [one]
    radix.insert(HOME, two)
    assert list(radix.facing(INSIDE, STRANGER)) == [one, two]
    assert list(radix.facing(parse_address("203.0.114.1"), STRANGER)) == []


def test_around_a_few_all_are_found_and_of_a_crowd_those_that_face_the_other_and_the_first_ones() -> None:
    radix, lines = crowded(CROWD)
    assert list(radix.around(INSIDE, STRANGER, 3)) == lines
    radix, lines = crowded()
    assert list(radix.around(INSIDE, PEER, 3)) == [lines[7], *lines[:3]]
    assert list(radix.around(INSIDE, STRANGER, 3)) == lines[:3]
    to_any = [Line() for _ in range(5)]
    for line in to_any:
        radix.insert(HOME, line)
    assert list(radix.around(INSIDE, PEER, 3)) == [*to_any[:3], *lines[:3]]


def test_around_an_address_longer_prefixes_come_first_and_shorter_ones_while_there_is_room() -> None:
    radix, lines = crowded()
    single, wide = Line("192.0.2.0/24"), Line("192.0.2.0/24")
    radix.insert(parse_prefix("203.0.113.5/32"), single)
    radix.insert(parse_prefix("203.0.113.0/24"), wide)
    assert list(radix.around(INSIDE, PEER, 1)) == [single]
    assert list(radix.around(INSIDE, PEER, 2)) == [single, lines[7], *lines[:2]]
    assert list(radix.around(INSIDE, PEER, 9)) == [single, lines[7], *lines[:9]]
    assert list(radix.around(INSIDE, PEER, 99)) == [single, lines[7], *lines, wide]
    assert list(radix.around(parse_address("203.0.113.77"), PEER, 9)) == [wide]


def test_around_an_address_that_nothing_covers_there_is_nothing() -> None:
    radix, _ = crowded()
    for address in ("203.0.114.1", "192.0.2.1", "2001:db8::1"):
        assert list(radix.around(parse_address(address), PEER, 3)) == []
    assert list(radix.around(INSIDE, PEER, 0)) == []
