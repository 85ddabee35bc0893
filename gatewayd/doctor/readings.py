"""Reads the facts of a host: /proc, rtnetlink (pyroute2), the lists of nf_tables, and a few programs' versions.

Everything is of the network namespace of the calling thread, which must run no event loop. Elements of sets are not
read, neither ours nor others'. A reading that fails is named in the facts; the others go on.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from gatewayd.doctor import rules_codec as codec
from gatewayd.doctor import settings_checks as settings
from gatewayd.doctor.facts import (
    BaseChain,
    Disk,
    Facts,
    Flowtable,
    LegacyTable,
    Link,
    Listener,
    Question,
    Rule,
    Version,
    Versions,
)
from gatewayd.doctor.kernel_faults import upstream_version
from gatewayd.errors import DumpInterrupted, KernelError, MissingPrerequisite, OperationRefused
from gatewayd.kernel import attributes as nl
from gatewayd.kernel import tables_codec
from gatewayd.kernel.clock import is_kernel_synced
from gatewayd.kernel.external import read_conntrack_size
from gatewayd.kernel.netlink import NetlinkChannel
from gatewayd.kernel.nft import find_nft
from gatewayd.model.transaction import ConntrackSize

MAX_RULES: Final = 10_000
"""Rules of other programs that are kept, of those that do something of what is looked for."""
ATTEMPTS: Final = 3
"""At a list that commits keep interrupting; then it is taken as it is."""
WATCHED_S: Final = 1.0
PROGRAM_TIMEOUT_S: Final = 10.0
_SYS: Final = Path("/proc/sys")
_NET: Final = Path("/proc/thread-self/net")
_LOG_CONFIG, _CT_STATISTICS = 4 << 8 | 1, 1 << 8 | 5
"""NFNL_SUBSYS_ULOG: NFULNL_MSG_CONFIG; NFNL_SUBSYS_CTNETLINK: IPCTNL_MSG_CT_GET_STATS."""
_LOG_COMMAND, _LOG_PF_UNBIND = 1, 4
_IFF_UP: Final = 0x1
_GLOBAL_SCOPE: Final = 0
_DEFAULT_TABLE: Final = 254
_NETLINK_NETFILTER: Final = 12
_PATH: Final = os.defpath + ":/usr/sbin:/sbin"
_T = TypeVar("_T")


def read_facts(question: Question, refusal: str | None = None) -> Facts:
    """`refusal`: what nft has against the rules of the policy, where it was asked."""
    return _Reading(question).facts(refusal)


class _Reading:
    def __init__(self, question: Question) -> None:
        self._question = question
        self._unread: list[tuple[str, str, bool]] = []

    def facts(self, refusal: str | None) -> Facts:
        question = self._question
        before, since_s = read_conntrack_size(), time.monotonic()
        nothing: _Interfaces = (None, 0, False)
        links, routes, has_ipv6 = self._try("interfaces", _read_interfaces, nothing)
        tables = _Tables(question)
        self._try("the rules of other programs", lambda: asyncio.run(tables.read()), None)
        missing: tuple[str, ...] = ()
        if not question.is_daemon:
            missing = self._try("parts of the kernel", lambda: asyncio.run(_missing_modules()), ())
        facts = Facts(
            question,
            sysctls=dict(_read_sysctls(question, links or ())),
            links=links,
            default_routes=routes,
            has_ipv6=has_ipv6,
            chains=tuple(tables.chains),
            rules=tuple(tables.rules),
            flowtables=tuple(tables.flowtables),
            legacy=self._try("the old iptables", lambda: tuple(_read_legacy()), ()),
            listeners=self._try("listeners of NFLOG", lambda: tuple(_read_listeners(question.groups)), ()),
            is_synced=is_kernel_synced(time.time()),
            disk=self._try("the disk", lambda: _read_disk(question.state_dir), None),
            versions=_read_versions(),
            missing=missing,
            refusal=refusal,
            conntrack=before,
            dropping=_watch_drops(before, since_s),
            unread=tuple(self._unread),
        )
        return facts

    def _try(self, subject: str, read: Callable[[], _T], otherwise: _T) -> _T:
        """What the daemon may not read is root's to ask for, and no finding."""
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            return read()
        except NetlinkError as error:
            number, text = error.code, os.strerror(error.code)
        except OperationRefused as error:
            number, text = error.errno, str(error)
        except OSError as error:
            number, text = error.errno or 0, error.strerror or str(error)
        except (KernelError, MissingPrerequisite) as error:
            number, text = 0, str(error)
        is_denied = number in (errno.EPERM, errno.EACCES)
        if not (self._question.is_daemon and is_denied):
            self._unread.append((subject, text, is_denied))
        return otherwise


