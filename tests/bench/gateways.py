"""What a plain router of the lab is made into, to be measured."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from gatewayd.lab.lab import Lab
from tests.bench.clock import run_command
from tests.support.lab_daemon import daemon_in

SCOPE = ("ipsec", "wireguard", "openvpn", "pptp")

_TRACKING = """table inet bench {
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state new counter
    }
}
"""
_INTERVALS = """table inet bench {
    set clients {
        type ipv4_addr
        flags interval
        elements = {
%s
        }
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        ip saddr @clients accept
        reject with icmpx admin-prohibited
    }
}
"""


def track(lab: Lab) -> None:
    """Connections are tracked, and nothing is refused."""
    lab.gateway.run(["nft", "-f", "-"], input=_TRACKING)


def admit_intervals(lab: Lab, prefixes: Path, scratch: Path) -> None:
    """One interval set of `prefixes`, a line each: the usual way to write an allowlist."""
    script = scratch / "intervals.nft"
    script.write_text(_INTERVALS % ",\n".join(prefixes.read_text().splitlines()))
    run_command(lab.gateway.command(["nft", "-f", str(script)]))


def start_daemon(
    stack: ExitStack,
    lab: Lab,
    registry: Path,
    scratch: Path,
    *,
    listens: bool = True,
    mode: str = "reject",
    name: str = "daemon",
    watch: Mapping[str, object] | None = None,
) -> None:
    """A real daemon, ready. Without `listens` it ends again, and its rules do the work alone. `name`: of its
    directory; `watch`: that section of the configuration."""
    directory = scratch / name
    directory.mkdir()
    daemon = stack.enter_context(daemon_in(lab, directory))
    source = {"name": "national", "url": f"file:{registry}", "allow_unsigned": True}
    interfaces = {"inside": ["inside0"], "outside": ["outside0"]}
    policy = {"scope": list(SCOPE), "interfaces": interfaces}
    daemon.configure(mode, sources=[source], policy=policy, watch=watch or {})
    daemon.start()
    daemon.wait_ready()
    if not listens:
        daemon.stop_for_good()
