"""Rulesets from one network namespace to another: what the kernel lists there is what it listed here."""

from __future__ import annotations

import asyncio
from struct import pack

import pytest

from gatewayd.errors import EventMalformed
from gatewayd.kernel import attributes as nl
from gatewayd.kernel.netlink import NetlinkChannel
from gatewayd.kernel.tables_codec import BATCH_BEGIN, BATCH_END, GETSETELEM, NEWRULE, SUBSYSTEM
from gatewayd.lab.namespace import Namespace
from gatewayd.passage.copying import (
    DOUBTS,
    KINDS,
    Listed,
    Place,
    Ruleset,
    base_chain_of,
    by_place,
    expressions_of,
    is_allowlist,
    is_left_empty,
    own_tables,
    protocol_of,
    read_listed,
    request_of,
    select,
)

TAG = "gatewayd epoch=1 mode=reject policy=0123456789abcdef rules=0123456789abcdef"
RULES = f"""
table inet gatewayd {{
	set c4_32 {{
		type ipv4_addr
		elements = {{ 39.32.0.1 }}
	}}
	chain forward {{
		type filter hook forward priority -10; policy accept;
		ip saddr @c4_32 accept comment "{TAG}"
		reject with icmpx admin-prohibited
	}}
}}
table inet fw {{
	set bad {{
		type ipv4_addr
		flags interval
		elements = {{ 10.0.0.0/8, 198.51.100.0/24 }}
	}}
	set seen {{
		type ipv4_addr . inet_service
		size 100
		flags dynamic,timeout
		timeout 1m
	}}
	counter hits {{
	}}
	chain web {{
		counter accept
	}}
	map ways {{
		type inet_service : verdict
		elements = {{ 22 : drop, 80 : jump web }}
	}}
	chain f {{
		type filter hook forward priority 5; policy drop;
		ip saddr @bad drop
		add @seen {{ ip saddr . tcp dport limit rate 5/second }}
		tcp dport vmap @ways
		udp dport {{ 53, 51820-51830 }} counter name hits accept
		meta iif 1 drop
		ct state new jump {{
			ip6 saddr 2001:db8::1 drop
		}}
		ip saddr . tcp dport {{ 192.0.2.1 . 5 }} accept
	}}
}}
table ip nat {{
	chain pre {{
		type nat hook prerouting priority -100;
		tcp dport 8080 dnat to 10.0.0.5:80
	}}
}}
table netdev edge {{
	chain both {{
		type filter hook ingress devices = {{ in0, out0 }} priority 0;
		ip saddr 192.0.2.9 drop
	}}
	chain one {{
		type filter hook ingress device "in0" priority 5;
	}}
	chain other {{
		type filter hook ingress device "other0" priority 0;
		drop
	}}
}}
table arp a {{
	chain f {{
		type filter hook input priority 0;
	}}
}}
"""
IPTABLES = (
    ["-A", "FORWARD", "-p", "tcp", "-m", "multiport", "--dports", "1,2", "-j", "DROP"],
    ["-A", "FORWARD", "-m", "addrtype", "--dst-type", "BROADCAST", "-j", "DROP"],
)


async def list_all(channel: NetlinkChannel, kind: str, of: Listed | None = None) -> tuple[Listed, ...]:
    sequence = channel.take_sequences(1)
    number = KINDS[kind] if of is None else GETSETELEM
    names = () if of is None else (nl.attribute(1, of.get(1)), nl.attribute(2, of.get(2)))
    request = nl.message(
        number, nl.NLM_F_REQUEST | nl.NLM_F_DUMP, sequence, 0 if of is None else of.family, 0, *names
    )
    return tuple(
        [each async for datagram in channel.dump(request, sequence, kind) for each in read_listed(kind, datagram)]
    )


async def read(namespace: Namespace) -> Ruleset:
    with namespace.entered():
        channel = NetlinkChannel.open()
    listed = {kind: await list_all(channel, kind) for kind in KINDS}
    elements = {each.place: await list_all(channel, "elements", each) for each in listed["set"]}
    channel.close()
    return Ruleset(listed, elements)


async def make(namespace: Namespace, objects: tuple[Listed, ...], devices: frozenset[str]) -> None:
    with namespace.entered():
        channel = NetlinkChannel.open()
    for each in objects:
        number = channel.take_sequences(1)
        begin, end = (nl.message(kind, 1, number, 0, SUBSYSTEM >> 8) for kind in (BATCH_BEGIN, BATCH_END))
        request = begin + request_of(each, number, devices, is_last=True) + end
        await channel.exchange(request, number, number, f"make {each.kind} {each.place}")
    channel.close()


def host() -> Namespace:
    namespace = Namespace("host")
    for name in ("in0", "out0", "other0"):
        namespace.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-peer"])
    namespace.nft(RULES)
    for command in IPTABLES:
        namespace.run(["iptables-nft", *command])
    return namespace


