"""Other programs on the lab's gateway, as an ISP has them, and the traffic that must not notice them.

A neighbour that writes outside its network namespace (ufw to /etc, firewalld to /run) has a mount and a process
namespace of its own, which end with this process however it ends.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, Self

from gatewayd.demo.cast import BANK, EMBASSY, FAR, FAR_IPV6, SOFTWARE_HOUSE, STRANGER, STRANGER_IPV6
from gatewayd.doctor.diagnosis import diagnose
from gatewayd.doctor.facts import Facts, question_of
from gatewayd.doctor.findings import Finding
from gatewayd.doctor.readings import read_facts
from gatewayd.lab.lab import Lab, Side
from gatewayd.lab.namespace import Namespace, enter
from gatewayd.lab.stream import Stream, StreamReport
from gatewayd.lab.traffic import flow_of, probe
from gatewayd.model import Flow
from gatewayd.settings import load_settings
from tests.support.lab_daemon import LabDaemon

HOUSE, HOUSE_IPV6 = "39.32.64.10", "2400:adc0:100::10"
BANK_OFFICE, BANK_OFFICE_IPV6 = "39.32.0.5", "2400:adc0:12::5"
EMBASSY_OFFICE, EMBASSY_OFFICE_IPV6 = "39.33.7.1", "2400:adc1:7::1"
REGISTERED: Final = 0x80000000
"""The bit of the ct mark that says so, with the mask of the example."""
SETTLE: Final = 30
"""Packets of each stream that arrive after a neighbour has done something."""
_STREAM_PPS: Final = 100.0
_NEW_FLOWS: Final = 5_000
_ports = count(1)

OPENED: Final = (
    flow_of(HOUSE, FAR, "udp/51820", 40001), flow_of(HOUSE_IPV6, FAR_IPV6, "udp/51820", 40001),
    flow_of(BANK_OFFICE, FAR, "udp/4500", 4500), flow_of(BANK_OFFICE_IPV6, FAR_IPV6, "udp/4500", 4500),
    flow_of(EMBASSY_OFFICE, FAR, "esp"), flow_of(EMBASSY_OFFICE_IPV6, FAR_IPV6, "esp"),
)  # fmt: skip
CALLED: Final = (
    flow_of(FAR, BANK_OFFICE, "udp/500", 500), flow_of(FAR_IPV6, BANK_OFFICE_IPV6, "udp/500", 500),
    flow_of(FAR, EMBASSY_OFFICE, "gre"), flow_of(FAR_IPV6, EMBASSY_OFFICE_IPV6, "gre"),
)  # fmt: skip
"""Registered flows that the far end opens."""


def new_flows() -> list[Flow]:
    """Of the software house, which were never there before; the two families take turns."""
    low = 10_000
    ends = ((HOUSE, FAR), (HOUSE_IPV6, FAR_IPV6))
    return [flow_of(*ends[n % 2], "udp/1194", low + n) for n in range(_NEW_FLOWS)]


def strangers() -> list[Flow]:
    """Unregistered flows of both families, new ones each time."""
    port = 50_000 + next(_ports)
    return [
        flow_of(source, far, service, port)
        for source, far in ((STRANGER, FAR), (STRANGER_IPV6, FAR_IPV6))
        for service in ("udp/51820", "esp", "tcp/1194")
    ]


def start(daemon: LabDaemon, mode: str = "reject", **sections: Any) -> Lab:
    """With the registrations of the flows above."""
    daemon.write_registry("national", [BANK, SOFTWARE_HOUSE, EMBASSY])
    daemon.configure(mode, **sections)
    daemon.start()
    daemon.wait_ready()
    return daemon.lab


def examine(daemon: LabDaemon) -> dict[str, list[Finding]]:
    """The doctor's findings on the gateway, by check."""

    def inside() -> Facts:
        enter(daemon.lab.gateway.descriptor)
        return read_facts(question_of(load_settings(daemon.config_path.read_text(), "test")))

    with ThreadPoolExecutor(1) as thread:
        facts = thread.submit(inside).result()
    found: dict[str, list[Finding]] = {}
    for each in diagnose(facts, "now").findings:
        found.setdefault(each.check, []).append(each)
    return found


class Traffic:
    """Registered flows of both families: old ones that are answered, opened by either end, and new ones all the
    time, one a packet. Every packet is accounted for."""

    def __init__(self, lab: Lab, streams: dict[str, Stream]) -> None:
        self._lab = lab
        self._streams = streams

    def goes_on(self, packets: int = SETTLE) -> None:
        """Packets of each stream arrive that were sent from now on, or nearly so."""
        for name, stream in self._streams.items():
            assert stream.wait_for_arrivals(packets, 30.0), f"{name}: nothing arrives"

    def refuses(self) -> None:
        """Unregistered flows, whose client is told."""
        assert set(probe(self._lab, strangers())) == {"rejected"}

    def reports(self) -> dict[str, StreamReport]:
        return {name: stream.stop() for name, stream in self._streams.items()}

    def is_whole(self) -> None:
        """Nothing was lost, refused or left without its answer since the beginning."""
        for name, report in self.reports().items():
            assert (report.lost, report.rejected) == ((), ()), (name, report)
            assert name == "new" or report.answered == report.sent, (name, report)


def _same(flow: Flow) -> Flow:
    return flow


