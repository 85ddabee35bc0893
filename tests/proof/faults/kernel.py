"""What other programs do to the tables of the kernel, and kernels that lack a part."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final

from gatewayd.demo.cast import ELSEWHERE
from gatewayd.lab.namespace import Namespace
from gatewayd.model.moment import format_time
from tests.proof.faults import lacking, without
from tests.proof.harness import Fault, World
from tests.soak.world import HOST
from tests.support.lab_daemon import holds
from tests.support.rulesets import chains_in

Make = Callable[[World], AbstractContextManager[None]]
REFUSED: Final = 2
"""The exit status of a start on a host that it cannot work on."""
REPAIR: Final = (
    "New flows are refused until it is back; those known before pass by their mark. The kernel tells the daemon in "
    "the same instant: the time of the repair bounds it."
)


# -- other programs ------------------------------------------------------------------------------------------------


def nft(script: str, found: str) -> Make:
    """`found`: how the log names it."""

    @contextmanager
    def make(world: World) -> Iterator[None]:
        world.lab.gateway.nft(script)
        yield
        world.hears("reconcile.external_change", found=found, program="nft")

    return make


@contextmanager
def flush_chains(world: World) -> Iterator[None]:
    """One after the other, each with its repair, and at last all that look something up."""
    listed = world.lab.gateway.run(["nft", "list", "table", "inet", "gatewayd"]).stdout
    chains = chains_in(listed)
    looking = [name for name, lines in chains.items() if any("goto registered" in line for line in lines)]
    assert looking
    for names in (*([name] for name in chains), looking):
        repairs = world.daemon.status()["kernel"]["repairs"]
        world.mark()
        world.lab.gateway.nft("".join(f"flush chain inet gatewayd {name}\n" for name in names))
        assert holds(partial(_has_repaired, world, repairs)), world.daemon.log_text()[-3000:]
    yield
    world.hears("reconcile.external_change", found="the rules were changed", program="nft")


def _has_repaired(world: World, repairs: int) -> bool:
    return bool(world.daemon.status()["kernel"]["repairs"] > repairs) and world.is_repaired()


@contextmanager
def flush_conntrack(world: World) -> Iterator[None]:
    """Flows that go on begin anew, and new ones come all the time: their number need not fall."""
    # Times are told in whole seconds.
    assert holds(lambda: bool(_followed(world, time.time() - 2.0)))
    before = _followed(world, time.time() - 2.0)
    world.lab.gateway.run(["conntrack", "-F"])
    world.learns("flows: each begins again", is_told=holds(lambda: not before & _followed(world, time.time())))
    yield
    assert world.daemon.status()["kernel"]["repairs"] == 0


def _followed(world: World, began_before_s: float) -> set[tuple[object, ...]]:
    """Registered flows that the daemon follows, with when each began."""
    latest = format_time(int(began_before_s))
    assert latest is not None
    items = world.daemon.get("/v1/flows?limit=1000")["items"]
    return {
        (each["src"], each["dst"], each["service"], each["sport"], each["first_seen_at"])
        for each in items
        if each["first_seen_at"] < latest
    }


# -- a kernel without a part ---------------------------------------------------------------------------------------


def run_by(wrapper: Sequence[str]) -> Make:
    """The daemon begins by these words."""

    @contextmanager
    def prepare(world: World) -> Iterator[None]:
        world.daemon.wrapper = tuple(wrapper)
        yield

    return prepare


def refusing(feature: str) -> Make:
    """System calls for the feature fail."""
    return run_by([sys.executable, without.__file__, feature])


@contextmanager
def without_ipv6(world: World) -> Iterator[None]:
    """Accounting listens on IPv4: an address that cannot be had ends a start, by name."""
    world.cgnat.section["radius"] = {**world.cgnat.section["radius"], "listen": ["127.0.0.1:1813"]}
    with refusing("ipv6-sockets")(world):
        yield


def sysctl(name: str, value: str) -> Make:
    """Of the gateway, as long as the row lasts."""

    @contextmanager
    def prepare(world: World) -> Iterator[None]:
        before = _read_sysctl(world.lab.gateway, name)
        world.lab.gateway.sysctl(name, value)
        try:
            yield
        finally:
            world.lab.gateway.sysctl(name, before)

    return prepare


def _read_sysctl(namespace: Namespace, name: str) -> str:
    with namespace.entered(), open(f"/proc/sys/{name.replace('.', '/')}") as file:
        return file.read().strip()


@contextmanager
def at_work(world: World) -> Iterator[None]:
    """All that a daemon does with the kernel: another program's change is put right, a record takes another form,
    and a daemon that is killed goes on with what it finds."""
    repairs = world.daemon.status()["kernel"]["repairs"]
    world.lab.gateway.nft("add element inet gatewayd c4_32 { 192.0.2.77 }\ndelete table inet gatewayd\n")
    assert holds(lambda: world.daemon.status()["kernel"]["repairs"] > repairs)
    world.write(*(dict(each, clients=["39.36.0.0/31"]) if each == HOST else each for each in world.records))
    assert holds(world.is_repaired), world.daemon.log_text()[-3000:]
    world.daemon.end(signal.SIGKILL)
    world.daemon.start()
    world.mark()
    yield
    world.hears("daemon.ready")


def lacks(name: str, why: str, prepare: Make, is_told: Callable[[World], None]) -> Fault:
    """The daemon starts, works, and the operator is told of what is less than usual by it."""

    @contextmanager
    def make(world: World) -> Iterator[None]:
        with at_work(world):
            yield
            is_told(world)

    return Fault(f"kernel without {name}", why, make, prepare=prepare)


def nothing_more(world: World) -> None:
    """All works, so `daemon.ready` is all that there is to be told."""


def says(event: str, **fields: Any) -> Callable[[World], None]:
    return lambda world: world.hears(event, **fields)


def shows(what: str, condition: Callable[[dict[str, Any]], bool]) -> Callable[[World], None]:
    return lambda world: world.sees(what, condition)


def finds(check: str) -> Callable[[World], None]:
    """The daemon's own look at its host, seconds after its start."""
    return shows(f"host: {check}", lambda status: check in {each["check"] for each in status["host"]["findings"]})


