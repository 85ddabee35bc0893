"""The first packet of a flow, on the wire."""

from __future__ import annotations

import pytest

from gatewayd.errors import ServiceInvalid
from gatewayd.lab.packets import internet_checksum, parse_flow
from gatewayd.lab.traffic import flow_of
from gatewayd.passage.packet import build_frame

TO, SENDER, TOKEN = bytes(6), b"\2" * 6, b"\x12\x34\x56\x78"
ENDS = {4: ("39.32.0.1", "198.51.100.7"), 6: ("2400:adc0::1", "2001:db8::7")}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("service", ["udp/51820", "tcp/1194", "esp", "gre", "ah"])
def test_a_frame_is_of_the_flow_and_carries_the_token(family: int, service: str) -> None:
    flow = flow_of(*ENDS[family], service, 40001)
    frame = build_frame(flow, TOKEN, to=TO, sender=SENDER)
    assert frame[:12] == TO + SENDER
    assert frame[12:14] == {4: b"\x08\x00", 6: b"\x86\xdd"}[family]
    packet = frame[14:]
    assert parse_flow(packet) == flow
    assert TOKEN in packet
    if family == 4:
        assert int.from_bytes(packet[2:4], "big") == len(packet)
        assert internet_checksum(packet[:20]) == 0
    else:
        assert int.from_bytes(packet[4:6], "big") == len(packet) - 40


@pytest.mark.parametrize("family", [4, 6])
def test_a_handshake_begins_with_a_segment_that_connection_tracking_takes(family: int) -> None:
    flow = flow_of(*ENDS[family], "tcp/443", 40001)
    segment = build_frame(flow, TOKEN, to=TO, sender=SENDER)[14 + {4: 20, 6: 40}[family] :]
    assert segment[13] == 0x02
    assert segment[4:8] == TOKEN
    pseudo = flow.source + flow.destination + b"\0\6" + len(segment).to_bytes(2, "big")
    assert internet_checksum(pseudo + segment) == 0


def test_no_association_is_begun() -> None:
    with pytest.raises(ServiceInvalid, match="association"):
        build_frame(flow_of(*ENDS[4], "sctp/36412"), TOKEN, to=TO, sender=SENDER)
