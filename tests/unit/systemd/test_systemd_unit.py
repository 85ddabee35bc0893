"""The unit, as systemd-analyze reads it and as a list of what it promises."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

SHIPPED = Path(__file__).parents[3] / "systemd"
UNIT = SHIPPED / "gatewayd.service"
SERVICES = ("gatewayd.service", "gatewayd-registry.service", "gatewayd-registry-publish.service")
UNKNOWN_TYPE = re.compile(r".*/gatewayd\.service:\d+: Failed to parse service type, ignoring: notify-reload")
NOTIFY_RELOAD_SINCE = 253
LONGEST_LINE = 120
EXPOSURE_ALLOWED = 2.0

Settings = dict[str, dict[str, list[str]]]


def read_unit(path: Path) -> Settings:
    """Sections of keys of assignments in order; configparser would keep only the last of a key."""
    sections: Settings = {}
    section: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), defaultdict(list))
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section[key].append(value)
    return sections


@pytest.fixture(scope="module")
def service() -> dict[str, list[str]]:
    return read_unit(UNIT)["Service"]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def systemd_version() -> int:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    found = re.match(r"systemd (\d+)", analyze("--version").stdout)
    assert found is not None
    return int(found[1])


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit as on a host that has gatewayd: the command is one that exists."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/usr/bin/gatewayd ", f"{shutil.which('true')} "))
    return path


@pytest.mark.parametrize("with_drop_in", [False, True])
def test_systemd_understands_all_of_the_unit(systemd_version: int, installed: Path, with_drop_in: bool) -> None:
    """But for one word: before 253 systemd says that it ignores notify-reload, and stays with notify."""
    if with_drop_in:
        shutil.copytree(SHIPPED / "gatewayd.service.d", installed.parent / "gatewayd.service.d")
    verified = analyze("verify", str(installed))
    # It reads the host's other units too, and has something to say of some (freeradius.service on Debian 12).
    complaints = [line for line in verified.stderr.splitlines() if UNIT.name in line]
    if systemd_version < NOTIFY_RELOAD_SINCE:
        assert len(complaints) == 1
        assert UNKNOWN_TYPE.fullmatch(complaints[0])
    else:
        assert complaints == []
    assert verified.returncode == 0


@pytest.mark.parametrize("name", SERVICES)
def test_the_units_are_shut_in(systemd_version: int, name: str) -> None:
    reviewed = analyze("security", "--offline=true", "--no-pager", str(SHIPPED / name))
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", reviewed.stdout)
    if exposure is None:
        pytest.skip(f"systemd {systemd_version} does not review units offline: {reviewed.stderr.strip()}")
    assert float(exposure[1]) <= EXPOSURE_ALLOWED


def test_net_admin_is_the_only_capability(service: dict[str, list[str]]) -> None:
    assert service["AmbientCapabilities"] == ["CAP_NET_ADMIN"]
    assert service["CapabilityBoundingSet"] == ["CAP_NET_ADMIN"]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["User"] == service["Group"] == ["gatewayd"]


def test_stopping_runs_nothing_that_could_touch_the_kernel(service: dict[str, list[str]]) -> None:
    assert not {"ExecStop", "ExecStopPost"} & service.keys()


def test_readiness_and_reload_are_told_by_the_daemon_and_may_take_their_time(
    service: dict[str, list[str]],
) -> None:
    assert service["Type"] == ["notify", "notify-reload"]
    assert service["NotifyAccess"] == ["main"]
    assert service["TimeoutStartSec"] == ["infinity"]
    assert service["WatchdogSec"] == ["30"]
    assert "ExecReload" not in service  # beside notify-reload it would be a second signal


def test_older_systemd_reloads_by_a_drop_in() -> None:
    drop_in = read_unit(SHIPPED / "gatewayd.service.d" / "systemd-252.conf")
    assert drop_in == {"Service": {"ExecReload": ["/bin/kill -HUP $MAINPID"]}}


def test_the_daemon_is_always_started_again(service: dict[str, list[str]]) -> None:
    assert service["Restart"] == ["always"]
    assert read_unit(UNIT)["Unit"]["StartLimitIntervalSec"] == ["0"]


def test_it_starts_after_the_hosts_rules_and_before_the_network() -> None:
    unit = read_unit(UNIT)["Unit"]
    assert unit["After"][0] == "nftables.service"
    assert unit["Before"] == ["network-pre.target", "shutdown.target"]
    assert unit["Wants"] == ["network-pre.target"]
    assert not {"PartOf", "BindsTo", "Requires"} & unit.keys()


def test_it_is_after_nothing_that_may_be_after_the_network() -> None:
    """Else systemd meets a cycle at boot, and gives up one of its units. cloud-init brings the network up before
    sysinit.target; NTP daemons come after network.target, or wait for ever for an answer."""
    unit = read_unit(UNIT)["Unit"]
    assert unit["DefaultDependencies"] == ["no"]
    assert unit["Conflicts"] == ["shutdown.target"]
    early = {"nftables.service", "local-fs.target", "time-set.target"}
    early |= {f"systemd-{name}.service" for name in ("sysusers", "modules-load", "sysctl")}
    assert set(" ".join(unit["After"]).split()) == early


def test_the_kernel_may_be_asked_whether_ntp_keeps_its_clock_and_it_cannot_be_set(
    service: dict[str, list[str]],
) -> None:
    assert service["ProtectClock"] == ["no"]
    assert service["SystemCallFilter"][-1] == "adjtimex clock_adjtime"
    assert "CAP_SYS_TIME" not in " ".join(service["CapabilityBoundingSet"])


def test_no_configuration_is_no_failed_unit() -> None:
    assert read_unit(UNIT)["Unit"]["ConditionPathExists"] == ["/etc/gatewayd/gatewayd.yaml"]


def test_the_users_of_the_units_are_those_that_sysusers_makes() -> None:
    lines = [
        line.split(maxsplit=3)
        for line in (SHIPPED / "gatewayd.sysusers").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    users = {user for name in SERVICES for user in read_unit(SHIPPED / name)["Service"]["User"]}
    assert {tuple(line[:2]) for line in lines} == {("u", user) for user in users}


def test_the_registry_has_nothing_of_the_daemon_and_its_server_nothing_of_the_key() -> None:
    daemon, server, publisher = (read_unit(SHIPPED / name)["Service"] for name in SERVICES)
    assert server["User"] == publisher["User"] != daemon["User"]
    assert server["CapabilityBoundingSet"] == publisher["CapabilityBoundingSet"] == [""]
    assert "LoadCredential" not in server
    assert publisher["PrivateNetwork"] == ["yes"]


def test_whoever_reads_what_is_shipped_on_a_terminal_sees_whole_lines() -> None:
    long = [
        f"{path.name}:{number}"
        for path in SHIPPED.rglob("*")
        if path.is_file()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > LONGEST_LINE
    ]

    assert long == []
