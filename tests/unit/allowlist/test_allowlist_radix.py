from __future__ import annotations

import pytest

from gatewayd.allowlist import Radix
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
