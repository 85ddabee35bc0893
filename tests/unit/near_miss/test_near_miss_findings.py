"""The list of registrations to call about: lines, their bound, and what takes one off."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from gatewayd.model import Service, parse_prefix
from gatewayd.near_miss.findings import KEEP_S, Findings, Line
from gatewayd.near_miss.reasons import Miss, Reason
from gatewayd.near_miss.store import decode_line, encode_line

FAR = parse_prefix("198.51.100.0/24")


def miss(id: str = "BANK", reason: Reason = "service_not_listed", port: int = 51820) -> Miss:
    return Miss(id, "bank", reason, Service(17, port, port), FAR)


def keys(lines: list[Line]) -> list[tuple[str, str]]:
    return [each.key for each in lines]


def test_a_line_counts_and_has_the_latest_service() -> None:
    findings = Findings()
    assert findings.note(miss(), 10.0)
    assert not findings.note(miss(port=500), 20.0)
    assert not findings.note(miss(), 15.0)  # the clock was set
    (line,) = findings.listed(20.0)
    assert (line.first_seen_s, line.last_seen_s, line.flows, str(line.service)) == (10.0, 20.0, 3, "udp/51820")
    assert (findings.flows, len(findings)) == (3, 1)


def test_the_latest_line_is_first() -> None:
    findings = Findings()
    for id in ("A", "B", "C", "A"):
        findings.note(miss(id), 1.0)
    assert keys(findings.listed(1.0)) == [(id, "service_not_listed") for id in "ACB"]


def test_a_restart_keeps_the_order_where_the_clock_was_set_back() -> None:
    findings = Findings()
    findings.note(miss("A"), 20.0)
    findings.note(miss("B"), 15.0)
    restored = Findings()
    restored.restore(findings.listed(20.0))
    assert keys(findings.listed(20.0)) == keys(restored.listed(20.0))
    assert [id for id, _ in keys(restored.listed(20.0))] == ["A", "B"]


@pytest.mark.parametrize("until_s", [100.0, inf])
def test_an_acknowledged_line_is_off_the_list_and_counts_on(until_s: float) -> None:
    findings = Findings()
    findings.note(miss(), 1.0)
    findings.note(miss(reason="suspended"), 1.0)
    assert findings.acknowledge("BANK", until_s) == 2
    assert findings.acknowledge("OTHER", until_s) == 0
    findings.note(miss(), 2.0)
    assert (findings.listed(50.0), findings.count_listed(50.0)) == ([], 0)
    assert [each.flows for each in findings.listed(50.0, with_acknowledged=True)] == [2, 1]
    findings.note(miss(reason="peer_not_listed"), 3.0)
    assert keys(findings.listed(50.0)) == [("BANK", "peer_not_listed")]
    assert findings.count_listed(101.0) == (3 if until_s == 100.0 else 1)
    findings.acknowledge("BANK", 0.0)
    assert findings.count_listed(50.0) == 3


def test_at_the_bound_acknowledged_lines_go_first_and_then_the_oldest() -> None:
    findings = Findings(most=3)
    for id in ("A", "B", "C"):
        findings.note(miss(id), 1.0)
    findings.acknowledge("B", inf)
    findings.note(miss("D"), 2.0)
    findings.note(miss("E"), 3.0)
    assert [each.registration_id for each in findings.listed(4.0)] == ["E", "D", "C"]
    assert findings.evicted == 2


@pytest.mark.parametrize("now", [KEEP_S + 11.0, -KEEP_S])
def test_a_line_goes_when_its_last_flow_is_old_or_lies_far_ahead(now: float) -> None:
    findings = Findings()
    findings.note(miss(), 10.0)
    findings.take_changed()
    findings.expire(11.0)
    assert len(findings) == 1
    findings.expire(now)
    assert (len(findings), findings.take_changed()) == (0, {("BANK", "service_not_listed"): None})


def test_what_changed_is_told_once_and_as_it_was_then() -> None:
    findings = Findings()
    findings.note(miss(), 1.0)
    changed = findings.take_changed()
    findings.note(miss(), 2.0)
    line = changed["BANK", "service_not_listed"]
    assert line is not None
    assert line.flows == 1
    assert findings.take_changed().keys() == changed.keys()
    assert findings.take_changed() == {}


def test_a_restart_goes_on_with_the_latest_lines() -> None:
    findings = Findings()
    for number, id in enumerate(("A", "B", "C")):
        findings.note(miss(id), float(number))
    findings.acknowledge("C", inf)
    kept = [line for line in findings.take_changed().values() if line is not None]
    read = [decode_line(encode_line(line)) for line in kept]
    assert read == kept
    restored = Findings(most=2)
    restored.restore(line for line in read if line is not None)
    assert [each.registration_id for each in restored.listed(9.0, with_acknowledged=True)] == ["C", "B"]
    assert restored.count_listed(9.0) == 1
    assert restored.take_changed() == {}


@pytest.mark.parametrize("content", ["", "{}", "[1]", None, b"\xff", 7])
def test_a_row_that_is_not_ours_is_left_out(content: Any) -> None:
    assert decode_line(content) is None


def test_a_row_with_a_far_end_or_a_reason_that_is_none_is_left_out() -> None:
    line = Line("A", "bank", "suspended", 1.0, 2.0, 3, Service(47), FAR, 5.0)
    assert decode_line(encode_line(line)) == line
    assert decode_line(encode_line(line).replace("198.51.100.0/24", "198.51.100.7/24")) is None
    assert decode_line(encode_line(line).replace("suspended", "asleep")) is None
