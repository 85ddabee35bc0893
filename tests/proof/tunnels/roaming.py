"""The customer's address changes under a live tunnel: to another registered one, and to one that is in none.

Nothing is sent while the address changes: what is then under way to the old one is lost without any gateway. The
far end speaks again once it has heard from the new address.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.proof.tunnels.ikev2 import IkeV2
from tests.proof.tunnels.numbered import WAYS
from tests.proof.tunnels.tunnel import Tunnel
from tests.proof.tunnels.wire import Wire
from tests.proof.tunnels.wireguard import WireGuard
from tests.support.lab_daemon import holds

ROAMERS: Final[tuple[type[Tunnel], ...]] = (WireGuard, IkeV2)
PACKETS: Final = 60
"""In each direction, after each change."""
REFUSED: Final = 3
PATIENCE_S: Final = 90.0


@dataclass(frozen=True, slots=True)
class Roaming:
    """`sent` and `lost`: with registered addresses. `refusals`: told to the customer at the other one, and how."""

    sent: int
    lost: int
    refusals: int
    told: str


def roam(tunnel: Tunnel, wire: Wire) -> Roaming:
    """From its first address to the other registered one, to the one in no registration, and back. The tunnel is
    up, in mode `reject`. Raises AssertionError where it does not follow, or shakes hands again."""
    assert isinstance(tunnel, (WireGuard, IkeV2))
    plan, handshakes = tunnel.plan, tunnel.handshakes()
    talks = [_talk(tunnel)]
    _move(tunnel, plan.client, plan.moved)
    _follow(tunnel, plan.moved)
    talks.append(_talk(tunnel))
    assert tunnel.handshakes() == handshakes, f"{tunnel.name} shakes hands again"
    _move(tunnel, plan.moved, plan.stray)
    _be_refused(tunnel, wire)
    # An end that has heard nothing for long enough may begin again.
    _move(tunnel, plan.stray, plan.client)
    _follow(tunnel, plan.client)
    talks.append(_talk(tunnel))
    refusals = wire.seen[tunnel.name].refusals
    return Roaming(
        sum(sent for sent, _ in talks), sum(lost for _, lost in talks), sum(refusals.values()),
        " and ".join(sorted(refusals)),
    )  # fmt: skip


def _move(tunnel: WireGuard | IkeV2, former: str, address: str) -> None:
    tunnel.near.add(address)
    tunnel.near.remove(former)
    tunnel.address_changed()


def _follow(tunnel: WireGuard | IkeV2, address: str) -> None:
    """The customer speaks until the far end knows the address."""
    name, numbered = tunnel.name, tunnel.numbered

    def is_known() -> bool:
        numbered.once(name, "out")
        return address in tunnel.far_sees()

    assert holds(is_known, PATIENCE_S), f"{name}: the far end does not know {address}\n{tunnel.far_sees()}"
    first = numbered.sent(name, "out")

    def is_heard() -> bool:
        numbered.once(name, "out")
        return numbered.any_of(name, "out", first)

    assert holds(is_heard, PATIENCE_S), f"{name}: nothing arrives from {address}"


def _talk(tunnel: Tunnel) -> tuple[int, int]:
    """Datagrams in both directions, and how many were lost."""
    name, numbered = tunnel.name, tunnel.numbered
    since = numbered.marks()
    numbered.start(name)
    assert holds(lambda: all(numbered.sent(name, way) >= since[name, way] + PACKETS for way in WAYS))
    numbered.stop(name)
    score = numbered.score(name, since)
    return score.sent, len(score.lost)


def _be_refused(tunnel: Tunnel, wire: Wire) -> None:
    seen, first = wire.seen[tunnel.name], tunnel.numbered.sent(tunnel.name, "out")

    def is_told() -> bool:
        tunnel.numbered.once(tunnel.name, "out")
        return sum(seen.refusals.values()) >= REFUSED

    assert holds(is_told, PATIENCE_S), f"{tunnel.name}: the customer is not told"
    assert not seen.arrived, f"packets of {tunnel.name} get through"
    assert not tunnel.numbered.any_of(tunnel.name, "out", first)
