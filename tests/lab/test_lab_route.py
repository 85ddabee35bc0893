"""The interface by which an address is reached, by the kernel's routing table."""

from __future__ import annotations

import pytest

from gatewayd.kernel.external import read_route
from gatewayd.lab.lab import Lab
from gatewayd.model import parse_prefix

pytestmark = pytest.mark.kernel


def test_the_routing_table_says_by_which_interface_an_address_is_reached() -> None:
    with Lab((parse_prefix("39.32.0.0/11"), parse_prefix("2400:adc0::/32"))) as lab, lab.gateway.entered():
        reached = [read_route(each) for each in ("39.32.0.1", "2400:adc0::1", "198.51.100.7", "2001:db8::7")]
    assert reached == ["inside0", "inside0", "outside0", "outside0"]


def test_an_address_that_is_not_reached_has_no_interface() -> None:
    with Lab(customer_prefixes=()) as lab, lab.customers.entered():
        assert read_route("255.255.255.255") in (None, "uplink0")
        lab.customers.configure(lambda ip: ip.route("del", dst="default", gateway="198.19.255.1"))
        assert read_route("198.51.100.7") is None
