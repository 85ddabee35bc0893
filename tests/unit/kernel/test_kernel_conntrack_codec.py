"""Connections from bytes: what the kernel sent, what pyroute2 makes of it, and what no kernel would send."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroute2.netlink.nfnetlink.nfctsocket import nfct_msg

from gatewayd.errors import EventMalformed
from gatewayd.kernel import conntrack_codec as codec
from gatewayd.kernel.attributes import attribute, be16, be32, iter_messages, message, nest
from gatewayd.model import Flow
from gatewayd.model.flow import AF_INET, AF_INET6, ConnectionEvent, ConnectionKind
from gatewayd.model.service import PROTOCOLS_WITH_PORTS
from tests.support.captures import CONNECTIONS

MARK = 0xA1000007
LOOPBACK4, LOOPBACK4B = bytes([127, 0, 0, 1]), bytes([127, 0, 0, 2])
LOOPBACK6 = bytes(15) + b"\x01"
CAPTURES = {name: bytes.fromhex(raw) for name, raw in CONNECTIONS.items()}

EXPECTED_FLOWS = {
    "udp4": Flow(17, LOOPBACK4, LOOPBACK4B, 40001, 51820),
    "udp6": Flow(17, LOOPBACK6, LOOPBACK6, 40001, 51820),
    "tcp4": Flow(6, LOOPBACK4, LOOPBACK4, 40002, 1194),
    "tcp6": Flow(6, LOOPBACK6, LOOPBACK6, 40002, 1194),
    "esp4": Flow(50, LOOPBACK4, LOOPBACK4B),
    "esp6": Flow(50, LOOPBACK6, LOOPBACK6),
    "ah4": Flow(51, LOOPBACK4, LOOPBACK4B),
    "gre4": Flow(47, LOOPBACK4, LOOPBACK4B),
    "gre6": Flow(47, LOOPBACK6, LOOPBACK6),
    "icmp4": Flow(1, LOOPBACK4, LOOPBACK4B),
}


@pytest.fixture(autouse=True)
def _no_layouts_known() -> Iterator[None]:
    codec._layouts.clear()
    yield
    codec._layouts.clear()


def decode_one(raw: bytes) -> ConnectionEvent:
    batch = codec.decode_connections(raw)
    assert (len(batch.events), batch.malformed, batch.controls) == (1, 0, [])
    return batch.events[0]


@pytest.mark.parametrize("name", [name for name in CAPTURES if "zone" not in name])
def test_the_kernels_bytes_give_the_flow_that_was_sent(name: str) -> None:
    family, kind, *_ = name.split()
    event = decode_one(CAPTURES[name])
    assert event.kind == kind
    assert event.flow == EXPECTED_FLOWS[family]
    assert event.mark == MARK
    assert event.id != 0
    assert event.zone == 0


def test_a_destroy_event_carries_the_counters_of_both_directions() -> None:
    event = decode_one(CAPTURES["tcp4 destroy"])
    assert (event.packets_original, event.bytes_original) == (2, 112)
    assert (event.packets_reply, event.bytes_reply) == (1, 60)


def test_without_accounting_the_counters_are_zero() -> None:
    event = decode_one(CAPTURES["udp4 destroy plain"])
    assert (event.packets_original, event.bytes_original, event.packets_reply, event.bytes_reply) == (0,) * 4


def test_a_zone_is_read_and_a_zone_of_one_direction_stays_in_the_tuple() -> None:
    assert decode_one(CAPTURES["udp4 new zone"]).key.zone == 7
    directional = decode_one(CAPTURES["udp4 new original zone"])
    assert directional.zone == 0
    assert be16(3, 9) in directional.tuple_bytes


@pytest.mark.parametrize("name", CAPTURES)
def test_the_tuple_is_returned_as_it_came(name: str) -> None:
    raw = CAPTURES[name]
    event = decode_one(raw)
    length = int.from_bytes(raw[20:22], "little")
    assert event.tuple_bytes == raw[20 : 20 + length]
    assert event.key.family == raw[16]


@pytest.mark.parametrize("name", CAPTURES)
def test_the_fast_reading_agrees_with_the_walk(name: str) -> None:
    raw = CAPTURES[name]
    walked = decode_one(raw)
    assert codec._layouts
    assert decode_one(raw) == walked


@pytest.mark.parametrize("name", CAPTURES)
def test_pyroute2_reads_the_same(name: str) -> None:
    raw = CAPTURES[name]
    assert describe(decode_one(raw)) == describe_by_pyroute2(raw)


def describe(event: ConnectionEvent) -> dict[str, Any]:
    flow = event.flow
    return {
        "source": str(ip_address(flow.source)), "destination": str(ip_address(flow.destination)),
        "protocol": flow.protocol, "source_port": flow.source_port, "destination_port": flow.destination_port,
        "mark": event.mark, "id": event.id, "zone": event.zone,
        "original": (event.packets_original, event.bytes_original),
        "reply": (event.packets_reply, event.bytes_reply),
    }  # fmt: skip


def describe_by_pyroute2(raw: bytes) -> dict[str, Any]:
    decoded = nfct_msg(raw)
    decoded.decode()
    ends = decoded.get_nested("CTA_TUPLE_ORIG", "CTA_TUPLE_IP")
    protocol = decoded.get_nested("CTA_TUPLE_ORIG", "CTA_TUPLE_PROTO")
    number = protocol.get_attr("CTA_PROTO_NUM")
    version = "V4" if raw[16] == AF_INET else "V6"

    def port(side: str) -> int:
        return (number in PROTOCOLS_WITH_PORTS and protocol.get_attr(f"CTA_PROTO_{side}_PORT")) or 0

    def counters(side: str) -> tuple[int, int]:
        found = decoded.get_attr(f"CTA_COUNTERS_{side}")
        if found is None:
            return 0, 0
        return found.get_attr("CTA_COUNTERS_PACKETS"), found.get_attr("CTA_COUNTERS_BYTES")

    return {
        "source": ends.get_attr(f"CTA_IP_{version}_SRC"),
        "destination": ends.get_attr(f"CTA_IP_{version}_DST"),
        "protocol": number, "source_port": port("SRC"), "destination_port": port("DST"),
        "mark": decoded.get_attr("CTA_MARK") or 0, "id": decoded.get_attr("CTA_ID"),
        "zone": decoded.get_attr("CTA_ZONE") or 0, "original": counters("ORIG"), "reply": counters("REPLY"),
    }  # fmt: skip


def test_many_messages_in_one_buffer_come_out_in_order() -> None:
    names = [name for name in CAPTURES if "destroy" in name]
    batch = codec.decode_connections(memoryview(b"".join(CAPTURES[name] for name in names)))
    assert [event.flow for event in batch.events] == [EXPECTED_FLOWS[name.split()[0]] for name in names]


def test_an_item_of_a_dump_is_listed_and_the_end_is_a_control_message() -> None:
    raw = bytearray(CAPTURES["udp4 new"])
    raw[6:8] = (2).to_bytes(2, "little")
    done = (20).to_bytes(4, "little") + b"\x03\0\x12\0" + (9).to_bytes(4, "little") + bytes(8)
    batch = codec.decode_connections(bytes(raw) + done)
    assert [event.kind for event in batch.events] == ["listed"]
    assert [(control.kind, control.sequence) for control in batch.controls] == [(3, 9)]
    assert codec.errno_of(batch.controls[0]) == 0
    assert batch.interrupted


def test_an_event_without_mark_and_id_has_zeros() -> None:
    event = decode_one(message(codec.CT_NEW, 0, 0, 2, 0, tuple_of(ends4(), protocol(50))))
    assert (event.kind, event.mark, event.id) == ("update", 0, 0)


def tuple_of(*attributes: bytes) -> bytes:
    return nest(codec.CTA_TUPLE_ORIG, *attributes)


def ends4() -> bytes:
    return nest(codec.CTA_TUPLE_IP, attribute(1, LOOPBACK4), attribute(2, LOOPBACK4B))


def protocol(number: int, *ports: bytes) -> bytes:
    return nest(codec.CTA_TUPLE_PROTO, attribute(1, bytes([number])), *ports)


def translated(source: bytes, port: int) -> bytes:
    """A UDP connection from LOOPBACK4 to LOOPBACK4B, answered by `source` and `port`."""
    ports = be16(2, 40001), be16(3, 7)
    answer = nest(codec.CTA_TUPLE_IP, attribute(1, source), attribute(2, bytes([10, 0, 0, 1])))
    reply = nest(codec.CTA_TUPLE_REPLY, answer, protocol(17, be16(2, port), be16(3, 61000)))
    return message(codec.CT_NEW, 0, 0, 2, 0, tuple_of(ends4(), protocol(17, *ports)), reply)


def test_a_flow_is_as_the_rules_see_it_behind_dnat_and_before_snat() -> None:
    raw = translated(bytes([9, 9, 9, 9]), 51820)
    walked = decode_one(raw)
    assert walked.flow == Flow(17, LOOPBACK4, bytes([9, 9, 9, 9]), 40001, 51820)
    assert decode_one(raw) == walked
    other = decode_one(translated(bytes([8, 8, 8, 8]), 500))
    assert other.flow == Flow(17, LOOPBACK4, bytes([8, 8, 8, 8]), 40001, 500)
    assert walked.tuple_bytes == other.tuple_bytes
    assert len(codec._layouts) == 1


def test_a_reply_tuple_of_another_family_is_malformed() -> None:
    raw = message(
        codec.CT_NEW, 0, 0, 2, 0, tuple_of(ends4(), protocol(17)),
        nest(codec.CTA_TUPLE_REPLY, nest(codec.CTA_TUPLE_IP, attribute(3, LOOPBACK6))),
    )  # fmt: skip
    assert codec.decode_connections(raw).malformed == 1


def test_an_event_says_which_program_caused_it_and_a_list_does_not() -> None:
    raw = bytearray(CAPTURES["udp4 new"])
    assert decode_one(bytes(raw)).sender_port == 0
    raw[12:16] = (4711).to_bytes(4, sys.byteorder)
    assert [decode_one(bytes(raw)).sender_port for _ in range(2)] == [4711, 4711]
    raw[6:8] = (2).to_bytes(2, "little")
    assert decode_one(bytes(raw)).sender_port == 0


@pytest.mark.parametrize("address", [LOOPBACK4, LOOPBACK6])
def test_a_dump_can_ask_for_who_answers(address: bytes) -> None:
    decoded = nfct_msg(codec.encode_dump(5, 0, 0, answered_by=address))
    decoded.decode()
    version = "V4" if len(address) == 4 else "V6"
    assert decoded.get_nested("CTA_TUPLE_REPLY", "CTA_TUPLE_IP").get_attr(f"CTA_IP_{version}_SRC") == str(
        ip_address(address)
    )
    assert decoded.get_attr("CTA_TUPLE_ORIG") is None


MALFORMED = {
    "no attributes": b"",
    "no tuple": be32(codec.CTA_MARK, 1),
    "no protocol": tuple_of(ends4()),
    "no destination": tuple_of(nest(1, attribute(1, LOOPBACK4)), protocol(17)),
    "two families": tuple_of(nest(1, attribute(1, LOOPBACK4), attribute(4, LOOPBACK6)), protocol(17)),
    "an address of 5 bytes": tuple_of(nest(1, attribute(1, LOOPBACK4 + b"\0")), protocol(17)),
    "a mark of 2 bytes": tuple_of(ends4(), protocol(17)) + be16(codec.CTA_MARK, 1),
    "an attribute of length 3": tuple_of(ends4(), protocol(17)) + b"\x03\0\x08\0",
    "an attribute past the end": tuple_of(ends4(), protocol(17)) + b"\x40\0\x08\0",
    "a nest past its parent": b"\x08\0\x01\x80\x40\0\x01\x80",
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_message_costs_only_itself(name: str) -> None:
    good = CAPTURES["udp4 new"]
    bad = message(codec.CT_NEW, 0, 0, 2, 0, MALFORMED[name])
    batch = codec.decode_connections(good + bad + good)
    assert (len(batch.events), batch.malformed) == (2, 1)
    with pytest.raises(EventMalformed):
        codec.locate(bad)


@pytest.mark.parametrize("length", [0, 15, 400])
def test_an_impossible_length_ends_the_buffer_and_is_counted(length: int) -> None:
    good = CAPTURES["udp4 new"]
    batch = codec.decode_connections(good + length.to_bytes(4, "little") + good[4:])
    assert (len(batch.events), batch.malformed) == (1, 1)


def test_layouts_remembered_are_bounded_and_the_walk_serves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_LAYOUTS", 1)
    for raw in CAPTURES.values():
        decode_one(raw)
    assert sum(map(len, codec._layouts.values())) == 1
    assert decode_one(CAPTURES["tcp6 new"]).flow == EXPECTED_FLOWS["tcp6"]


@settings(deadline=None)
@given(raw=st.binary(max_size=600))
def test_arbitrary_bytes_raise_nothing(raw: bytes) -> None:
    codec.decode_connections(raw)
    header = (len(raw) + 16).to_bytes(4, "little") + b"\0\x01" + bytes(10)
    batch = codec.decode_connections(header + raw)
    assert len(batch.events) + batch.malformed == 1


def read_places(kind: ConnectionKind, image: bytes, places: codec.Places, sender_port: int) -> ConnectionEvent:
    """The generic reading of a message: field by field, nothing precompiled."""

    def raw(field: str) -> bytes:
        instead = codec._SEEN_INSTEAD.get(field, field)
        offset, size = places.fields.get(instead, places.fields.get(field, (0, 0)))
        return image[offset : offset + size]

    def number(field: str) -> int:
        return int.from_bytes(raw(field), "big")

    protocol = number("protocol")
    has_ports = protocol in PROTOCOLS_WITH_PORTS
    return ConnectionEvent(
        kind=kind,
        flow=Flow(
            protocol=protocol,
            source=raw("source"),
            destination=raw("destination"),
            source_port=number("source_port") if has_ports else 0,
            destination_port=number("destination_port") if has_ports else 0,
        ),
        mark=number("mark"),
        id=number("id"),
        packets_original=number("packets_original"),
        bytes_original=number("bytes_original"),
        packets_reply=number("packets_reply"),
        bytes_reply=number("bytes_reply"),
        tuple_bytes=image[places.tuple_start : places.tuple_end],
        zone=number("zone"),
        sender_port=sender_port,
    )


@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(CAPTURES)),
    changes=st.lists(st.tuples(st.integers(0, 330), st.integers(0, 255)), max_size=6),
)
def test_on_mutated_bytes_the_fast_reading_and_the_walk_agree(name: str, changes: list[tuple[int, int]]) -> None:
    raw = bytearray(CAPTURES[name])
    for place, value in changes:
        if 8 <= place < len(raw):
            raw[place] = value
    codec.decode_connections(CAPTURES[name])
    fast = codec.decode_connections(raw)
    kind = fast.events[0].kind if fast.events else "new"
    image = bytes(raw)
    try:
        port = int.from_bytes(image[12:16], sys.byteorder)
        walked = [read_places(kind, image, codec.locate(image), port if kind != "listed" else 0)]
    except EventMalformed:
        walked = []
    assert fast.events == walked
    assert fast.malformed == 1 - len(walked)


def test_a_dump_request_lets_the_kernel_choose_by_mark() -> None:
    (item,) = iter_messages(codec.encode_dump(5, 0x01000000, 0xFF000000, AF_INET6))
    assert item[:3] == (codec.CT_GET, 0x301, 5)
    decoded = nfct_msg(codec.encode_dump(5, 0x01000000, 0xFF000000, AF_INET6))
    decoded.decode()
    assert decoded["nfgen_family"] == AF_INET6
    assert (decoded.get_attr("CTA_MARK"), decoded.get_attr("CTA_MARK_MASK")) == (0x01000000, 0xFF000000)


@pytest.mark.parametrize(("name", "zone"), [("udp6 new", None), ("udp4 new zone", 7)])
def test_a_mark_change_sends_the_tuple_back_and_its_zone(name: str, zone: int | None) -> None:
    event = decode_one(CAPTURES[name])
    request = codec.encode_mark_change(3, event.key, 0x02000000, 0xFF000000, acknowledge=False)
    (item,) = iter_messages(request)
    assert item[:3] == (codec.CT_NEW, 0x001, 3)
    assert request[20 : 20 + len(event.tuple_bytes)] == event.tuple_bytes
    decoded = nfct_msg(request)
    decoded.decode()
    assert (decoded.get_attr("CTA_MARK"), decoded.get_attr("CTA_MARK_MASK")) == (0x02000000, 0xFF000000)
    assert decoded.get_attr("CTA_ZONE") == zone


def test_only_the_change_that_asks_for_it_is_acknowledged() -> None:
    key = decode_one(CAPTURES["udp4 new"]).key
    (item,) = iter_messages(codec.encode_mark_change(3, key, 0, 0xFF000000, acknowledge=True))
    assert item[1] == 0x005


@pytest.mark.parametrize(("value", "mask"), [(1, 0xFF000000), (0, -1), (0, 1 << 32)])
def test_a_mark_past_its_mask_is_our_bug(value: int, mask: int) -> None:
    with pytest.raises(ValueError, match="mask"):
        codec.encode_dump(1, value, mask)


# Captured as above: the answer to IPCTNL_MSG_CT_GET_STATS.
STATISTICS = bytes.fromhex("2400000005010200070000002b1800000000000008000100000000030800020000040000")


def test_statistics_are_an_answer_to_the_question_for_them() -> None:
    (control,) = codec.decode_connections(STATISTICS).controls
    assert (control.kind, control.sequence) == (codec.CT_GET_STATS, 7)
    (item,) = iter_messages(codec.encode_count(7))
    assert item[:3] == (codec.CT_GET_STATS, 0x001, 7)


def test_the_errno_of_an_answer_is_positive() -> None:
    # Captured: EPERM for a request without CAP_NET_ADMIN.
    raw = bytes.fromhex("24000000020000010700000030180000ffffffff14000000050101000700000000000000")
    (control,) = codec.decode_connections(raw).controls
    assert codec.errno_of(control) == 1


@pytest.mark.parametrize("kind", [2, 3])
def test_an_answer_without_errno_is_malformed(kind: int) -> None:
    with pytest.raises(EventMalformed):
        codec.errno_of(codec.ControlMessage(kind, 0, 1, b"\0\0"))


@pytest.mark.parametrize(("source", "destination"), [("10.0.0.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::2")])
def test_the_key_of_a_flow_is_its_tuple(source: str, destination: str) -> None:
    ends = ip_address(source).packed, ip_address(destination).packed
    key = codec.key_of_flow(Flow(17, *ends, 40000, 51820))
    assert key is not None
    assert all(part in key.tuple_bytes for part in (*ends, b"\x9c\x40", b"\xca\x6c"))
    portless = codec.key_of_flow(Flow(50, *ends))
    assert portless is not None
    assert len(portless.tuple_bytes) == len(key.tuple_bytes) - 16
    assert key.family == portless.family == (AF_INET if len(ends[0]) == 4 else AF_INET6)
    assert codec.key_of_flow(Flow(47, *ends)) is None
