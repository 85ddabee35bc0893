"""What a start finds of bindings and nothing explains."""

from __future__ import annotations

from gatewayd.compile.masks import compile_bound
from gatewayd.model.prefix import parse_prefix
from gatewayd.reconcile.findings import Leftovers, place_of
from tests.support.reconciling import bound_at, subscribed

ALI = subscribed("ALI", services=("udp/51820",))


def test_the_place_of_an_element_is_that_of_its_binding() -> None:
    for prefix, ports in (("100.64.0.1", None), ("2001:db8::/56", None), ("203.0.113.7", (2048, 2303))):
        for mask, key in compile_bound(bound_at(ALI, prefix, ports)):
            assert place_of(mask, key) == (parse_prefix(prefix), ports)


def test_what_is_at_an_address_goes_together_and_of_ports_those_that_overlap() -> None:
    left = Leftovers()
    assert not left
    whole = compile_bound(bound_at(ALI, "100.64.0.1")) + compile_bound(bound_at(ALI, "100.64.0.2"))
    blocks = compile_bound(bound_at(ALI, "203.0.113.7", (1024, 1279))) + compile_bound(
        bound_at(ALI, "203.0.113.7", (2048, 2303))
    )
    for mask, key in whole + blocks:
        left.add(mask, key)
    assert len(left) == 4
    assert left.masks() == {mask for mask, _ in whole + blocks}
    assert left.drop_at(parse_prefix("100.64.0.1"), None) == 1
    assert left.drop_at(parse_prefix("100.64.0.9"), None) == 0
    assert left.drop_at(parse_prefix("203.0.113.7"), (2100, 2110)) == 1
    assert left.drop_at(parse_prefix("203.0.113.7"), (2100, 2110)) == 0
    assert left.drop_at(parse_prefix("203.0.113.7"), None) == 1
    mask, key = whole[1]
    assert left.of(mask) == {key}
    left.drop(mask, key)
    left.drop(mask, key)
    assert not left
    assert left.of(mask) == set()


def test_a_prefix_that_is_in_the_kernel_in_pieces_goes_whole() -> None:
    left = Leftovers()
    for piece in ("2001:db8:0:10::/64", "2001:db8:0:1f::/64", "2001:db8:0:20::/64"):
        for mask, key in compile_bound(bound_at(ALI, piece)):
            left.add(mask, key)
    assert left.drop_at(parse_prefix("2001:db8:0:10::/60"), None) == 2
    assert left.drop_at(parse_prefix("2001:db8:0:20::/64"), None) == 1
    assert not left
