"""Connections put into a gateway's table as conntrackd does it for those of the other gateway."""

from __future__ import annotations

from gatewayd.kernel.attributes import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, be32, message
from gatewayd.kernel.conntrack_codec import (
    CT_NEW,
    CTA_MARK,
    CTA_TUPLE_REPLY,
    ControlMessage,
    decode_connections,
    errno_of,
    key_of_flow,
)
from gatewayd.kernel.netlink import open_netfilter_socket
from gatewayd.lab.namespace import Namespace
from gatewayd.model import Flow

CTA_STATUS, CTA_TIMEOUT = 3, 7
SEEN_REPLY_ASSURED_CONFIRMED = 0x2 | 0x4 | 0x8


def carry(namespace: Namespace, flow: Flow, mark: int, *, asked_for: Flow | None = None) -> None:
    """`asked_for`: the tuple before DNAT."""
    key, answer = key_of_flow(asked_for or flow), key_of_flow(turned(flow))
    assert key is not None
    assert answer is not None
    reply = bytearray(answer.tuple_bytes)
    reply[2] = CTA_TUPLE_REPLY
    request = message(
        CT_NEW, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, 1, key.family, 0,
        key.tuple_bytes, bytes(reply), be32(CTA_STATUS, SEEN_REPLY_ASSURED_CONFIRMED), be32(CTA_TIMEOUT, 600),
        be32(CTA_MARK, mark),
    )  # fmt: skip
    assert _exchange(namespace, request) == 0


def change_mark(namespace: Namespace, flow: Flow, mark: int) -> None:
    """An update of the mark of a connection that is there, whole, as `conntrackd` or `conntrack -U` sends it."""
    key = key_of_flow(flow)
    assert key is not None
    request = message(CT_NEW, NLM_F_REQUEST | NLM_F_ACK, 1, key.family, 0, key.tuple_bytes, be32(CTA_MARK, mark))
    assert _exchange(namespace, request) == 0


def turned(flow: Flow) -> Flow:
    return Flow(flow.protocol, flow.destination, flow.source, flow.destination_port, flow.source_port)


def _exchange(namespace: Namespace, request: bytes) -> int:
    with namespace.entered(), open_netfilter_socket(1 << 16) as opened:
        opened.settimeout(15)
        opened.send(request)
        answers: list[ControlMessage] = decode_connections(opened.recv(4096)).controls
    return errno_of(answers[0])
