"""Sets for the log: few lengths, a bound, and elements that come and go with the clients that lie in them."""

from __future__ import annotations

import random

import pytest

from gatewayd.compile.desired import Element
from gatewayd.compile.near import LENGTHS, NearClients
from gatewayd.model import Prefix, parse_prefix
from gatewayd.model.mask import ANY_PEER, NEAR, Mask


def prefixes(*words: str) -> list[Prefix]:
    return [parse_prefix(word) for word in words]


def element(word: str) -> Element:
    prefix = parse_prefix(word)
    return Mask(prefix.family, prefix.length, ANY_PEER, NEAR), prefix.packed


def taken(near: NearClients, most: int = 10**6) -> tuple[set[Element], set[Element]]:
    came, went = near.take(most)
    return set(came), set(went)


@pytest.mark.parametrize(
    ("client", "near"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"), ("10.32.0.0/11", "10.0.0.0/8"), ("10.48.0.0/12", "10.48.0.0/12"),
        ("10.49.0.0/16", "10.49.0.0/16"), ("10.49.18.0/23", "10.49.16.0/20"), ("10.49.19.0/24", "10.49.19.0/24"),
        ("10.49.19.24/29", "10.49.19.16/28"), ("10.49.19.16/28", "10.49.19.16/28"),
        ("10.49.19.25/32", "10.49.19.25/32"), ("2400::/16", "2400::/16"),
        ("2400:adc0:12::/48", "2400:adc0:12::/48"), ("2400:adc0:12:3456::/63", "2400:adc0:12:3400::/56"),
        ("2400:adc0:12:3456::9/128", "2400:adc0:12:3456::/64"),
    ],
)  # fmt: skip
def test_a_client_lies_in_the_next_shorter_of_few_lengths(client: str, near: str) -> None:
    sets = NearClients()
    sets.add(prefixes(client))
    assert taken(sets) == ({element(near)}, set())
    assert parse_prefix(near).length in LENGTHS[parse_prefix(near).family]
    sets.remove(prefixes(client))
    assert taken(sets) == (set(), {element(near)})
    assert len(sets) == 0


def test_a_prefix_goes_with_the_last_client_in_it() -> None:
    sets = NearClients()
    sets.add(prefixes("192.0.2.0/29", "192.0.2.8/29"))
    assert taken(sets) == ({element("192.0.2.0/28")}, set())
    sets.remove(prefixes("192.0.2.0/29"))
    assert not sets.has_pending
    sets.remove(prefixes("192.0.2.8/29"))
    assert sets.has_pending
    sets.add(prefixes("192.0.2.0/29"))
    # It went and came again before anybody asked.
    assert not sets.has_pending


def test_changes_are_taken_a_piece_at_a_time() -> None:
    sets = NearClients()
    hosts = [Prefix(bytes((10, 0, 0, number)), 32) for number in range(7)]
    sets.add([*hosts, *prefixes("2400:adc0::/64")])
    came: set[Element] = set()
    for _ in range(4):
        piece, went = taken(sets, 2)
        assert (len(piece), went) == (2, set())
        came |= piece
    assert came == {element(str(each)) for each in (*hosts, *prefixes("2400:adc0::/64"))}
    assert taken(sets) == (set(), set())


def test_past_the_bound_the_longest_are_cut_until_they_are_few() -> None:
    sets, hosts = NearClients(most=4), ("10.0.0.1/32", "10.0.1.1/32", "10.0.2.1/32", "10.0.0.2/32")
    sets.add(Prefix(bytes((10, 0, number, 1)), 32) for number in (0, 1, 2))
    sets.add(prefixes("10.0.0.2/32"))
    assert taken(sets)[0] == {
        element(each) for each in ("10.0.0.1/32", "10.0.1.1/32", "10.0.2.1/32", "10.0.0.2/32")
    }
    sets.add(prefixes("10.0.3.1/32"))
    came, went = taken(sets)
    assert came == {element(f"10.0.{number}.0/28") for number in range(4)}
    assert went == {element(each) for each in hosts}
    # The other family is not concerned.
    sets.add(prefixes("2400:adc0::1/128"))
    assert taken(sets) == ({element("2400:adc0::/64")}, set())
    # And what comes later lies in the shorter ones.
    sets.add(prefixes("10.0.3.7/32"))
    assert not sets.has_pending
    for word in (*hosts, "10.0.3.1/32", "10.0.3.7/32"):
        sets.remove(prefixes(word))
    assert taken(sets)[1] == {element(f"10.0.{number}.0/28") for number in range(4)}


def test_the_shortest_length_is_never_given_up() -> None:
    sets = NearClients(most=1)
    sets.add(prefixes("10.0.0.1/32", "11.0.0.1/32", "12.0.0.1/32"))
    assert taken(sets)[0] == {element(each) for each in ("10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8")}


def test_what_is_there_is_what_a_dumb_count_says() -> None:
    """Clients of all lengths come and go; at the end of each round the elements are those of the clients there."""
    chance = random.Random(7)
    sets, here, there = NearClients(most=50), list[Prefix](), set[Element]()
    for number in range(2000):
        if here and chance.random() < 0.45:
            sets.remove([here.pop(chance.randrange(len(here)))])
        else:
            length = chance.choice([8, 13, 20, 23, 24, 27, 28, 30, 32])
            value = chance.randrange(1 << 8) << 24 | chance.randrange(1 << 24)
            here.append(Prefix((value >> (32 - length) << (32 - length)).to_bytes(4, "big"), length))
            sets.add(here[-1:])
        if number % 50 == 0:
            came, went = taken(sets)
            assert not came & there
            assert went <= there
            there = (there | came) - went
            assert len(there) == len(sets)
            for client in here:
                covering = {(mask.client_length, key) for mask, key in there}
                assert any(Prefix(key, length).covers(client.packed) for length, key in covering)


def test_addresses_of_subscribers_have_a_bound_of_their_own_and_cut_no_registration() -> None:
    sets = NearClients(most=2, max_bound=2)
    sets.add(prefixes("192.0.2.1/32", "192.0.2.2/32"))
    for word in ("10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"):
        sets.add_bound(parse_prefix(word))
    assert sets.unfollowed == 1
    assert taken(sets)[0] == {
        element(each) for each in ("192.0.2.1/32", "192.0.2.2/32", "10.0.0.1/32", "10.0.0.2/32")
    }
    sets.add_bound(parse_prefix("10.0.0.1/32"))
    sets.remove_bound(parse_prefix("10.0.0.1/32"))
    sets.remove_bound(parse_prefix("10.0.0.3/32"))
    assert not sets.has_pending
    sets.remove_bound(parse_prefix("10.0.0.1/32"))
    assert taken(sets) == (set(), {element("10.0.0.1/32")})
    # The room that they had is theirs alone.
    sets.add(prefixes("192.0.2.129/32"))
    assert all(mask.client_length < 32 for mask, _ in taken(sets)[0])
