"""Sets of ipset(8), and how many elements are really in a set: a claim to have filled it is held to that."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from gatewayd.errors import MissingPrerequisite
from gatewayd.kernel import attributes as nl
from gatewayd.kernel.tables_codec import GETSET, NEWSET
from tests.bench.clock import Ran, run_command

NFPROTO_INET, NFPROTO_IPV4 = 1, 2
_NETLINK_NETFILTER = 12
_SET_TABLE, _SET_NAME, _SET_COUNT = 1, 2, 20
_ENTRIES = re.compile(r"^Number of entries: (\d+)$", re.MULTILINE)
_RECEIVE_BYTES = 1 << 16


def count_elements(table: str, name: str, family: int = NFPROTO_INET) -> int | None:
    """Elements in a set of nf_tables, without listing them: the kernel says so since 6.17 (NFTA_SET_COUNT). An
    interval is one element. None: no such set.

    Raises MissingPrerequisite on an older kernel.
    """
    names = nl.text(_SET_TABLE, table), nl.text(_SET_NAME, name)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as asking:
        asking.send(nl.message(GETSET, nl.NLM_F_REQUEST, 1, family, 0, *names))
        answer = asking.recv(_RECEIVE_BYTES)
    for kind, _, _, start, end in nl.iter_messages(answer):
        if kind == NEWSET:
            fields = nl.attributes_of(answer, start + 4, end)
            if _SET_COUNT not in fields:
                raise MissingPrerequisite(
                    "this kernel does not say how many elements a set has", "run the bench on Linux 6.17 or newer"
                )
            return nl.uint_of(fields[_SET_COUNT])
    return None


def count_ipset(name: str) -> int:
    done = subprocess.run(["ipset", "list", "-t", name], capture_output=True, text=True, check=True)
    found = _ENTRIES.search(done.stdout)
    return int(found[1]) if found else 0


IPSET_NAME = "hosts"


def room_for(count: int) -> str:
    """Sized right at once: no more than one element a bucket on average, so that the kernel has not to rehash."""
    return f"hashsize {1 << (max(count, 64) - 1).bit_length()} maxelem {2 * max(count, 64)}"


def restore_ipset(kind: str, elements: Sequence[str], scratch: Path) -> Ran:
    """Makes a set by `ipset restore`. `kind`: hash:ip or hash:net."""
    path = scratch / "set.ipset"
    lines = [
        f"create {IPSET_NAME} {kind} family inet {room_for(len(elements))}",
        *(f"add {IPSET_NAME} {e}" for e in elements),
    ]
    path.write_text("\n".join([*lines, ""]))
    return run_command(["ipset", "restore", "-file", str(path)])
