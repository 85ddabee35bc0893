"""Findings: what counts as wrong."""

from __future__ import annotations

from gatewayd.doctor.findings import Finding, HostView, count_wrong, names_of

NOTE = Finding("other-drops", "note", "what", "why")
FAULT = Finding("forwarding", "fault", "what", "why")
WARNING = Finding("clock", "warning", "what", "why")


def test_notes_are_nothing_wrong() -> None:
    assert not HostView(findings=(NOTE,)).has_findings
    assert HostView(findings=(NOTE, WARNING)).has_findings
    assert count_wrong((FAULT, WARNING, NOTE)) == 2
    assert names_of((FAULT, NOTE, WARNING, FAULT)) == "forwarding, clock"