def refuses_to_probe(world: World) -> None:
    words = ["explain", "--probe", "39.36.0.1", ELSEWHERE, "udp/500", "--socket", str(world.daemon.socket_path)]
    done = world.daemon.cli(*words, wrapper=world.daemon.wrapper)
    world.learns("explain --probe", is_told=done.returncode != 0 and "namespace" in done.stderr)


@contextmanager
def needed_parts(world: World) -> Iterator[None]:
    """Each start ends at once, with the part's name. The kernel keeps what it has."""
    world.daemon.end(signal.SIGKILL)
    for part, words in lacking.NEEDED.items():
        world.daemon.start(wrapper=[sys.executable, lacking.__file__, part])
        is_named = _ends(world) == REFUSED and words in world.daemon.last_words()
        world.learns(f"exit status {REFUSED}: {words}", is_told=is_named)
    world.daemon.start(wrapper=[sys.executable, without.__file__, "drop-counters"])
    is_named = _ends(world) == REFUSED and "SO_MEMINFO" in world.daemon.last_words()
    world.learns(f"exit status {REFUSED}: SO_MEMINFO", is_told=is_named)
    world.daemon.start()
    world.mark()
    yield


def _ends(world: World) -> int | None:
    """The exit status of a daemon that ends by itself."""
    assert holds(lambda: not world.daemon.is_running()), world.daemon.log_text()[-3000:]
    return world.daemon.end(signal.SIGKILL)


_NFT: Final = """#!/bin/sh
# Refuses rules as a kernel without this part does.
[ "$1" = --version ] && exec {nft} "$@"
script=$(cat)
[ -e {switch} ] && case "$script" in *"{part}"*)
    echo "Error: Could not process rule: Operation not supported" >&2; exit 1;;
esac
printf '%s\\n' "$script" | {nft} "$@"
"""


@contextmanager
def small_kernel(world: World) -> Iterator[None]:
    """An nft in front of the real one."""
    directory = world.directory / "bin"
    directory.mkdir()
    path = directory / "nft"
    nft = world.lab.gateway.run(["sh", "-c", "command -v nft"]).stdout.strip()
    path.write_text(_NFT.format(nft=nft, switch=directory / "refuses", part="ct event set"))
    path.chmod(0o755)
    world.daemon.environment = {"PATH": f"{directory}:/usr/sbin:/usr/bin:/sbin:/bin"}
    yield


@contextmanager
def refused_rules(world: World) -> Iterator[None]:
    """As after a reboot into such a kernel: no table, and none of the rules can be put in."""
    switch = world.directory / "bin" / "refuses"
    switch.touch()
    world.daemon.end(signal.SIGKILL)
    world.lab.gateway.run(["nft", "flush ruleset"])
    world.daemon.start()
    world.hears("reconcile.failed")
    world.reads("nft refused the ruleset")
    yield
    switch.unlink()
    world.mark()


