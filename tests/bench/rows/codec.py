"""Encoder and decoder alone: processor time of this process, nothing sent and nothing received.

Decoded are connection events that a kernel sent (tests/support/captures.py), many to a buffer as a socket hands
them over, down to what gatewayd takes from one: who to whom, by which ports, mark, id, zone and counters.
"""

from __future__ import annotations

import time
from typing import Any

from gatewayd.kernel import conntrack_codec, tables_codec
from gatewayd.model.flow import AF_INET
from gatewayd.model.transaction import AddElements, Transaction
from tests.bench.filling import TABLE, host_mask, set_name
from tests.bench.material import host_keys, host_texts
from tests.bench.row import Context, Figures, Measure, Row, Subject, check
from tests.support.captures import CONNECTIONS

ELEMENTS, PIECE = 100_000, 1000
EVENTS = [bytes.fromhex(raw) for raw in CONNECTIONS.values()]
BUFFER = b"".join(EVENTS) * 10
PER_BUFFER = len(EVENTS) * 10


def gatewayd(context: Context) -> Figures:
    keys = host_keys(ELEMENTS)
    started = time.process_time()
    for start in range(0, ELEMENTS, PIECE):
        tables_codec.encode_batch(
            Transaction((AddElements(set_name(host_mask()), keys[start : start + PIECE]),), ""), TABLE, 1
        )
    encode_s = time.process_time() - started
    buffers = 300
    started = time.process_time()
    count = sum(len(conntrack_codec.decode_connections(BUFFER).events) for _ in range(buffers))
    decode_s = time.process_time() - started
    check(count == buffers * PER_BUFFER, f"{count} events decoded")
    return {"encode_s": encode_s / ELEMENTS, "decode_s": decode_s / count}


def pyroute2(context: Context) -> Figures:
    from pyroute2 import NFCTSocket

    from tests.bench.pyroute2_sets import encode

    texts = host_texts(ELEMENTS // 10)
    started = time.process_time()
    for start in range(0, len(texts), PIECE):
        encode(set_name(host_mask()), texts[start : start + PIECE])
    encode_s = time.process_time() - started
    with NFCTSocket() as client:
        buffers = 10
        started = time.process_time()
        count = 0
        for _ in range(buffers):
            for event in client.marshal.parse(BUFFER):
                count += read_event(event) is not None
        decode_s = time.process_time() - started
    check(count == buffers * PER_BUFFER, f"{count} events decoded")
    return {"encode_s": encode_s / len(texts), "decode_s": decode_s / count}


def read_event(event: Any) -> tuple[Any, ...]:
    """What gatewayd has in a ConnectionEvent. pyroute2 decodes an attribute when it is asked for."""
    ends = event.get_nested("CTA_TUPLE_ORIG", "CTA_TUPLE_IP")
    protocol = event.get_nested("CTA_TUPLE_ORIG", "CTA_TUPLE_PROTO")
    version = "V4" if event["nfgen_family"] == AF_INET else "V6"
    both = [event.get_attr("CTA_COUNTERS_ORIG"), event.get_attr("CTA_COUNTERS_REPLY")]
    return (
        ends.get_attr(f"CTA_IP_{version}_SRC"),
        ends.get_attr(f"CTA_IP_{version}_DST"),
        protocol.get_attr("CTA_PROTO_NUM"),
        protocol.get_attr("CTA_PROTO_SRC_PORT"),
        protocol.get_attr("CTA_PROTO_DST_PORT"),
        event.get_attr("CTA_MARK"),
        event.get_attr("CTA_ID"),
        event.get_attr("CTA_ZONE"),
        *(each and (each.get_attr("CTA_COUNTERS_PACKETS"), each.get_attr("CTA_COUNTERS_BYTES")) for each in both),
    )


DECODE = Row(
    "decode",
    "encoder and decoder alone, processor time",
    (
        Measure("encode_s", "s", "an element encoded", of_size=False),
        Measure("decode_s", "s", "a connection event decoded", of_size=False),
    ),
    (Subject("gatewayd", gatewayd), Subject("pyroute2", pyroute2, needs="pyroute2")),
    sizes=False,
)
