"""Two gateways on shared segments, with keepalived and conntrackd as docs/operations.md configures them.

    customers uplink0 ─┬─ inside0 gw1 outside0 ─┬─ far0 internet
                       └─ inside0 gw2 outside0 ─┘           gw1 sync0 ─ sync0 gw2

Each segment is a bridge in a namespace of its own. Customers and internet route to the shared addresses (VRRP), and
find them by ARP and neighbour discovery. Each program has a process namespace, which ends with the process that
started it, and a mount namespace where its part of `/etc`, `/run` and `/var/log` is the gateway's own.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import textwrap
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, Self

from pyroute2 import IPRoute

from gatewayd.lab.lab import End, Lab, prepare_gateway, quiet, take_in_any_destination, wait_until_up
from gatewayd.lab.namespace import Namespace
from tests.support.events import flush_connections
from tests.support.lab_daemon import LabDaemon, daemon_in, holds

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "operations.md"
PROGRAMS: Final = ("keepalived", "conntrackd")
CUSTOMERS: Final = ("39.32.0.0/11", "2400:adc0::/31")
CONFIG: Final = "/etc/conntrackd/conntrackd.conf"
_SEGMENTS: Final = {
    "inside": ("uplink0", "198.18.1.", "2001:db8:1::"),
    "outside": ("far0", "198.18.2.", "2001:db8:2::"),
}
"""The interface of the end, and the leading part of the addresses of both families."""
_SHARED, _END = "1", "2"
_SYNC: Final = "sync0"
_ROOM: Final = ("run", "var/log", "etc/conntrackd", "etc/keepalived")
_ENTER_ROOM: Final = (
    "mount --make-rprivate / && "
    f"for each in {' '.join(_ROOM)}; do mount --bind $0/$each /$each || exit 1; done; "
    'exec "$@"'
)


def missing_for_pair() -> str | None:
    """None, or the program that is not installed."""
    return next((f"{each} is not installed" for each in PROGRAMS if shutil.which(each) is None), None)


def documented(first_words: str) -> str:
    """The block of the section on two gateways that begins so."""
    section = DOCUMENT.read_text(encoding="utf-8").partition("\n## Two gateways\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^  ```\w*\n(.*?)^  ```$", section, re.MULTILINE | re.DOTALL)
    (found,) = [text for text in map(textwrap.dedent, blocks) if text.startswith(first_words)]
    return found


class Member(Lab):
    """One of the two, as a lab: its gateway, and the ends that both share. `directory`: of its files."""

    def __init__(self, number: int, inside: End, outside: End, switch: Namespace, directory: Path) -> None:
        self.number, self.directory, self._switch = number, directory, switch
        self.inside, self.outside = inside, outside
        self.customers, self.internet = inside.namespace, outside.namespace
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        with ExitStack() as stack:
            self.gateway = stack.enter_context(Namespace(f"gw{number}"))
            prepare_gateway(self.gateway)
            for line in documented("net.ipv4.ip_forward").splitlines():
                name, _, value = line.partition(" = ")
                self.gateway.sysctl(name, value)
            for segment in _SEGMENTS:
                _plug(switch, segment, number, self.gateway, f"{segment}0")
            self._write_files()
            self.daemon: LabDaemon = stack.enter_context(daemon_in(self, directory, warm=True))
            self._stack = stack.pop_all()

    @property
    def arriving(self) -> list[End]:
        """Where packets for this gateway come in."""
        return [End(self.gateway, f"{segment}0") for segment in _SEGMENTS]

    @property
    def leaving(self) -> list[End]:
        """Where packets that it has sent arrive at the switch."""
        return [End(self._switch, f"{segment}{self.number}") for segment in _SEGMENTS]

    @property
    def own_address(self) -> str:
        """Where a NAS reaches it, and no other gateway."""
        return f"{_SEGMENTS['inside'][1]}1{self.number}"

    def _write_files(self) -> None:
        for each in (*_ROOM, "run/lock"):
            (self.directory / each).mkdir(parents=True, exist_ok=True)
        script = self.directory / "etc/conntrackd/ha.sh"
        script.write_text(documented("#!/bin/sh"))
        script.chmod(0o700)
        (self.directory / "etc/conntrackd/conntrackd.conf").write_text(
            self._own(documented("Sync {"), "10.99.0.1", "10.99.0.2")
        )
        (self.directory / "etc/keepalived/keepalived.conf").write_text(
            self._own(documented("global_defs"), ".11", ".12")
        )

    def _own(self, text: str, first: str, second: str) -> str:
        """For the second gateway, with what the document says to swap and to change."""
        if self.number == 1:
            return text
        either = rf"({re.escape(first)}|{re.escape(second)})\b"
        text = re.sub(either, lambda found: second if found[0] == first else first, text)
        return text.replace("router_id gw1", "router_id gw2").replace("priority 150", "priority 100")

    # -- programs ----------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """keepalived or conntrackd, as its unit starts it."""
        command = {
            "keepalived": ["keepalived", "--dont-fork", "--log-console", "--log-detail", "--vrrp"],
            "conntrackd": ["conntrackd", "-C", CONFIG],
        }[name]
        with (self.directory / f"{name}.out").open("wb") as output:
            self._programs[name] = self.gateway.popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", *self._in_room(*command)],
                stdout=output,
                stderr=output,
            )
        if name == "conntrackd":
            assert holds(lambda: (self.directory / "run/conntrackd.ctl").exists()), self.said(name)

    @property
    def is_conntrackd_running(self) -> bool:
        return "conntrackd" in self._programs

    def start_backup(self) -> None:
        """keepalived, where the other is master; it listens when this returns."""
        self.start("keepalived")
        assert holds(lambda: "BACKUP STATE" in self.said("keepalived")), self.said("keepalived")

    def _in_room(self, *command: str) -> list[str]:
        return ["sh", "-c", _ENTER_ROOM, str(self.directory), *command]

    def stop(self, name: str) -> None:
        """As `systemctl stop`: SIGTERM to the program itself, and wait."""
        process = self._programs.pop(name)
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGTERM)
        process.wait(30.0)

    def said(self, name: str) -> str:
        """Its output since it was started last."""
        return (self.directory / f"{name}.out").read_text(errors="replace")

    def conntrackd(self, *words: str) -> str:
        """What conntrackd answers to a command."""
        command = self._in_room("conntrackd", "-C", CONFIG, *words)
        return self.gateway.run(["unshare", "--mount", *command]).stdout

    def _kill_programs(self) -> None:
        for process in self._programs.values():
            process.kill()
        for process in self._programs.values():
            process.wait(30.0)
        self._programs.clear()

    def close(self) -> None:
        self._kill_programs()
        super().close()

    # -- the box -----------------------------------------------------------------------------------------------

    @property
    def is_master(self) -> bool:
        """Whether it has the shared addresses of both segments and both families."""
        wanted = {f"{leading}{_SHARED}" for _, *both in _SEGMENTS.values() for leading in both}

        def addresses(ip: IPRoute) -> set[str]:
            return {address for each in ip.get_addr() if (address := each.get_attr("IFA_ADDRESS"))}

        return wanted <= self.gateway.configure(addresses)

    def power_off(self) -> None:
        """All processes end by SIGKILL, the cables are dead, and the kernel has forgotten everything."""
        for process in self._programs.values():
            process.kill()
        # At the switch first: with one interface down a packet goes back where it came from, by the default route.
        self._set_ports("down")
        self._ip(*(f"link set {name} down" for name in (*_interfaces(), _SYNC)))
        self.daemon.stop_for_good()
        self._kill_programs()
        self.gateway.run(["nft", "flush", "ruleset"])
        flush_connections(self.gateway)
        shutil.rmtree(self.directory / "run")
        (self.directory / "run/lock").mkdir(parents=True)

    def power_on(self) -> None:
        """Its own addresses and routes; no program runs yet."""
        self._set_ports("up")
        for interface in (*_interfaces(), _SYNC):
            self._ip(f"addr flush dev {interface} scope global", f"link set {interface} up")
        wait_until_up(self.arriving)
        self._ip(f"addr add 10.99.0.{self.number}/30 dev {_SYNC}")
        for segment, (_, ipv4, ipv6) in _SEGMENTS.items():
            self._ip(
                f"addr add {ipv4}1{self.number}/24 dev {segment}0",
                f"addr add {ipv6}1{self.number}/64 dev {segment}0 nodad",
            )
        (_, inside4, inside6), (_, outside4, outside6) = _SEGMENTS.values()
        self._ip(
            f"route replace default via {outside4}{_END}",
            f"-6 route replace default via {outside6}{_END}",
            f"route replace {CUSTOMERS[0]} via {inside4}{_END}",
            f"-6 route replace {CUSTOMERS[1]} via {inside6}{_END}",
        )

    def _set_ports(self, state: str) -> None:
        def work(ip: IPRoute) -> None:
            for end in self.leaving:
                ip.link("set", index=ip.link_lookup(ifname=end.interface)[0], state=state)

        self._switch.configure(work)

    def _ip(self, *commands: str) -> None:
        for each in commands:
            self.gateway.run(["ip", *each.split()])


def _interfaces() -> list[str]:
    return [f"{segment}0" for segment in _SEGMENTS]


class Pair:
    """Both gateways, plugged in and powered; no program runs. `with`, or `close`."""

    def __init__(self, directory: Path) -> None:
        with ExitStack() as stack:
            switch = stack.enter_context(Namespace("switch"))
            quiet(switch)
            ends = []
            for segment, (interface, ipv4, ipv6) in _SEGMENTS.items():
                switch.configure(partial(_add_bridge, segment))
                switch.bring_up(segment)
                end = End(stack.enter_context(Namespace(interface)), interface)
                quiet(end.namespace)
                _plug(switch, segment, 9, end.namespace, interface)
                end.namespace.bring_up(interface, f"{ipv4}{_END}/24", f"{ipv6}{_END}/64")
                for family, via in (("-4", f"{ipv4}{_SHARED}"), ("-6", f"{ipv6}{_SHARED}")):
                    end.namespace.run(["ip", family, "route", "add", "default", "via", via])
                take_in_any_destination(end)
                ends.append(end)
            self.inside, self.outside = ends
            members = [
                stack.enter_context(Member(number, self.inside, self.outside, switch, directory / f"gw{number}"))
                for number in (1, 2)
            ]
            self.first, self.second = self.members = members
            peer = {"ifname": _SYNC, "net_ns_fd": self.second.gateway.descriptor}
            self.first.gateway.configure(lambda ip: ip.link("add", ifname=_SYNC, kind="veth", peer=peer))
            for each in members:
                each.power_on()
            wait_until_up(ends)
            self._stack = stack.pop_all()

    @property
    def masters(self) -> list[Member]:
        """Those that have the shared addresses; one, but for the moment of a failover."""
        return [each for each in self.members if each.is_master]

    def start(self, *, first: bool = True) -> None:
        """conntrackd and keepalived on both, the first (or second) of them master."""
        one, other = self.members if first else self.members[::-1]
        for each in self.members:
            each.start("conntrackd")
        one.start("keepalived")
        assert holds(lambda: one.is_master), one.said("keepalived")
        other.start_backup()

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _add_bridge(name: str, ip: IPRoute) -> None:
    ip.link("add", ifname=name, kind="bridge", br_forward_delay=0)


def _plug(switch: Namespace, segment: str, number: int, namespace: Namespace, interface: str) -> None:
    """A veth from the segment's bridge to an interface."""
    port = f"{segment}{number}"

    def connect(ip: IPRoute) -> None:
        ip.link("add", ifname=port, kind="veth", peer={"ifname": interface, "net_ns_fd": namespace.descriptor})
        ip.link("set", index=ip.link_lookup(ifname=port)[0], master=ip.link_lookup(ifname=segment)[0], state="up")

    switch.configure(connect)
