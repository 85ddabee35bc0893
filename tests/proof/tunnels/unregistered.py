"""Tunnels that no registration has, in each mode: refused and told so, counted, limited, marked."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from gatewayd.model import Family
from tests.proof.harness import World
from tests.proof.tunnels.fleet import FAMILIES, KINDS, Fleet
from tests.proof.tunnels.numbered import Way
from tests.proof.tunnels.raw import Ah
from tests.proof.tunnels.tunnel import Tunnel
from tests.proof.tunnels.wire import Wire
from tests.support.lab_daemon import holds

TOLD: Final = 2
"""So many refusals, and none of its packets beyond the gateway."""
PATIENCE_S: Final = 60.0
LIMIT_BYTES_S: Final = 16_384
LOAD_PPS, LOAD_SIZE = 50.0, 1000
"""Three times the limit."""
BURST_S, MEASURED_S = 3.0, 8.0
"""The bucket holds a second's bytes and is empty by then; the rate is taken over the time after it."""
MARKED: Final = 8
"""DSCP CS1 (RFC 2474 §4.2.2), as in the configuration below."""
_PACKETS: Final = 40


def is_told(tunnel: Tunnel) -> bool:
    """The kernel refuses AH over IPv6 without an answer: it looks for a checksum in what AH carries (Linux 6.18:
    nf_reject_verify_csum)."""
    return not (isinstance(tunnel, Ah) and tunnel.plan.family == 6)


@contextmanager
def strays(
    world: World,
    directory: Path,
    mode: str,
    kinds: Sequence[type[Tunnel]] = KINDS,
    families: Sequence[Family] = FAMILIES,
    **policy: Any,
) -> Iterator[tuple[Fleet, Wire]]:
    """Tunnels that are not begun yet, at a gateway in that mode, and the wires."""
    world.configure(mode, policy=policy)
    world.daemon.reload()
    world.daemon.wait_mode(mode)
    with (
        Fleet(world.lab, directory, kinds, families, is_stray=True) as fleet,
        Wire(world.lab, fleet.tunnels) as wire,
    ):
        yield fleet, wire


def refused(world: World, fleet: Fleet, wire: Wire) -> dict[str, str]:
    """By tunnel, how the customer was told. Raises AssertionError where one was not, or got through."""
    before = _counted(world, "rejected_packets")
    for each in fleet.tunnels:
        each.start()
        fleet.numbered.start(each.name, "out")
    told = [each for each in fleet.tunnels if is_told(each)]

    def untold() -> list[str]:
        return [each.name for each in told if sum(wire.seen[each.name].refusals.values()) < TOLD]

    assert holds(lambda: not untold(), PATIENCE_S), f"not told: {untold()}"
    assert holds(lambda: all(fleet.numbered.sent(each.name, "out") > _PACKETS for each in fleet.tunnels))
    assert holds(lambda: _counted(world, "rejected_packets") - before >= TOLD * len(fleet.tunnels))
    for each in fleet.tunnels:
        assert not fleet.numbered.arrived(each.name, "out"), f"{each.name} comes up"
        assert not wire.seen[each.name].arrived, f"packets of {each.name} get through"
    return {each.name: " and ".join(sorted(wire.seen[each.name].refusals)) for each in fleet.tunnels}


def observed(world: World, fleet: Fleet) -> dict[str, float]:
    """By tunnel, after how many seconds it was up. Raises AssertionError where one is not counted, or loses a
    datagram."""
    before = _counted(world, "unregistered_flows")
    fleet.start()
    since = _stream(fleet)
    for each in fleet.tunnels:
        score = fleet.numbered.score(each.name, since)
        assert not score.lost, f"{each.name}: {score.lost[:3]} of {score.sent}"
    assert holds(lambda: _counted(world, "unregistered_flows") - before >= len(fleet.tunnels))
    return {each.name: each.comes_up_s or 0.0 for each in fleet.tunnels}


def limited(fleet: Fleet, wire: Wire) -> dict[str, float]:
    """By tunnel, the bytes a second of the customer beyond the gateway, while it sends three times the limit."""
    fleet.start()
    for each in fleet.tunnels:
        fleet.numbered.start(each.name, "out", rate_pps=LOAD_PPS, size=LOAD_SIZE)
    began_s = time.monotonic()
    time.sleep(BURST_S + MEASURED_S)
    since_s, until_s = began_s + BURST_S, began_s + BURST_S + MEASURED_S
    return {each.name: wire.seen[each.name].bytes_s(since_s, until_s) for each in fleet.tunnels}


def marked(fleet: Fleet, wire: Wire) -> dict[str, frozenset[int | None]]:
    """By tunnel, the DSCP of the customer's packets beyond the gateway."""
    fleet.start()
    _stream(fleet)
    found = {}
    for each in fleet.tunnels:
        assert len(wire.seen[each.name].arrived) >= _PACKETS
        found[each.name] = frozenset(value for way, value in wire.seen[each.name].dscp if way == "out")
    return found


def _stream(fleet: Fleet) -> dict[tuple[str, Way], int]:
    """Some datagrams in both directions; the numbers before them."""
    since = fleet.numbered.marks()
    for each in fleet.tunnels:
        fleet.numbered.start(each.name)
    wanted = {key: first + _PACKETS for key, first in since.items()}
    assert holds(lambda: all(fleet.numbered.sent(*key) >= most for key, most in wanted.items()))
    for each in fleet.tunnels:
        fleet.numbered.stop(each.name)
    return since


def _counted(world: World, counter: str) -> int:
    """Nothing where the daemon has not read its counters yet."""
    return int(world.daemon.status()["counters"].get(counter, {"packets": 0})["packets"])
