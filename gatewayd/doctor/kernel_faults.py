"""Faults of Linux that a gateway meets, by version. Pure.

Versions are those of the CVE records that kernel.org publishes, and of Debian's changelog of linux where there is
no record. A kernel whose maker takes fixes in under its own numbers (Ubuntu, RHEL) is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gatewayd.doctor.facts import Version
from gatewayd.doctor.findings import Severity


@dataclass(frozen=True, slots=True)
class KernelFault:
    """`since`: the first version that has it. `fixed`: the first without, of the main line. `backports`: the first
    patch level without, by stable branch."""

    severity: Severity
    since: Version
    fixed: Version
    backports: Mapping[tuple[int, int], int]
    what: str
    why: str
    source: str


KERNEL_FAULTS: Final = (
    KernelFault(
        "warning",
        (5, 19, 0),
        (6, 16, 0),
        {(6, 1): 147, (6, 6): 100, (6, 12): 40, (6, 15): 8},
        "conntrack may crash the host when an entry is removed while another takes its place",
        "strangers' packets can bring it about: a busy gateway with short UDP flows meets it first",
        "CVE-2025-38472, commit 2d72afb34065",
    ),
    KernelFault(
        "warning",
        (4, 1, 0),
        (6, 8, 0),
        {(5, 10): 224, (5, 15): 165, (6, 1): 97, (6, 6): 84, (6, 7): 5},
        "an element of a set may expire in the middle of a transaction",
        "bindings are elements with a timeout: a transaction that replaces them may be undone halfway",
        "CVE-2024-27397, commit 7395dfacfff6",
    ),
    KernelFault(
        "warning",
        (6, 1, 0),  # older ones have it too; they are older than we are tried with
        (6, 5, 0),
        {(6, 1): 55},
        "removal of expired elements races with transactions of nf_tables",
        "memory of the kernel is used after it was freed: the host may crash at any change of a set with timeouts",
        "CVE-2023-4244, commit 3e91b0ebd994",
    ),
    KernelFault(
        "note",
        (2, 6, 18),
        (6, 17, 0),
        {(5, 10): 241, (5, 15): 190, (6, 1): 149, (6, 6): 103, (6, 12): 43, (6, 15): 11, (6, 16): 2},
        "a list of connections may keep one of them for ever",
        "a network namespace or the conntrack module then cannot be removed; traffic is not touched",
        "CVE-2025-38721, commit de788b2e6227",
    ),
    KernelFault(
        "warning",
        (6, 1, 0),
        (6, 3, 0),
        {(6, 1): 20, (6, 2): 7},
        "events of connections come without their mark",
        "registered flows are known by their mark: their ends are not seen, and flows live on in the list",
        "commit 9f7dd42f0db1, which mends 1feeae071507",
    ),
    KernelFault(
        "note",
        (3, 13, 0),
        (6, 17, 0),
        {},
        "sets do not say how many elements they have",
        "each verification reads the sets instead of comparing counts, and a set of a million takes some 15 s",
        "NFTA_SET_COUNT came with 6.17",
    ),
)


def is_affected(fault: KernelFault, version: Version) -> bool:
    """Whether a kernel.org version has the fault."""
    if version < fault.since or version >= fault.fixed:
        return False
    patch = fault.backports.get(version[:2])
    return patch is None or version[2] < patch


_RELEASE: Final = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_DEBIAN: Final = re.compile(r"Debian (\d+)\.(\d+)\.(\d+)")
_OWN_NUMBERS: Final = re.compile(r"Ubuntu|\.el\d|\.amzn|-azure|-aws|-gcp")


def upstream_version(release: str, version: str) -> Version | None:
    """Of a kernel, by `uname -r` and `uname -v`: Debian's names the stable version it is built from. None where the
    numbers say nothing about fixes."""
    if match := _DEBIAN.search(version):
        return int(match[1]), int(match[2]), int(match[3])
    if _OWN_NUMBERS.search(f"{release} {version}") or not (match := _RELEASE.match(release)):
        return None
    return int(match[1]), int(match[2]), int(match[3] or 0)
