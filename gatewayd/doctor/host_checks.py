"""Checks of the host itself: interfaces, clock, disk, versions, parts and faults of the kernel. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote
from typing import Final

from gatewayd.compile.interfaces import near_names, unmatched
from gatewayd.doctor.facts import Facts, Version
from gatewayd.doctor.findings import Finding
from gatewayd.doctor.kernel_faults import KERNEL_FAULTS, is_affected

OLDEST_KERNEL: Final[Version] = (6, 1, 0)
"""Of Debian 12, the oldest that the project is tried on."""
OLDEST_NFT: Final[Version] = (1, 0, 2)
OLDEST_PYTHON: Final[Version] = (3, 11, 0)
OLDEST_SYSTEMD: Final = 252
_MIN_FREE_BYTES: Final = 256 << 20
_MIN_FREE_SHARE: Final = 0.05
_FULL_BYTES: Final = 16 << 20
_PORTS: Final = frozenset({"bridge", "bond", "team"})


def _sides(facts: Facts) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield "inside", facts.question.inside
    yield "outside", facts.question.outside


def absent_interfaces(facts: Facts) -> Iterator[Finding]:
    """Names of `policy.interfaces` that no interface has: a misspelt one is silent."""
    if facts.links is None:
        return
    names = sorted(link.name for link in facts.links)
    for side, patterns in _sides(facts):
        absent = unmatched(patterns, names)
        if not absent:
            continue
        meant = {each: near_names(each, names) for each in absent}
        listed = dict.fromkeys(meant[each][0] if meant.get(each) else each for each in patterns)
        is_all = len(absent) == len(patterns)
        yield Finding(
            "interface-absent",
            "fault" if is_all else "warning",
            f"no interface is named {' or '.join(absent)} (policy.interfaces.{side})",
            "the rules judge no packet, in any mode, until one has such a name"
            if is_all
            else "the rules judge what crosses between inside and outside; this interface is neither",
            setting=f"policy.interfaces.{side}: [{', '.join(listed)}]" if all(meant.values()) else None,
        )


def down_interfaces(facts: Facts) -> Iterator[Finding]:
    for link in facts.named((*facts.question.inside, *facts.question.outside)):
        if not link.is_up:
            yield Finding(
                "interface-down",
                "warning",
                f"the interface {link.name} is down",
                "nothing passes by it",
                f"ip link set dev {link.name} up",
            )


def ports(facts: Facts) -> Iterator[Finding]:
    """A port of a bridge or bond: packets have the name of the bridge or bond in our rules."""
    for side, patterns in _sides(facts):
        for link in facts.named(patterns):
            if link.master_kind in _PORTS:
                listed = dict.fromkeys(link.master if each == link.name else each for each in patterns)
                yield Finding(
                    "interface-port",
                    "fault",
                    f"{link.name} (policy.interfaces.{side}) is a port of the {link.master_kind} {link.master}",
                    f"in the forward hook its packets come from {link.master}, so the rules do not meet them",
                    setting=f"policy.interfaces.{side}: [{', '.join(listed)}]",
                )
            elif link.master_kind == "vrf":
                listed = dict.fromkeys((*patterns, link.master))
                if link.master not in {each.name for each in facts.named(patterns)}:
                    yield Finding(
                        "interface-port",
                        "warning",
                        f"{link.name} (policy.interfaces.{side}) is in the VRF {link.master}, which is not named",
                        f"in the forward hook a packet that came in by {link.name} comes from {link.master}",
                        setting=f"policy.interfaces.{side}: [{', '.join(listed)}]",
                    )


def clock(facts: Facts) -> Iterator[Finding]:
    if facts.is_synced is False:
        yield Finding(
            "clock",
            "warning",
            "no NTP program keeps this host's clock (the kernel says that it is not synchronised)",
            "windows of registrations close late or not at all, and a signed registry may be refused",
            "timedatectl set-ntp true",
        )


def disk(facts: Facts) -> Iterator[Finding]:
    found = facts.disk
    if found is None:
        return
    is_short = found.free_bytes < min(_MIN_FREE_BYTES, _MIN_FREE_SHARE * found.size_bytes)
    if is_short or found.free_bytes < _FULL_BYTES or (found.files and found.files_free < found.files * 0.02):
        yield Finding(
            "disk",
            "fault" if found.free_bytes < _FULL_BYTES else "warning",
            f"{found.path} has {found.free_bytes >> 20:,} MiB and room for {found.files_free:,} files left",
            "accounting is answered once it is on disk: with a full disk no NAS gets an answer, and the last good"
            " registry grows old",
            f"du -xh --max-depth=2 $(stat -c %m {quote(found.path)}) | sort -h | tail",
        )


def versions(facts: Facts) -> Iterator[Finding]:
    found = facts.versions
    systemd = None if found.systemd is None else (found.systemd, 0, 0)
    for program, package, version, oldest in (
        ("the kernel", "linux-image-amd64", found.kernel, OLDEST_KERNEL),
        ("nft", "nftables", found.nft, OLDEST_NFT),
        ("Python", "python3", found.python, OLDEST_PYTHON),
        ("systemd", "systemd", systemd, (OLDEST_SYSTEMD, 0, 0)),
    ):
        if version is not None and version < oldest:
            shown = program == "systemd"
            yield Finding(
                "version",
                "warning",
                f"{program} is {_text(version, shown)}, older than {_text(oldest, shown)}",
                "gatewayd is not tried with it",
                f"apt-get install {package}",
            )


def _text(version: Version, is_single: bool) -> str:
    return str(version[0]) if is_single else ".".join(map(str, version))


def kernel_features(facts: Facts) -> Iterator[Finding]:
    for module in facts.missing:
        yield Finding(
            "kernel-feature",
            "fault",
            f"the kernel has no {module}",
            "the daemon does not start without it",
            f"modprobe {module}",
        )


def rules_refused(facts: Facts) -> Iterator[Finding]:
    if facts.refusal is not None:
        yield Finding(
            "rules-refused",
            "fault",
            f"nft and the kernel refuse the rules of this policy: {facts.refusal}",
            "the daemon would keep the rules that are in force, or have none",
            "apt-get install nftables linux-image-amd64",
        )


def kernel_faults(facts: Facts) -> Iterator[Finding]:
    version = facts.versions.kernel
    for fault in KERNEL_FAULTS if version is not None else ():
        if version is not None and is_affected(fault, version):
            yield Finding(
                "kernel-fault",
                fault.severity,
                f"Linux {'.'.join(map(str, version))}: {fault.what} ({fault.source})",
                fault.why,
                "apt-get install --only-upgrade linux-image-amd64",
            )


def unread(facts: Facts) -> Iterator[Finding]:
    """A reading that failed is never silence."""
    for subject, reason, is_denied in facts.unread:
        yield Finding(
            "unread",
            "warning",
            f"{subject} could not be read: {reason}",
            "the checks that need it say nothing",
            "sudo gatewayd doctor" if is_denied else None,
        )


CHECKS: Final = {
    "interface-absent": absent_interfaces,
    "interface-down": down_interfaces,
    "interface-port": ports,
    "clock": clock,
    "disk": disk,
    "version": versions,
    "kernel-feature": kernel_features,
    "rules-refused": rules_refused,
    "kernel-fault": kernel_faults,
    "unread": unread,
}
