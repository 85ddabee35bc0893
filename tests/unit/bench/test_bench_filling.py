"""What the rows about sets are filled with, before anything is measured."""

from __future__ import annotations

import json
from ipaddress import ip_network
from itertools import pairwise

import pytest

from gatewayd.model import parse_prefix
from gatewayd.model.mask import ANY_PEER, Mask
from gatewayd.model.transaction import AddElements
from gatewayd.reconcile.steps import max_keys
from tests.bench import crowdsec
from tests.bench.clock import Ran
from tests.bench.counting import room_for
from tests.bench.filling import figures_of, host_mask, set_name, transactions
from tests.bench.material import disjoint_prefixes, outermost_prefixes
from tests.bench.rows.prefixes import by_mask

MOST = max_keys(4)


def keys(count: int, first: int = 0) -> list[bytes]:
    return [number.to_bytes(4, "big") for number in range(first, first + count)]


@pytest.mark.parametrize("counts", [(1,), (MOST,), (MOST + 1,), (3 * MOST,), (5, MOST - 5), (5, MOST, 7), (0, 3)])
def test_transactions_are_bounded_and_carry_every_element_once(counts: tuple[int, ...]) -> None:
    content = {Mask(4, 32 - place, ANY_PEER, ""): keys(count, place << 24) for place, count in enumerate(counts)}
    made = list(transactions(content))
    assert all(0 < each.count_elements() <= MOST for each in made)
    assert len(made) == -(-sum(counts) // MOST)
    found: dict[str, list[bytes]] = {set_name(mask): [] for mask in content}
    for transaction in made:
        for operation in transaction.operations:
            assert isinstance(operation, AddElements)
            found[operation.set_name] += operation.keys
    assert found == {set_name(mask): several for mask, several in content.items()}


def test_nothing_to_fill_is_no_transaction() -> None:
    assert list(transactions({host_mask(): []})) == []


def test_prefixes_are_sorted_by_length() -> None:
    prefixes = [parse_prefix(each) for each in ("10.0.0.0/8", "192.0.2.1", "198.51.100.0/24", "192.0.2.2")]
    assert {str(mask): len(several) for mask, several in by_mask(prefixes).items()} == {
        "c4_8": 1, "c4_32": 2, "c4_24": 1,
    }  # fmt: skip


def test_the_prefixes_are_as_many_as_asked_for_of_several_lengths_and_none_within_another() -> None:
    prefixes = disjoint_prefixes(2000)
    networks = [ip_network(str(prefix)) for prefix in prefixes]
    networks.sort()
    assert len(networks) == 2000
    assert len({network.prefixlen for network in networks}) > 3
    assert not any(one.overlaps(other) for one, other in pairwise(networks))
    assert disjoint_prefixes(2000) == prefixes


@pytest.mark.parametrize(
    ("count", "text"),
    [(1, "hashsize 64 maxelem 128"), (64, "hashsize 64 maxelem 128"), (1000, "hashsize 1024 maxelem 2000")],
)
def test_an_ipset_has_room_from_the_start(count: int, text: str) -> None:
    assert room_for(count) == text


def test_a_peak_that_was_not_seen_is_left_out() -> None:
    assert figures_of(Ran(0.004, 0.0041)) == {"s": 0.004}
    assert figures_of(Ran(0.5, 12.5)) == {"s": 0.5, "rss_mb": 12.5}


def test_the_stand_in_hands_out_a_ban_for_each_address() -> None:
    answer = json.loads(crowdsec.encode_decisions(["192.0.2.1", "192.0.2.2"]))
    assert [(each["id"], each["value"], each["type"]) for each in answer["new"]] == [
        (1, "192.0.2.1", "ban"), (2, "192.0.2.2", "ban"),
    ]  # fmt: skip
    assert answer["deleted"] is None


def test_outermost_prefixes_leaves_out_what_lies_under_another() -> None:
    texts = ["10.1.0.0/16", "2001:db8::/32", "10.0.0.0/8", "11.0.0.0/24", "2001:db8:1::/48", "10.0.0.0/8"]
    kept = outermost_prefixes(parse_prefix(text) for text in texts)
    assert [str(prefix) for prefix in kept] == ["10.0.0.0/8", "11.0.0.0/24", "2001:db8::/32"]