@contextmanager
def traffic(
    lab: Lab, sent: Callable[[Flow], Flow] = _same, seen: Callable[[Flow], Flow] = _same
) -> Iterator[Traffic]:
    """Its flows are there, known in both directions, when the block begins. `sent`, `seen`: a flow as its opener
    sends it, and as the other side sees it, where the gateway translates."""

    def stream(flows: Sequence[Flow], start: Side = "customers", *, answered: bool = True) -> Stream:
        ways = [sent(each) for each in flows], [seen(each) for each in flows]
        return Stream(lab, ways[0], rate_pps=_STREAM_PPS, answered=answered, start=start, seen_as=ways[1])

    with ExitStack() as stack:
        streams = {
            "opened": stream(OPENED),
            "called": stream(CALLED, "internet"),
            "new": stream(new_flows(), answered=False),
        }
        for each in streams.values():
            stack.enter_context(each)
        made = Traffic(lab, streams)
        made.goes_on()
        yield made


# -- neighbours ----------------------------------------------------------------------------------------------------


class Neighbour:
    """Commands in the gateway's network, with mounts and processes of their own. `setup`: at a shell, first."""

    def __init__(self, gateway: Namespace, setup: str) -> None:
        self._gateway = gateway
        script = f"set -e\nmount -t tmpfs none /run\n{setup}\necho ready\nexec sleep infinity\n"
        room = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        self._holder = gateway.popen([*room, "sh", "-c", script], stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"

    def command(self, *arguments: str) -> list[str]:
        spaces = Path("/proc", str(self._holder.pid), "ns")
        return ["nsenter", f"--mount={spaces / 'mnt'}", f"--pid={spaces / 'pid_for_children'}", "--", *arguments]

    def run(self, line: str) -> str:
        """As root at a shell; what it prints."""
        return self._gateway.run(self.command("sh", "-ec", line)).stdout

    def popen(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Ends with the neighbour."""
        return self._gateway.popen(self.command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


ADMIT: Final = f"-m connmark --mark {REGISTERED:#x}/{REGISTERED:#x} -j ACCEPT"
"""A rule of iptables that accepts registered flows."""
FAMILIES: Final = ("iptables", "ip6tables")


def restore(gateway: Namespace, text: str, *, flush: bool = True) -> None:
    """The same rules for both families."""
    for program in FAMILIES:
        gateway.run([f"{program}-nft-restore", *(() if flush else ("-n",))], input=text)


def iptables(gateway: Namespace, arguments: str) -> None:
    """The same for both families."""
    for program in FAMILIES:
        gateway.run([f"{program}-nft", *arguments.split()])


DOCKER: Final = """
*filter
:FORWARD DROP
:DOCKER -
:DOCKER-ISOLATION-STAGE-1 -
:DOCKER-ISOLATION-STAGE-2 -
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
-I FORWARD -j DOCKER-ISOLATION-STAGE-1
-I FORWARD -j DOCKER-USER
COMMIT
*nat
:DOCKER -
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -o docker0 -m addrtype --src-type LOCAL -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
COMMIT
"""
"""As dockerd makes them at its start, behind a chain DOCKER-USER that is there (moby: libnetwork/drivers/bridge/
setup_ip_tables.go, libnetwork/firewall_linux.go)."""


def start_docker(lab: Lab) -> None:
    """Its bridge and its rules; the chain DOCKER-USER is there, or is made."""
    lab.gateway.run(["sh", "-c", "ip link show docker0 || ip link add docker0 type bridge"])
    lab.gateway.sysctl("net.bridge.bridge-nf-call-iptables", "1")
    for program in FAMILIES:
        lab.gateway.run([f"{program}-nft", "-N", "DOCKER-USER"], check=False)
    restore(lab.gateway, DOCKER, flush=False)


class Ufw(Neighbour):
    """With files of its own. `admits`: the file in which registered flows are accepted, if any."""

    def __init__(self, gateway: Namespace, directory: Path, admits: str = "") -> None:
        self._etc = directory / "ufw"
        copying = f"cp -a /etc/ufw {directory}/ufw; cp /etc/default/ufw {directory}/default"
        mounting = f"mount --bind {directory}/ufw /etc/ufw; mount --bind {directory}/default /etc/default/ufw"
        super().__init__(gateway, f"{copying}\n{mounting}")
        if admits == "before.rules":
            for version in ("", "6"):
                path = self._etc / f"before{version}.rules"
                rules = path.read_text()
                path.write_text(rules.replace(_PLACE, f"{_PLACE}\n-A ufw{version}-before-forward {ADMIT}"))
        elif admits == "before.init":
            path = self._etc / admits
            path.write_text(BEFORE_INIT)
            path.chmod(0o750)


_PLACE: Final = "# End required lines"
BEFORE_INIT: Final = f"""#!/bin/sh
[ "$1" = start ] || exit 0
for program in iptables ip6tables; do
  $program -C FORWARD {ADMIT} || $program -I FORWARD {ADMIT}
done
"""
_BUS: Final = """<busconfig><type>system</type>
<listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
<allow user="*"/></policy></busconfig>
"""


class Firewalld(Neighbour):
    """The real one, with a bus of its own. The inside is in the zone internal, the outside in public."""

    def __init__(self, gateway: Namespace, directory: Path) -> None:
        bus, config = directory / "bus.conf", directory / "firewalld"
        bus.write_text(_BUS)
        (config / "zones").mkdir(parents=True)
        (config / "zones/internal.xml").write_text('<zone><interface name="inside0"/></zone>')
        super().__init__(gateway, "mkdir /run/dbus")
        self.popen("dbus-daemon", f"--config-file={bus}", "--nofork", "--nopidfile")
        self.run("until [ -S /run/dbus/system_bus_socket ]; do sleep 0.05; done")
        self.popen("firewalld", "--nofork", "--nopid", "--system-config", str(config))
        self.run("until firewall-cmd --state; do sleep 0.05; done 2>&1")
