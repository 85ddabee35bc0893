"""Address translation on the same box, under registered traffic of both families."""

from __future__ import annotations

import msgspec
import pytest

from gatewayd.demo.cast import FAR, FAR_IPV6, STRANGER, STRANGER_IPV6
from gatewayd.lab.lab import OUTSIDE, Lab
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.model import Flow, parse_address
from tests.support.lab_daemon import LabDaemon
from tests.support.neighbours import BANK_OFFICE, BANK_OFFICE_IPV6, start, strangers, traffic

pytestmark = pytest.mark.kernel

VIRTUAL, VIRTUAL_IPV6 = "192.0.2.9", "2001:db8:2::9"
"""Addresses that are translated to the far end's."""
PUBLIC, PUBLIC_IPV6 = "198.51.100.200", "2001:db8:7::200"
"""Addresses under which the far end reaches the bank's office."""
TABLES = "".join(
    f"""
    add table {family} nat
    delete table {family} nat
    table {family} nat {{
      chain pre {{
        type nat hook prerouting priority dstnat
        {family} daddr {virtual} dnat to {far}
        {family} daddr {public} dnat to {office}
      }}
      chain post {{
        type nat hook postrouting priority srcnat
        oifname "outside0" {family} daddr {far} masquerade
      }}
    }}
    """
    for family, virtual, far, public, office in (
        ("ip", VIRTUAL, FAR, PUBLIC, BANK_OFFICE),
        ("ip6", VIRTUAL_IPV6, FAR_IPV6, PUBLIC_IPV6, BANK_OFFICE_IPV6),
    )
)
_FARS = {parse_address(FAR): parse_address(VIRTUAL), parse_address(FAR_IPV6): parse_address(VIRTUAL_IPV6)}
_OFFICES = {
    parse_address(BANK_OFFICE): parse_address(PUBLIC),
    parse_address(BANK_OFFICE_IPV6): parse_address(PUBLIC_IPV6),
}
_GATEWAY = {4: parse_address(OUTSIDE.gateway_addresses[4]), 16: parse_address(OUTSIDE.gateway_addresses[6])}


def to_virtual(flow: Flow) -> Flow:
    """As its opener sends it: to an address that DNAT leads on."""
    destination = flow.destination
    translated = {**_FARS, **_OFFICES}.get(destination, destination)
    return msgspec.structs.replace(flow, destination=translated)


def masqueraded(flow: Flow) -> Flow:
    """As the far end sees it; what the far end opens keeps its source."""
    if flow.source in _FARS:
        return flow
    return msgspec.structs.replace(flow, source=_GATEWAY[len(flow.source)])


@pytest.fixture
def translating(daemon: LabDaemon) -> Lab:
    start(daemon)
    daemon.lab.gateway.nft(TABLES)
    return daemon.lab


def test_nothing_is_lost_behind_masquerade_and_dnat_that_are_loaded_again(translating: Lab) -> None:
    with traffic(translating, to_virtual, masqueraded) as flows:
        for _ in range(3):
            translating.gateway.nft(TABLES)
            flows.goes_on(10)
        flows.refuses()
        flows.goes_on()
        flows.is_whole()


def test_a_client_behind_dnat_and_masquerade_is_told_of_a_refusal(translating: Lab) -> None:
    assert set(probe(translating, [to_virtual(each) for each in strangers()])) == {"rejected"}


def test_the_far_ends_call_of_a_stranger_behind_dnat_is_refused(daemon: LabDaemon) -> None:
    start(daemon)
    daemon.lab.gateway.nft(TABLES.replace(BANK_OFFICE, STRANGER).replace(BANK_OFFICE_IPV6, STRANGER_IPV6))
    called = [flow_of(FAR, PUBLIC, "udp/500", 500), flow_of(FAR_IPV6, PUBLIC_IPV6, "udp/500", 500)]
    assert probe(daemon.lab, called, start="internet") == ["rejected"] * 2
