"""Tunnels of all kinds at once, and their streams as the traffic under which a fault is made."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Self

from gatewayd.lab.lab import Lab
from gatewayd.model import Family
from tests.proof.traffic import Account
from tests.proof.tunnels.ikev2 import IkeV2
from tests.proof.tunnels.numbered import GRACE_S, WAYS, Numbered, Way
from tests.proof.tunnels.openvpn import OpenVpnStatic, OpenVpnTcp, OpenVpnTls
from tests.proof.tunnels.pptp import Pptp
from tests.proof.tunnels.raw import Ah, Esp, Gre
from tests.proof.tunnels.tunnel import Plan, Tunnel
from tests.proof.tunnels.wireguard import WireGuard
from tests.support.lab_daemon import holds

KINDS: Final[tuple[type[Tunnel], ...]] = (
    OpenVpnTls, OpenVpnTcp, OpenVpnStatic, WireGuard, IkeV2, Pptp, Gre, Esp, Ah,
)  # fmt: skip
FAMILIES: Final[tuple[Family, Family]] = (4, 6)
SIDES: Final = {"interfaces": {"inside": ["inside0"], "outside": ["outside0"]}}
"""For the policy: the far end may speak first, and its source port says nothing of the service."""
ARRIVALS_S: Final = 60.0
STRAYS: Final = 50
"""Number of the first tunnel that no registration has; registered ones are up beside them."""


class Fleet:
    """`is_stray`: with addresses that no registration has. Use `with`; nothing is begun before `start`."""

    def __init__(
        self,
        lab: Lab,
        directory: Path,
        kinds: Sequence[type[Tunnel]] = KINDS,
        families: Sequence[Family] = FAMILIES,
        *,
        is_stray: bool = False,
    ) -> None:
        self.lab, self.tunnels, self.numbered = lab, list[Tunnel](), Numbered()
        with ExitStack() as stack:
            stack.enter_context(self.numbered)
            for kind in kinds:
                for family in families:
                    plan = Plan(len(self.tunnels) + (STRAYS if is_stray else 0), family)
                    outer = plan.stray if is_stray else plan.client
                    made = kind(lab, plan, directory, self.numbered, outer=outer)
                    self.tunnels.append(stack.enter_context(made))
            self._stack = stack.pop_all()

    def registrations(self) -> list[dict[str, Any]]:
        return [each.registration() for each in self.tunnels]

    def start(self) -> None:
        """Begin one after the other, so that the time that each takes is its own. Raises AssertionError where one
        does not come up."""
        for each in self.tunnels:
            each.start()
            assert each.is_up(), (
                f"{each.name} does not come up\n{each.log('near')[-2000:]}\n{each.log('far')[-2000:]}"
            )

    def handshakes(self) -> dict[str, int | None]:
        return {each.name: each.handshakes() for each in self.tunnels}

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TunnelTraffic:
    """The streams of a fleet that is up: `tests.proof.traffic.Traffic`. A new handshake is a loss too.

    `lost` and `sent`: by tunnel, over all `flows`.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._numbered = fleet.numbered
        self.sent = {each.name: 0 for each in fleet.tunnels}
        self.lost = dict(self.sent)
        self.fresh = dict(self.sent)
        """Handshakes during `flows`."""
        self._account = Account(0, 0, 0)

    @contextmanager
    def flows(self) -> Iterator[None]:
        before, since = self._fleet.handshakes(), self._numbered.marks()
        for each in self._fleet.tunnels:
            self._numbered.start(each.name)
        try:
            yield
        finally:
            for each in self._fleet.tunnels:
                self._numbered.stop(each.name)
            self._take_stock(since, before)

    def _take_stock(self, since: Mapping[tuple[str, Way], int], before: Mapping[str, int | None]) -> None:
        self._account = Account(0, 0, 0)
        end, deadline = self._numbered.marks(), time.monotonic() + GRACE_S
        for each in self._fleet.tunnels:
            score = self._numbered.score(each.name, since, end, grace_s=deadline - time.monotonic())
            fresh = (each.handshakes() or 0) - (before[each.name] or 0)
            self.sent[each.name] += score.sent
            self.lost[each.name] += len(score.lost)
            self.fresh[each.name] += fresh
            notes = []
            if score.lost:
                notes.append(f"{each.name}: {len(score.lost)} of {score.sent} lost, first {score.lost[0]}")
            if fresh:
                notes.append(f"{each.name}: {fresh} new handshakes {each.last_handshake()}".rstrip())
            self._account += Account(score.sent, len(score.lost), 0, tuple(notes))

    def wait_sent(self, packets: int) -> None:
        """Half of them in each direction."""
        wanted = {key: number + packets // 2 for key, number in self._numbered.marks().items()}
        assert holds(lambda: all(self._numbered.sent(*key) >= most for key, most in wanted.items()), ARRIVALS_S)

    def wait_arrivals(self, packets: int) -> None:
        keys = [(each.name, way) for each in self._fleet.tunnels for way in WAYS]
        wanted = {key: self._numbered.arrived(*key) + packets // 2 for key in keys}

        def missing() -> list[tuple[str, Way]]:
            return [key for key, most in wanted.items() if self._numbered.arrived(*key) < most]

        assert holds(lambda: not missing(), ARRIVALS_S), f"nothing arrives: {missing()}"

    def account(self) -> Account:
        return self._account