@pytest.mark.kernel
def test_a_copy_is_listed_as_the_host_is() -> None:
    async def copy() -> None:
        with host() as here, Namespace("copy") as there:
            there.run(["ip", "link", "add", "in0", "type", "veth", "peer", "name", "peer"])
            whole = await read(here)
            devices = frozenset({"in0"})
            wanted = select(whole, devices, is_ipv6=False)
            listed = wanted.listed
            messages = tuple(each for found in wanted.elements.values() for each in found)
            for objects in (
                listed["table"],
                listed["chain"],
                listed["set"],
                listed["object"],
                messages,
                listed["rule"],
            ):
                await make(there, objects, devices)
            found = await read(there)
            assert [each.place for each in found.listed["rule"]] == [each.place for each in listed["rule"]]
            assert list(map(_shown, found.listed["rule"])) == list(map(_shown, listed["rule"]))
            assert set(found.elements) == set(wanted.elements)
            for place, elements in wanted.elements.items():
                assert _keys(found.elements[place]) == _keys(elements), place
            bases = [base for base in map(base_chain_of, found.listed["chain"]) if base is not None]
            assert {
                (each.place.table, each.place.chain, each.hook, each.priority, each.devices) for each in bases
            } == {
                ("gatewayd", "forward", "forward", -10, ()),
                ("fw", "f", "forward", 5, ()),
                ("nat", "pre", "prerouting", -100, ()),
                ("filter", "FORWARD", "forward", 0, ()),
                ("edge", "both", "ingress", 0, ("in0",)),
                ("edge", "one", "ingress", 5, ("in0",)),
            }
            iptables = ["iptables-nft", "-S"]
            assert there.run(iptables).stdout == here.run(iptables).stdout

    asyncio.run(copy())


def _keys(messages: tuple[Listed, ...]) -> list[bytes]:
    """Elements, in an order of ours: that of a hash is its own."""
    lists = [each.get(3) for each in messages]
    return sorted(raw[low:high] for raw in lists for _, low, high in nl.iter_attributes(raw, 0, len(raw)))


def _shown(rule: Listed) -> tuple[Place, list[tuple[str, bytes]]]:
    """Without the counts of counters and the state of limits."""
    return rule.place, [
        (name, b"" if name in ("counter", "dynset", "limit") else content)
        for name, _, content in expressions_of(rule)
    ]


@pytest.mark.kernel
def test_both_devices_of_a_chain_are_kept_where_both_are_there() -> None:
    async def copy() -> None:
        with host() as here:
            listed = select(await read(here), frozenset({"in0", "out0"}), is_ipv6=True).listed
            (chain,) = (each for each in listed["chain"] if each.name == "both")
            with Namespace("copy") as there:
                for name in ("in0", "out0"):
                    there.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-peer"])
                tables = tuple(each for each in listed["table"] if each.table == "edge")
                await make(there, (*tables, chain), frozenset({"in0", "out0"}))
                (found,) = (await read(there)).listed["chain"]
                base = base_chain_of(found)
                assert base is not None
                assert set(base.devices) == {"in0", "out0"}

    asyncio.run(copy())


@pytest.mark.kernel
def test_our_tables_are_known_by_their_rules_and_sets_by_their_names() -> None:
    async def look() -> None:
        with host() as here:
            ruleset = await read(here)
            assert own_tables(ruleset.listed["rule"]) == {(1, "gatewayd")}
            ours = {place.chain: is_allowlist(place) for place in ruleset.elements if place.table == "gatewayd"}
            assert ours == {"c4_32": True}
            chains = by_place(ruleset.listed["rule"])
            assert len(chains[Place(1, "fw", "f")]) == 7
            assert str(Place(1, "fw", "f")) == "inet fw f"
            names = {each.name for rule in ruleset.listed["rule"] for each in expressions_of(rule)}
            assert {"multiport", "addrtype", "lookup", "reject"} <= names
            protocols = {protocol_of(rule) for rule in ruleset.listed["rule"] if rule.table == "filter"}
            assert protocols == {0, 6}

    asyncio.run(look())
    assert is_left_empty(Place(1, "gatewayd", "noted4"))
    assert not is_left_empty(Place(1, "gatewayd", "c4_32"))


# -- what not every kernel has -----------------------------------------------------------------------------------


def expression(name: str, *attributes: bytes) -> bytes:
    return nl.nest(1, nl.text(1, name), nl.nest(2, *attributes))


def rule_of(*expressions: bytes, family: int = 2) -> Listed:
    attributes = (
        (1, b"t\0"),
        (2, b"c\0"),
        (3, bytes(7) + b"\5"),
        (4 | nl.NLA_F_NESTED, b"".join(expressions)),
        (6, bytes(8)),
    )
    return Listed("rule", family, attributes)


