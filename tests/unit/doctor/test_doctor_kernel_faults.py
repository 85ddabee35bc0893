"""Faults of the kernel by version, and the version that a kernel stands for."""

from __future__ import annotations

import pytest

from gatewayd.doctor.kernel_faults import KERNEL_FAULTS, is_affected, upstream_version

CRASH = KERNEL_FAULTS[0]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((5, 18, 19), False), ((5, 19, 0), True), ((6, 1, 146), True), ((6, 1, 147), False), ((6, 5, 9), True),
        ((6, 12, 39), True), ((6, 12, 40), False), ((6, 16, 0), False), ((6, 18, 1), False),
    ],
)  # fmt: skip
def test_a_backport_ends_a_fault_in_its_branch_alone(version: tuple[int, int, int], expected: bool) -> None:
    assert is_affected(CRASH, version) is expected


def test_each_fault_names_where_it_was_mended() -> None:
    for fault in KERNEL_FAULTS:
        assert fault.since < fault.fixed
        assert "commit" in fault.source or "NFTA" in fault.source


@pytest.mark.parametrize(
    ("release", "version", "expected"),
    [
        ("6.1.0-47-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.170-3 (2026-05-08)", (6, 1, 170)),
        ("6.8.0-31-generic", "#31-Ubuntu SMP PREEMPT_DYNAMIC", None),
        ("5.14.0-503.el9.x86_64", "#1 SMP PREEMPT_DYNAMIC", None),
        ("6.18.44-fc-v657", "#1 SMP", (6, 18, 44)),
        ("6.19-rc2", "#1 SMP", (6, 19, 0)),
        ("home-made", "", None),
    ],
)
def test_a_kernel_stands_for_an_upstream_version_or_is_not_judged(
    release: str, version: str, expected: tuple[int, int, int] | None
) -> None:
    assert upstream_version(release, version) == expected
