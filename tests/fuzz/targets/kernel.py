"""What the kernel sends: netlink messages and the packets in them. It is trusted, and it is C."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from struct import pack

from gatewayd.doctor.rules_codec import RuleReading, chains_in, flowtables_in
from gatewayd.errors import EventMalformed
from gatewayd.kernel import attributes as nl
from gatewayd.kernel import conntrack_codec, counts_codec, passage_codec, tables_codec
from gatewayd.kernel.external import sum_statistics
from gatewayd.kernel.external_codec import NotificationDecoder, judge_expressions, neighbours_in
from gatewayd.kernel.links import _names_in as names_in
from gatewayd.kernel.netlink import decode_error
from gatewayd.model.service import PROTOCOLS_WITH_PORTS
from gatewayd.watch.decode import decode_packets, flow_of_packet
from tests.fuzz.target import Target
from tests.support.captures import CONNECTIONS, PACKETS
from tests.support.replay import captures
from tests.support.rule_captures import RULES

TABLE = "gatewayd"
MASK = 0xFF000000


def connections(raw: bytes) -> None:
    """The memo of layouts changes no answer, and whatever is decoded can be asked for again."""
    known = conntrack_codec.decode_connections(raw)
    saved = {length: list(layouts) for length, layouts in conntrack_codec._layouts.items()}
    conntrack_codec._layouts.clear()
    try:
        assert conntrack_codec.decode_connections(raw) == known
    finally:
        conntrack_codec._layouts.clear()
        conntrack_codec._layouts.update(saved)
    for event in known.events:
        assert len(event.flow.source) == len(event.flow.destination) in (4, 16)
        assert event.flow.protocol in PROTOCOLS_WITH_PORTS or not event.flow.source_port
        conntrack_codec.encode_mark_change(1, event.key, 0, MASK, acknowledge=False)
    for control in known.controls:
        conntrack_codec.errno_of(control)


def packets(raw: bytes) -> None:
    batch = decode_packets(raw)
    assert len(batch.flows) + batch.malformed <= len(raw) // 16 + 1
    for flow in batch.flows:
        assert len(flow.source) == len(flow.destination) in (4, 16)


def one_packet(raw: bytes) -> None:
    flow = flow_of_packet(raw)
    assert len(flow.source) == len(flow.destination) in (4, 16)


_Decode = Callable[[bytes, int, int], object]
_OBJECTS: tuple[_Decode, ...] = (
    tables_codec.decode_elements, tables_codec.decode_set, tables_codec.decode_table_name,
    tables_codec.decode_chain_name, tables_codec.decode_rule_comment, tables_codec.decode_rule_chain,
    tables_codec.decode_counter, tables_codec.decode_generation, counts_codec.decode_table_handle,
    counts_codec.decode_counts, passage_codec.decode_looked_up, names_in,
)  # fmt: skip


def objects(raw: bytes) -> None:
    """Attributes of one message, by a decoder that the first byte chooses."""
    if raw:
        _OBJECTS[raw[0] % len(_OBJECTS)](raw, 1, len(raw))


def messages(raw: bytes) -> None:
    """Each whole message of a datagram, as the readers of dumps go through it."""
    for kind, flags, _, start, end in nl.iter_messages(raw):
        if kind == nl.NLMSG_ERROR:
            decode_error(raw, start, flags)
        elif kind == tables_codec.NEWRULE:
            tables_codec.fingerprint_rules([(raw, start, end)], [(raw, start, end)])


def notifications(raw: bytes) -> None:
    """Datagrams of commits, one after the other: a byte says how long each is."""
    decoder = NotificationDecoder(TABLE, own_port=5)
    for datagram in _cut(raw):
        for commit in decoder.feed(datagram):
            assert commit.program.isprintable()


def rules(raw: bytes) -> None:
    reading = RuleReading(TABLE, 0x80000000)
    for datagram in (raw, raw):
        list(reading.feed(datagram))
        list(neighbours_in(datagram, MASK, TABLE))
        list(chains_in(datagram, TABLE))
        list(flowtables_in(datagram, TABLE))


def expressions(raw: bytes) -> None:
    judge_expressions(raw, MASK)


def statistics(raw: bytes) -> None:
    """/proc/net/stat/nf_conntrack."""
    sum_statistics(raw.decode("ascii", "replace"))


def _cut(raw: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        size = raw[at] * 4
        yield raw[at + 1 : at + 1 + size]
        at += 1 + size


def _connections() -> Sequence[bytes]:
    some = [bytes.fromhex(each) for each in CONNECTIONS.values()]
    error = pack("=IHHIIi", 20, nl.NLMSG_ERROR, 0, 1, 1, -2)
    return [*some, b"".join(some[:4]), some[0] + error]


def _packets() -> Sequence[bytes]:
    return [bytes.fromhex(each) for each in PACKETS.values()]


def _captured() -> Sequence[bytes]:
    """Two of each capture, as much as the rule copies."""
    return [each.packet[:128] for capture in captures() for each in (capture.packets[0], capture.packets[-1])]


def _rules() -> Sequence[bytes]:
    return [bytes.fromhex(each) for each in RULES.values()]


def _expressions() -> Sequence[bytes]:
    """NFTA_RULE_EXPRESSIONS of them."""
    return [nl.attributes_of(raw, 20, len(raw))[4] for raw in _rules()]


def _objects_seeds() -> Sequence[bytes]:
    elements = b"".join(tables_codec.encode_elements([bytes([n, 0, 0, 1]) for n in range(3)]))
    counter = nl.nest(1, nl.text(1, "counter"), nl.nest(2, nl.be64(1, 9), nl.be64(2, 7)))
    counted = nl.nest(
        3, nl.nest(1, nl.nest(1, nl.attribute(1, b"\1\2\3\4")), nl.be64(5, 9000), nl.nest(11, counter))
    )
    named = nl.text(1, TABLE) + nl.text(2, "c4_29_0") + nl.be32(3, 0) + nl.be32(4, 7) + nl.be32(5, 4)
    some = (elements, counted, named, named + nl.nest(4, nl.be64(1, 7), nl.be64(2, 8)))
    return [bytes([number]) + each for number in range(len(_OBJECTS)) for each in some]


def _messages_seeds() -> Sequence[bytes]:
    refused = (
        pack("=iIHHII", -22, 20, 0xA00, 5, 3, 9) + nl.text(1, "no such thing") + nl.attribute(2, pack("=I", 20))
    )
    error = pack("=IHHII", 16 + len(refused), nl.NLMSG_ERROR, 0x300, 3, 9) + refused
    return [error, *_rules()[:5], b"".join(_rules()[:3])]


def _notification_seeds() -> Sequence[bytes]:
    element = nl.message(tables_codec.NEWRULE, 0, 1, 1, 0, nl.text(1, TABLE), nl.text(2, "forward"))
    end = nl.message(tables_codec.NEWGEN, 0, 1, 0, 0, nl.be32(1, 7), nl.be32(2, 77), nl.text(3, "nft"))
    return [
        b"".join(bytes([len(each) // 4]) + each for each in some) for some in ([element, end], [end], [element])
    ]


TARGETS = (
    Target("kernel.connections", connections, (EventMalformed,), _connections),
    Target("kernel.packets", packets, (), _packets),
    Target("kernel.packet", one_packet, (EventMalformed,), _captured, cost=0.3),
    Target("kernel.objects", objects, (EventMalformed,), _objects_seeds, (b"counter\0", b"c4_29_0\0")),
    Target("kernel.messages", messages, (EventMalformed,), _messages_seeds),
    Target("kernel.notifications", notifications, (EventMalformed,), _notification_seeds),
    Target("kernel.rules", rules, (EventMalformed,), _rules, (b"CONNMARK\0", b"immediate\0", b"bitwise\0"), cost=3),
    Target("kernel.expressions", expressions, (EventMalformed,), _expressions, (b"lookup\0", b"ct\0", b"meta\0")),
    Target(
        "kernel.statistics",
        statistics,
        (ValueError,),
        lambda: [b"entries drop\n0000000a 00000001\n0000000a 00000002\n"],
    ),
)