def names_in(request: bytes) -> list[str]:
    (message,) = nl.iter_messages(request)
    fields = nl.attributes_of(request, message[3] + 4, message[4])
    assert 3 not in fields, "a handle names a rule that is there"
    assert 6 not in fields
    return [each.name for each in expressions_of(Listed("rule", 2, tuple(fields.items())))]


def test_an_established_flow_is_not_offloaded_in_the_copy() -> None:
    rule = rule_of(expression("flow_offload", nl.text(1, "ft")), expression("counter"))
    assert names_in(request_of(rule, 1, frozenset(), is_last=False)) == ["counter"]
    assert rule.handle == 5


def test_of_a_rule_for_iptables_the_protocol_is_said() -> None:
    payload = expression("payload", nl.be32(1, 1), nl.be32(2, 1), nl.be32(3, 9), nl.be32(4, 1))
    meta = expression("meta", nl.be32(1, 1), nl.be32(2, 16))
    equal = expression("cmp", nl.be32(1, 1), nl.be32(2, 0), nl.nest(3, nl.attribute(1, b"\x11")))
    other = expression("cmp", nl.be32(1, 1), nl.be32(2, 1), nl.nest(3, nl.attribute(1, b"\x06")))
    match = nl.nest(1, nl.text(1, "match"), nl.nest(2, nl.text(1, "multiport"), nl.be32(2, 1)))
    assert protocol_of(rule_of(payload, equal, match)) == 17
    assert protocol_of(rule_of(meta, equal, match)) == 17
    assert protocol_of(rule_of(payload, other, match)) == 0
    assert protocol_of(rule_of(payload, equal, family=10)) == 0
    wide = expression("cmp", nl.be32(1, 1), nl.be32(2, 0), nl.nest(3, nl.attribute(1, b"\x00\x11")))
    assert protocol_of(rule_of(meta, wide)) == 0
    request = request_of(rule_of(payload, equal, match), 1, frozenset(), is_last=True)
    assert nl.nest(5, nl.be32(1, 17), nl.be32(2, 0)) in request
    (message,) = nl.iter_messages(request)
    assert message[0] == NEWRULE
    assert message[1] & (nl.NLM_F_ACK | 0x800) == nl.NLM_F_ACK | 0x800


def test_a_table_loses_its_owner() -> None:
    table = Listed("table", 1, ((1, b"t\0"), (2, pack(">I", 0x7)), (4, bytes(8))))
    assert nl.be32(2, 1) in request_of(table, 1, frozenset(), is_last=False)
    assert table.get(9) == b""


def test_hooks_have_their_names() -> None:
    def base(family: int, number: int, *more: bytes) -> tuple[str, tuple[str, ...]]:
        hook = b"".join([nl.be32(1, number), nl.be32(2, 0), *more])
        found = base_chain_of(Listed("chain", family, ((1, b"t\0"), (3, b"c\0"), (4, hook))))
        assert found is not None
        return found.hook, found.devices

    assert base(1, 2) == ("forward", ())
    assert base(1, 5, nl.text(3, "in0")) == ("ingress", ("in0",))
    assert base(5, 0, nl.nest(4, nl.text(1, "in0"), nl.text(1, "out0"))) == ("ingress", ("in0", "out0"))
    assert base(5, 1, nl.text(3, "in0"), nl.nest(4, nl.text(1, "in0"))) == ("egress", ("in0",))


@pytest.mark.parametrize("length", [0, 3, 64])
def test_an_attribute_of_a_wrong_length_ends_the_reading(length: int) -> None:
    body = bytes(4) + nl.ATTRIBUTE_HEADER.pack(length, 1)
    with pytest.raises(EventMalformed):
        list(read_listed("rule", nl.MESSAGE_HEADER.pack(16 + len(body), NEWRULE, 0, 1, 0) + body))


def test_an_error_in_a_dump_is_no_object_and_a_doubt_is_a_sentence() -> None:
    assert list(read_listed("rule", nl.MESSAGE_HEADER.pack(20, nl.NLMSG_DONE, 0, 1, 0) + bytes(4))) == []
    assert all(words.split()[0].endswith("s") for words in DOUBTS.values())


def base_chain(name: str, number: int, *more: bytes, family: int = 1, table: bytes = b"t\0") -> Listed:
    hook = b"".join([nl.be32(1, number), nl.be32(2, 0), *more])
    attributes = ((1, table), (2, bytes(8)), (3, name.encode() + b"\0"), (4 | nl.NLA_F_NESTED, hook), (6, bytes(4)))
    return Listed("chain", family, (*attributes, (10, pack(">I", 1))))