# -- /proc ---------------------------------------------------------------------------------------------------


def _read_sysctls(question: Question, links: tuple[Link, ...]) -> Iterator[tuple[str, int]]:
    names = [*settings.READ]
    for link in Facts(question, links=links).named((*question.inside, *question.outside)):
        names += [settings.interface_sysctl("ipv4", link.name, each) for each in ("forwarding", "rp_filter")]
    for name in names:
        path = _SYS / (name if "/" in name else name.replace(".", "/"))
        with suppress(OSError, ValueError):
            yield name, int(path.read_text())


def _watch_drops(before: ConntrackSize | None, since_s: float) -> int:
    """Packets that connection tracking drops in about a second, where it ever dropped any."""
    if before is None or not before.dropped:
        return 0
    time.sleep(max(0.0, WATCHED_S - (time.monotonic() - since_s)))
    after = read_conntrack_size()
    return 0 if after is None else (after.dropped or 0) - before.dropped


def _read_listeners(groups: tuple[int, ...]) -> Iterator[Listener]:
    """Of our groups, by the process that listens; a line is group, netlink port and more
    (net/netfilter/nfnetlink_log.c: seq_show)."""
    path = _NET / "netfilter/nfnetlink_log"
    if not path.exists():
        return
    ports = {int(words[0]): int(words[1]) for words in map(str.split, path.read_text().splitlines())}
    for group in groups:
        if group in ports:
            pid = _process_of(ports[group])
            yield Listener(group) if pid is None else _listener(group, pid)


def _process_of(port: int) -> int | None:
    """The process that has a socket of nfnetlink with this port; None where it is not seen."""
    inodes = {
        words[9]
        for words in map(str.split, (_NET / "netlink").read_text().splitlines()[1:])
        if (words[1], int(words[2])) == (str(_NETLINK_NETFILTER), port % (1 << 32))
    }
    for directory in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):
            for descriptor in directory.iterdir():
                target = os.readlink(descriptor)
                if target.startswith("socket:[") and target[8:-1] in inodes:
                    return int(directory.parent.name)
    return None


def _listener(group: int, pid: int) -> Listener:
    words, unit = [""], ""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")
        last = Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("/")[2]
        unit = last if last.endswith(".service") else ""
    is_ours = "run" in words and any(Path(word).name == "gatewayd" for word in words)
    return Listener(group, pid, Path(words[0]).name, unit, is_ours)


def _read_legacy() -> Iterator[LegacyTable]:
    for family, file, program in (
        ("ip", "ip_tables_names", "iptables-legacy-save"),
        ("ip6", "ip6_tables_names", "ip6tables-legacy-save"),
    ):
        path = _NET / file
        for table in path.read_text().split() if path.exists() else ():
            said = _run(program, "-t", table)
            if said is None:
                yield LegacyTable(family, table)
            else:
                dropping = re.findall(r"^:(\S+) DROP", said, re.MULTILINE)
                yield LegacyTable(family, table, len(re.findall(r"^-A ", said, re.MULTILINE)), tuple(dropping))


# -- netlink -------------------------------------------------------------------------------------------------


_Interfaces = tuple[tuple[Link, ...] | None, int, bool]


