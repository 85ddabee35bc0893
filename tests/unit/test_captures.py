"""The captures are what their origin says, bundles cover what they show, and docs/scope.md has their figures."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import pytest

from gatewayd.model import parse_services
from gatewayd.model.service import BUNDLES, UDP
from tests.support.replay import (
    CAPTURES,
    DEFAULT_SCOPE,
    SCOPE_PAGE,
    SHOWN,
    Capture,
    captures,
    manifest,
    scope_page_of,
    share_of,
)

each_capture = pytest.mark.parametrize("capture", captures(), ids=lambda capture: capture.name)


def test_the_files_are_those_of_the_manifest_byte_for_byte() -> None:
    files = {each["file"]: each["sha256"] for each in manifest()}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in CAPTURES.glob("*.pcap*")}
    assert found == files
    assert files.keys() == SHOWN.keys()


@each_capture
def test_every_packet_of_a_capture_is_replayed_or_left_out_with_a_reason(capture: Capture) -> None:
    entry = next(each for each in manifest() if each["file"] == capture.name)
    assert len(capture.packets) + len(capture.left_out) == entry["packets"]
    assert Counter(capture.left_out.values())["no IP packet"] == entry["non_ip_packets"]
    assert share_of(capture.packets).flows == entry["distinct_flows"] - len(capture.unforwarded)


@each_capture
def test_its_bundles_cover_what_a_capture_shows_but_for_the_services_named(capture: Capture) -> None:
    bundles, more = SHOWN[capture.name]
    covered, rest = parse_services(bundles), parse_services(more)
    for each in capture.packets:
        to_service = each.opened.protocol, each.opened.destination_port
        assert any(service.matches(*to_service) for service in covered + rest), each.name
    # Each of the others is there, and no bundle has it.
    opened = {each.opened for each in capture.packets}
    for service in rest:
        assert any(service.matches(flow.protocol, flow.destination_port) for flow in opened)
        assert service not in DEFAULT_SCOPE


def test_the_page_has_the_figures_of_the_captures() -> None:
    text = SCOPE_PAGE.read_text(encoding="utf-8")
    assert scope_page_of(text) == text


def test_the_page_has_the_bundles_as_they_are() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| ((?:`[\w/]+`(?:, )?)+) \|$", SCOPE_PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {name: parse_services(words.replace("`", "").split(", ")) for name, words in rows} == {
        name: tuple(sorted(services)) for name, services in BUNDLES.items()
    }


def test_eight_of_ten_openvpn_flows_are_at_other_ports() -> None:
    """The page says so."""
    (capture,) = (each for each in captures() if each.name == "ndpi-openvpn.pcap")
    opened = {each.opened for each in capture.packets}
    assert (len(opened), sum(flow.destination_port != 1194 for flow in opened)) == (10, 8)
    assert {flow.destination_port for flow in opened if flow.protocol == UDP} == {443, 1194, 1234, 13680}