def attributes_in(request: bytes) -> dict[int, bytes]:
    (message,) = nl.iter_messages(request)
    return nl.attributes_of(request, message[3] + 4, message[4])


def test_a_chain_keeps_the_devices_that_are_there_and_nothing_that_names_it() -> None:
    both = base_chain("both", 0, nl.nest(4, nl.text(1, "in0"), nl.text(1, "out0"), nl.text(1, "x")), family=5)
    for devices, wanted in (
        (frozenset({"in0"}), nl.text(3, "in0")),
        (frozenset({"in0", "out0"}), nl.nest(4, nl.text(1, "in0"), nl.text(1, "out0"))),
    ):
        fields = attributes_in(request_of(both, 1, devices, is_last=False))
        assert fields.keys() == {1, 3, 4}
        assert fields[4] == nl.be32(1, 0) + nl.be32(2, 0) + wanted
    forward = attributes_in(request_of(base_chain("f", 2), 1, frozenset(), is_last=False))
    assert forward[4] == nl.be32(1, 2) + nl.be32(2, 0)
    plain = Listed("chain", 1, ((1, b"t\0"), (2, bytes(8)), (3, b"own\0")))
    assert base_chain_of(plain) is None
    assert attributes_in(request_of(plain, 1, frozenset(), is_last=False)).keys() == {1, 3}


def test_a_set_without_a_name_gets_one_and_an_id() -> None:
    attributes = (
        (1, b"t\0"),
        (2, b"__set0\0"),
        (3, pack(">I", 0x3)),
        (4, pack(">I", 7)),
        (5, pack(">I", 4)),
        (16, bytes(8)),
    )
    fields = attributes_in(request_of(Listed("set", 1, attributes), 77, frozenset(), is_last=False))
    assert fields == {
        1: b"t\0",
        2: b"__set0\0",
        3: pack(">I", 2),
        4: pack(">I", 7),
        5: pack(">I", 4),
        10: pack(">I", 77),
    }
    thing = Listed("object", 1, ((1, b"t\0"), (2, b"n\0"), (3, pack(">I", 1)), (5, bytes(4)), (6, bytes(8))))
    assert attributes_in(request_of(thing, 1, frozenset(), is_last=False)).keys() == {1, 2, 3}
    elements = Listed("elements", 1, ((1, b"t\0"), (2, b"s\0"), (3 | nl.NLA_F_NESTED, b"")))
    assert attributes_in(request_of(elements, 1, frozenset(), is_last=False)).keys() == {1, 2, 3}


def test_what_a_packet_cannot_meet_is_not_copied() -> None:
    chains = (
        base_chain("f", 2),
        base_chain("edge", 0, nl.text(3, "in0"), family=5),
        base_chain("other", 0, nl.text(3, "x"), family=5),
        base_chain("four", 2, family=2),
        base_chain("six", 2, family=10),
        base_chain("bridge", 2, family=7),
        Listed("chain", 1, ((1, b"t\0"), (3, b"own\0"))),
    )
    rules = tuple(
        Listed("rule", each.family, ((1, b"t\0"), (2, each.get(3)), (4 | nl.NLA_F_NESTED, b""))) for each in chains
    )
    tag = b"\0" + bytes((len(TAG) + 1,)) + TAG.encode() + b"\0"
    ours = Listed("rule", 1, ((1, b"mine\0"), (2, b"f\0"), (7, tag)))
    place = Place(7, "t", "s")
    whole = Ruleset({"chain": chains, "rule": (*rules, ours)}, {place: ()}, ((Place(1, "t", "c4_32"), b"key!"),))
    found = select(whole, frozenset({"in0"}), is_ipv6=False)
    assert [each.name for each in found.listed["chain"]] == ["f", "edge", "four", "own"]
    assert [each.name for each in found.listed["rule"]] == ["f", "edge", "four", "own", "f"][:4]
    assert found.elements == {}
    assert found.found == whole.found
    six = select(whole, frozenset(), is_ipv6=True)
    assert [each.name for each in six.listed["chain"]] == ["f", "six", "own"]
    assert own_tables(whole.listed["rule"]) == {(1, "mine")}
    assert is_allowlist(Place(1, "mine", "c4_32"))
    assert is_left_empty(Place(1, "mine", "noted4"))
    assert not is_allowlist(Place(1, "mine", "__set0"))
    assert {str(each) for each in by_place(rules)} >= {"inet t f", "netdev t edge", "ip6 t six"}


def test_objects_are_read_attribute_by_attribute() -> None:
    datagram = nl.message(SUBSYSTEM | 3, 0, 1, 1, 0, nl.text(1, "t"), nl.text(3, "odd")) * 2
    first, second = read_listed("chain", datagram)
    assert first == second
    assert (first.table, first.name, first.place) == ("t", "odd", Place(1, "t", "odd"))
