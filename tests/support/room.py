"""A room of a host's own: a network and a mount namespace, in which a test makes a fault, has the host examined,
and types what the doctor prints.

Settings that no network namespace has of its own are files mounted over those of /proc, so `sysctl -w` writes them.
All of it is one thread's, and gone with it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from gatewayd.doctor.diagnosis import diagnose
from gatewayd.doctor.facts import Question, question_of
from gatewayd.doctor.findings import Finding
from gatewayd.doctor.readings import read_facts
from gatewayd.lab.namespace import CLONE_NEWNET
from gatewayd.settings import load_settings

CLONE_NEWNS: Final = 0x00020000
"""include/uapi/linux/sched.h."""
_T = TypeVar("_T")
HEALTHY: Final = """
mount --make-rprivate /
ip link set lo up
ip link add inside0 type veth peer name inside1
ip link add outside0 type veth peer name outside1
for name in inside0 inside1 outside0 outside1; do ip link set $name up; done
ip addr add 192.0.2.1/24 dev inside0
ip addr add 198.51.100.1/24 dev outside0
sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.netfilter.nf_conntrack_acct=1
sysctl -q -w net.ipv4.icmp_msgs_per_sec=10000 net.ipv4.icmp_msgs_burst=1000
sysctl -q -w net.ipv4.icmp_ratelimit=100 net.ipv6.icmp.ratelimit=100
echo 1048576 > max; mount --bind max /proc/sys/net/netfilter/nf_conntrack_max
"""
CONFIG: Final[dict[str, Any]] = {
    "registry": {"sources": [{"name": "none", "url": "file:/none", "allow_unsigned": True}]},
    "policy": {"interfaces": {"inside": ["inside0"], "outside": ["outside0"]}},
}


class Room:
    """`directory`: where its commands run; the state directory of its configuration is in it."""

    def __init__(self, directory: Path, thread: ThreadPoolExecutor) -> None:
        self._directory = directory
        self._thread = thread
        self._config: dict[str, Any] = {**CONFIG, "state_dir": str(directory / "state")}
        (directory / "state").mkdir()

    def inside(self, work: Callable[[], _T]) -> _T:
        return self._thread.submit(work).result()

    def run(self, script: str) -> None:
        """As root at a shell, which ends at the first command that fails."""

        def typed() -> subprocess.CompletedProcess[str]:
            task = f"/proc/{os.getpid()}/task/{threading.get_native_id()}"
            return subprocess.run(
                ["sh", "-ec", script], cwd=self._directory, capture_output=True, text=True, check=False,
                env={**os.environ, "TASK": task},
            )  # fmt: skip

        done = self.inside(typed)
        assert done.returncode == 0, f"{script}: {done.stderr}"

    def set(self, setting: str) -> None:
        """Write `key.key: value` into the configuration file."""
        path, _, value = setting.partition(": ")
        section, keys = self._config, path.split(".")
        for key in keys[:-1]:
            section[key] = dict(section.get(key, {}))
            section = section[key]
        section[keys[-1]] = yaml.safe_load(value)

    @property
    def question(self) -> Question:
        return question_of(load_settings(yaml.safe_dump(self._config), "test"))

    def examine(self) -> dict[str, list[Finding]]:
        """Faults and warnings, and notes too, by check."""
        found: dict[str, list[Finding]] = {}
        for each in diagnose(self.inside(lambda: read_facts(self.question)), "now").findings:
            found.setdefault(each.check, []).append(each)
        return found


@contextmanager
def room(directory: Path) -> Iterator[Room]:
    """A healthy gateway. Its background commands end by themselves when `directory/alive` is gone."""
    alive = directory / "alive"
    alive.touch()
    with ThreadPoolExecutor(1) as thread:
        made = Room(directory, thread)
        libc = ctypes.CDLL(None, use_errno=True)
        assert made.inside(lambda: libc.unshare(CLONE_NEWNS | CLONE_NEWNET)) == 0
        made.run(HEALTHY)
        try:
            yield made
        finally:
            alive.unlink()
