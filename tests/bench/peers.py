"""What users would pick instead, as far as a program of its own has to be there for it.

Debian's packages are installed by `./run bench`. What is missing all the same, and what this kernel cannot do, is
named in the table with the reason.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

PYTHON = "/usr/bin/python3"
"""Debian's own, which python3-nftables is for."""


def _nft() -> str:
    return "" if shutil.which("nft") else "nft is not installed (Debian: nftables)"


def _libnftables() -> str:
    done = subprocess.run([PYTHON, "-c", "import nftables"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "not installed (Debian: python3-nftables)"


def _ipset() -> str:
    if shutil.which("ipset") is None:
        return "ipset is not installed (Debian: ipset)"
    command = ["unshare", "--net", "ipset", "create", "probe", "hash:ip"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"this kernel cannot: {done.stderr.strip().splitlines()[-1]}"


def _crowdsec() -> str:
    found = shutil.which("crowdsec-firewall-bouncer")
    return "" if found else "not installed (Debian: crowdsec-firewall-bouncer)"


def _pyroute2() -> str:
    try:
        import pyroute2  # noqa: F401
    except ImportError:
        return "not installed (PyPI: pyroute2)"
    return ""


def _freeradius() -> str:
    return "" if shutil.which("freeradius") else "not installed (Debian: freeradius)"


def _compiler() -> str:
    return "" if shutil.which("gcc") else "gcc is not installed, and what sends is written in C"


_PROBES: dict[str, Callable[[], str]] = {
    "nft": _nft,
    "libnftables": _libnftables,
    "ipset": _ipset,
    "crowdsec": _crowdsec,
    "pyroute2": _pyroute2,
    "freeradius": _freeradius,
    "gcc": _compiler,
}


def missing_peers() -> dict[str, str]:
    """Peer → why it cannot be run here; those that can are not in it."""
    return {name: why for name, probe in _PROBES.items() if (why := probe())}