def _read_interfaces() -> _Interfaces:
    """Links, default routes of IPv4, and whether there is a global address of IPv6."""
    # Imported here: it is large, and only who examines a host has a use for it.
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        raw = list(ip.get_links())
        names = {each["index"]: str(each.get("ifname")) for each in raw}
        kinds = {each["index"]: _kind(each) for each in raw}
        routes = [each for each in ip.get_routes(family=socket.AF_INET) if each["dst_len"] == 0]
        ways = {(each.get("oif"), each.get("gateway")) for each in routes if each.get("table") == _DEFAULT_TABLE}
        # A kernel without IPv6 answers for all families.
        has_ipv6 = any(
            (each["family"], each["scope"]) == (socket.AF_INET6, _GLOBAL_SCOPE)
            for each in ip.get_addr(family=socket.AF_INET6)
        )
    links = [
        Link(
            names[each["index"]],
            kinds[each["index"]],
            names.get(each.get("master"), ""),
            kinds.get(each.get("master"), ""),
            bool(each["flags"] & _IFF_UP),
        )
        for each in raw
    ]
    return tuple(links), len(ways), has_ipv6


def _kind(message: Any) -> str:
    return str(message.get(("linkinfo", "kind")) or "")


class _Tables:
    """Chains, rules and flowtables of other programs."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self.chains: list[BaseChain] = []
        self.rules: list[Rule] = []
        self.flowtables: list[Flowtable] = []

    async def read(self) -> None:
        """Raises KernelError."""
        own, registered = self._question.table, self._question.registered
        with closing(NetlinkChannel.open()) as channel:
            self.chains = await _list(
                channel, tables_codec.GETCHAIN, lambda: partial(codec.chains_in, own_table=own)
            )
            self.flowtables = await _list(
                channel, tables_codec.GETFLOWTABLE, lambda: partial(codec.flowtables_in, own_table=own)
            )
            self.rules = await _list(channel, tables_codec.GETRULE, lambda: codec.RuleReading(own, registered).feed)


async def _list(
    channel: NetlinkChannel, kind: int, begin: Callable[[], Callable[[bytes], Iterator[_T]]]
) -> list[_T]:
    """`begin`: a new decoder, as a list that was interrupted begins anew."""
    found: list[_T] = []
    for _ in range(ATTEMPTS):
        found.clear()
        decode, sequence = begin(), channel.take_sequences(1)
        request = codec.encode_dump(kind, sequence)
        with suppress(DumpInterrupted):
            async for datagram in channel.dump(request, sequence, "list the tables of other programs"):
                found += islice(decode(datagram), MAX_RULES - len(found))
            break
    return found


async def _missing_modules() -> tuple[str, ...]:
    """Asked as the daemon will; the kernel loads what it can. A subsystem that it does not know is EINVAL
    (nfnetlink.c: nfnetlink_rcv_msg)."""
    unbind = nl.attribute(_LOG_COMMAND, bytes((_LOG_PF_UNBIND,)))
    missing = []
    with closing(NetlinkChannel.open()) as channel:
        for module, kind, payload in (
            ("nfnetlink_log", _LOG_CONFIG, unbind),
            ("nf_conntrack_netlink", _CT_STATISTICS, b""),
        ):
            sequence = channel.take_sequences(1)
            request = nl.message(kind, nl.NLM_F_REQUEST | nl.NLM_F_ACK, sequence, 0, 0, payload)
            try:
                await channel.exchange(request, sequence, sequence, f"ask for {module}")
            except OperationRefused as error:
                if error.errno != errno.EINVAL:
                    raise
                missing.append(module)
    return tuple(missing)


# -- the rest of the host ------------------------------------------------------------------------------------


def _read_disk(path: str) -> Disk:
    """Of the directory, or of what there is of its path."""
    place = next(each for each in (Path(path), *Path(path).parents) if each.exists())
    found = os.statvfs(place)
    size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    return Disk(str(place), size, free, found.f_files, found.f_favail)


def _read_versions() -> Versions:
    host = os.uname()
    nft = ""
    with suppress(MissingPrerequisite):
        nft = _run(find_nft(), "--version") or ""
    systemd = re.match(r"systemd (\d+)", _run("systemctl", "--version") or "")
    return Versions(
        host.release,
        upstream_version(host.release, host.version),
        _version(nft),
        sys.version_info[:3],
        int(systemd[1]) if systemd else None,
    )


def _version(text: str) -> Version | None:
    match = re.search(r"v(\d+)\.(\d+)\.(\d+)", text)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))


def _run(program: str, *arguments: str) -> str | None:
    """What it says; None where it is not there, or fails."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_PATH}")
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROGRAM_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