FAULTS: Final = (
    Fault(
        "nft flush ruleset",
        "Another program takes every table away. Everything passes, strangers too, until ours is back.",
        nft("flush ruleset\n", "the table is gone"),
    ),
    Fault(
        "table deleted",
        "Another program deletes our table. Everything passes until it is back.",
        nft("delete table inet gatewayd\n", "the table is gone"),
    ),
    Fault(
        "set deleted",
        "The rules that use it go first, or the kernel does not delete it: everything passes until both are back.",
        nft("flush table inet gatewayd\ndelete set inet gatewayd c4_32\n", "set c4_32 is gone"),
    ),
    Fault(
        "chain flushed: forward",
        "The way into our rules is gone: everything passes until it is back.",
        nft("flush chain inet gatewayd forward\n", "the rules were changed"),
    ),
    Fault(
        "chains flushed: look-ups",
        "Each chain of our rules is emptied in turn, and then all look-ups: a packet that comes there passes.",
        flush_chains,
    ),
    Fault(
        "sets flushed",
        "The rules refuse, and what they look into is empty.",
        nft(
            "flush set inet gatewayd c4_32\nflush set inet gatewayd c6_48\n",
            "elements of c4_32, c6_48: 2 removed, 0 added",
        ),
        bounded="To a rule, a flushed set looks like one that never had this address. Rules could ask each set for "
        "an element that is always there. Each refusal would cost half as many look-ups more, and each set would "
        f"show a false address. {REPAIR}",
        max_share=0.2,
    ),
    Fault(
        "element deleted",
        "One registered address is taken out of its set.",
        nft("delete element inet gatewayd c4_32 { 39.36.0.1 }\n", "elements of c4_32: 1 removed, 0 added"),
        bounded="The set is whole but for this address, as it is for a client that is not registered. No rule can "
        f"tell, and only the registry knows. {REPAIR}",
        max_share=0.2,
    ),
    Fault(
        "conntrack -F",
        "No flow is known any more. Each is judged by its client's next packet, or lives by the far end's.",
        flush_conntrack,
    ),
    lacks(
        "counts of elements",
        "Before Linux 6.17 the elements are read in place of their number.",
        run_by([sys.executable, lacking.__file__, "counts"]),
        nothing_more,
    ),
    lacks(
        "extended acknowledgements",
        "Errors come without the kernel's words.",
        refusing("extended-acknowledgements"),
        nothing_more,
    ),
    lacks(
        "large receive buffers",
        "Sockets of events hold 100 KiB in place of 8 MiB, and lose events sooner.",
        refusing("receive-buffers"),
        says("watch.small_buffer", source="conntrack"),
    ),
    lacks(
        "sealed files in memory",
        "Before Linux 6.3 the script of the rules is a file that may be executed.",
        refusing("sealed-memory-files"),
        nothing_more,
    ),
    lacks(
        "inotify",
        "Changed files of sources are noticed by a look every five seconds.",
        refusing("inotify"),
        nothing_more,
    ),
    lacks(
        "namespaces for users",
        "The daemon needs none. The passage check has no copy of the tables to ask.",
        refusing("namespaces"),
        refuses_to_probe,
    ),
    lacks(
        "IPv6 sockets",
        "The daemon listens on IPv4 alone; forwarded IPv6 is judged as ever.",
        without_ipv6,
        nothing_more,
    ),
    lacks(
        "adjtimex",
        "The kernel's word on NTP is not to be had, so it confirms no clock.",
        refusing("clock-state"),
        shows("clock.confirmed", lambda status: status["clock"]["confirmed"] is False),
    ),
    lacks(
        "events of connections (nf_conntrack_events=0)",
        "The rules ask for events of registered flows themselves.",
        sysctl("net.netfilter.nf_conntrack_events", "0"),
        shows("watch.flows_tracked", lambda status: status["watch"]["flows_tracked"] > 0),
    ),
    lacks(
        "accounting of connections (nf_conntrack_acct=0)",
        "Flows have no bytes in flows, registrations and reports.",
        sysctl("net.netfilter.nf_conntrack_acct", "0"),
        finds("conntrack-acct"),
    ),
    lacks(
        "timestamps of connections (nf_conntrack_timestamp=0)",
        "The daemon times flows itself.",
        sysctl("net.netfilter.nf_conntrack_timestamp", "0"),
        nothing_more,
    ),
    Fault(
        "kernel without a part that is needed",
        "nfnetlink, ctnetlink, NFLOG: each start ends and names it; the kernel keeps table and traffic.",
        needed_parts,
    ),
    Fault(
        "kernel that refuses the rules",
        "One of their expressions is unknown after a reboot: the daemon goes on, everything passes.",
        refused_rules,
        prepare=small_kernel,
        lasts=True,
    ),
)
