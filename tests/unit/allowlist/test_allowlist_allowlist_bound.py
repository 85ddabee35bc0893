from __future__ import annotations

import pytest

from gatewayd.allowlist import Allowlist, BindingTable
from gatewayd.allowlist.allowlist import MAX_SHARING, piece_of
from gatewayd.model import Binding, Flow, Registration, parse_address, parse_prefix

ALI, BANO = b"\1" * 32, b"\2" * 32
HOME = parse_prefix("10.1.2.3/32")
ADDRESS = parse_address("10.1.2.3")


def mobile(id: str = "PK-1", subscriber: bytes | None = ALI) -> Registration:
    return Registration(id, "freelancer", "active", (), subscriber=subscriber)


def binding(
    subscriber: bytes = ALI, prefix: str = "10.1.2.3/32", ports: tuple[int, int] | None = None, confirmed: float = 2
) -> Binding:
    return Binding(
        subscriber=subscriber,
        prefix=parse_prefix(prefix),
        ports=ports,
        since_s=1.0,
        confirmed_s=confirmed,
        nas="bng-1",
        session="s1",
    )


def test_a_binding_is_found_by_address_by_subscriber_and_by_its_place() -> None:
    table = BindingTable()
    one = binding()
    table.put(one)
    assert table.covering(ADDRESS) == table.of(ALI) == (one,)
    assert table.covering(parse_address("10.1.2.4")) == table.of(BANO) == ()
    assert table.get(ALI, HOME, None) is one
    assert table.get(ALI, HOME, (1024, 2047)) is table.get(BANO, HOME, None) is None
    assert list(table) == [one]
    assert len(table) == table.size == 1


def test_all_bindings_that_cover_an_address_are_found_longest_first() -> None:
    table = BindingTable()
    host, site, net = (binding(prefix=each) for each in ("2001:db8::1/128", "2001:db8::/56", "2001:db8::/64"))
    for each in (site, host, net):
        table.put(each)
    assert list(table.covering(parse_address("2001:db8::1"))) == [host, net, site]
    assert table.covering(parse_address("2001:db8:0:1::1")) == (site,)


def test_one_address_has_room_for_many_blocks_and_subscribers() -> None:
    table = BindingTable()
    blocks = [
        binding(ALI, ports=(1024, 2047)),
        binding(ALI, ports=(2048, 3071)),
        binding(BANO, ports=(4096, 5119)),
        binding(BANO),
    ]
    for each in blocks:
        table.put(each)
    assert table.covering(ADDRESS) == tuple(blocks)
    table.remove(blocks[0])
    assert table.covering(ADDRESS) == tuple(blocks[1:])
    assert table.of(ALI) == (blocks[1],)


def test_what_is_taken_away_leaves_nothing_behind() -> None:
    table = BindingTable()
    one = binding()
    table.put(one)
    for other in (binding(ports=(1024, 2047)), binding(BANO), binding()):
        with pytest.raises(KeyError):
            table.remove(other)
    assert table.covering(ADDRESS) == (one,), "it is told from others by identity"
    table.remove(one)
    assert table.covering(ADDRESS) == table.of(ALI) == ()
    assert list(table) == []
    assert len(table) == 0


def test_many_blocks_of_an_address_are_found_by_the_port() -> None:
    table = BindingTable()
    blocks = [binding(ports=(low, low + 99)) for low in range(1024, 65436, 100)]
    for each in blocks:
        table.put(each)
    assert len(blocks) > MAX_SHARING
    found = table.facing(ADDRESS, piece_of(30000))
    assert blocks[(30000 - 1024) // 100] in found
    assert len(found) < 20


def test_at_an_address_that_very_many_share_bindings_are_found_by_the_port() -> None:
    allowlist = Allowlist()
    allowlist.upsert(mobile("PK-1"))
    allowlist.upsert(mobile("PK-2", BANO))
    size = 126
    blocks = [binding(ALI, ports=(low, low + size - 1)) for low in range(1024, 65536 - size, size)]
    whole, own = binding(BANO), binding(BANO, ports=(0, 1023))
    for each in (*blocks, whole, own):
        allowlist.bindings.put(each)
    assert len(blocks) > MAX_SHARING
    for port in (0, 500, 1023, 1024, 2047, 2048, 30000, 65000, 65535):
        found = allowlist.bindings_facing(ADDRESS, port)
        having = {id(each) for each in (*blocks, own) if each.ports and each.ports[0] <= port <= each.ports[1]}
        assert having <= {id(each) for each in found}
        assert whole in found
        assert len(found) <= 12
        flow = Flow(17, ADDRESS, parse_address("192.0.2.1"), port, 51820)
        expected = {"PK-2"} | ({"PK-1"} if 1024 <= port < blocks[-1].ports[1] + 1 else set())  # type: ignore[index]
        assert {each.id for each in allowlist.matching(flow, 0.0)} == expected
    assert len(allowlist.bindings_at(ADDRESS)) == len(blocks) + 2
    for each in blocks:
        allowlist.bindings.remove(each)
    assert list(allowlist.bindings_facing(ADDRESS, 30000)) == [whole, own]


def test_bindings_of_few_that_share_an_address_are_found_whatever_the_port() -> None:
    allowlist = Allowlist()
    one, two = binding(ALI, ports=(1024, 2047)), binding(BANO, ports=(2048, 4095))
    for each in (one, two):
        allowlist.bindings.put(each)
    assert list(allowlist.bindings_facing(ADDRESS, 9)) == [one, two]
