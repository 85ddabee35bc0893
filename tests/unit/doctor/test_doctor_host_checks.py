"""Checks of the host itself, at their edges; tests/lab/test_lab_doctor.py has them on a real kernel."""

from __future__ import annotations

import msgspec
import pytest

from gatewayd.doctor.facts import Disk, Facts, Link, Versions
from gatewayd.doctor.findings import Finding
from gatewayd.doctor.host_checks import CHECKS
from tests.support.facts import QUESTION, facts

GIB = 1 << 30


def found(check: str, of: Facts) -> list[Finding]:
    return list(CHECKS[check](of))


def asked(inside: tuple[str, ...], outside: tuple[str, ...] = ()) -> Facts:
    return facts(msgspec.structs.replace(QUESTION, inside=inside, outside=outside))


def test_names_that_no_interface_has() -> None:
    assert found("interface-absent", facts()) == []
    assert found("interface-absent", facts(links=None)) == []
    (all_of_them,) = found("interface-absent", asked(("eth",)))
    assert (all_of_them.severity, all_of_them.setting) == ("fault", "policy.interfaces.inside: [eth0]")
    (one,) = found("interface-absent", asked((), ("eth0", "eth")))
    assert (one.severity, one.setting) == ("warning", "policy.interfaces.outside: [eth0]")
    (unknown,) = found("interface-absent", asked(("wan",)))
    assert unknown.setting is None


def test_an_interface_that_is_down() -> None:
    links = (Link("eth0", is_up=False), Link("eth1", is_up=False), Link("ppp0"))
    assert [each.command for each in found("interface-down", facts(links=links))] == ["ip link set dev eth0 up"]


def test_a_port_has_the_name_of_its_bridge() -> None:
    links = (Link("bond0", "bond"), Link("eth0", master="bond0", master_kind="bond"))
    (said,) = found("interface-port", facts(links=links))
    assert said.setting == "policy.interfaces.outside: [bond0]"


def test_a_vrf_has_to_be_named_beside_its_port() -> None:
    links = (Link("red", "vrf"), Link("eth0", master="red", master_kind="vrf"))
    (said,) = found("interface-port", facts(links=links))
    assert said.setting == "policy.interfaces.outside: [eth0, red]"
    named = msgspec.structs.replace(QUESTION, outside=("eth0", "red"))
    assert found("interface-port", facts(named, links=links)) == []


def test_a_clock_that_no_program_keeps() -> None:
    (said,) = found("clock", facts(is_synced=False))
    assert said.command == "timedatectl set-ntp true"
    assert found("clock", facts(is_synced=True)) == []
    assert found("clock", facts()) == []


@pytest.mark.parametrize(
    ("size", "free", "files", "files_free", "expected"),
    [
        (100 * GIB, 50 * GIB, 1000, 900, None),
        (100 * GIB, GIB // 8, 1000, 900, "warning"),
        (GIB, GIB // 8, 1000, 900, None),
        (GIB, 1 << 20, 1000, 900, "fault"),
        (100 * GIB, 50 * GIB, 1000, 3, "warning"),
        (100 * GIB, 50 * GIB, 0, 0, None),
    ],
)
def test_a_disk_with_little_room(size: int, free: int, files: int, files_free: int, expected: str | None) -> None:
    said = found("disk", facts(disk=Disk("/var", size, free, files, files_free)))
    assert [each.severity for each in said] == ([] if expected is None else [expected])
    assert found("disk", facts()) == []


def test_versions_that_are_too_old() -> None:
    old = facts(versions=Versions("5.10.0", (5, 10, 223), (0, 9, 8), (3, 9, 2), 247))
    assert [each.what for each in found("version", old)] == [
        "the kernel is 5.10.223, older than 6.1.0", "nft is 0.9.8, older than 1.0.2",
        "Python is 3.9.2, older than 3.11.0", "systemd is 247, older than 252",
    ]  # fmt: skip
    assert found("version", facts(versions=Versions("6.18.4", (6, 18, 4), (1, 0, 6), (3, 11, 7), 252))) == []
    assert found("version", facts()) == []


def test_faults_of_a_kernel_are_gone_with_the_version_that_mends_them() -> None:
    def at(version: tuple[int, int, int] | None) -> int:
        return len(found("kernel-fault", facts(versions=Versions("", version))))

    assert at((6, 1, 50)) > at((6, 1, 170)) > at((6, 17, 0)) == at(None) == 0


def test_parts_of_the_kernel_and_rules_that_it_refuses() -> None:
    (said,) = found("kernel-feature", facts(missing=("nfnetlink_log",)))
    assert said.command == "modprobe nfnetlink_log"
    assert found("kernel-feature", facts()) == []
    (refused,) = found("rules-refused", facts(refusal="Error: no such thing"))
    assert "no such thing" in refused.what
    assert found("rules-refused", facts()) == []


def test_a_reading_that_failed_is_said() -> None:
    denied, broken = found("unread", facts(unread=(("the disk", "No", True), ("the rules", "Odd", False))))
    assert denied.what == "the disk could not be read: No"
    assert (denied.command, broken.command) == ("sudo gatewayd doctor", None)
