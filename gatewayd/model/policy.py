"""The policy in force at a moment, the stage of arming, and how the ct mark's bits are shared out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, get_args

from gatewayd.model.flow import Mode
from gatewayd.model.service import Service

_RANK: Final = {mode: rank for rank, mode in enumerate(get_args(Mode))}


@dataclass(frozen=True, slots=True)
class MarkLayout:
    """`mask`: a run of 4 or more bits of the ct mark that are ours; the others are kept as they are.

    The highest bit says *registered*. The rest hold the epoch in which a flow was judged unregistered; 0 = not
    judged.
    """

    mask: int

    @property
    def registered(self) -> int:
        return 1 << (self.mask.bit_length() - 1)

    @property
    def epoch_mask(self) -> int:
        return self.mask ^ self.registered

    @property
    def others(self) -> int:
        """The bits that are not ours."""
        return self.mask ^ 0xFFFFFFFF

    @property
    def last_epoch(self) -> int:
        return self.epoch_mask >> self._shift

    @property
    def _shift(self) -> int:
        return (self.mask & -self.mask).bit_length() - 1

    def judged(self, epoch: int) -> int:
        """The mark of a flow judged unregistered in `epoch` (1..last_epoch)."""
        return epoch << self._shift

    def next_epoch(self, epoch: int) -> int:
        """The epoch after `epoch`; after the last comes 1."""
        return epoch % self.last_epoch + 1


@dataclass(frozen=True, slots=True)
class Stage:
    """A mode and the share of the clients, in percent, for which it takes effect: what `gatewayd mode` sets."""

    mode: Mode
    canary_percent: int = 100

    def __str__(self) -> str:
        return self.mode if self.mode == "observe" else f"{self.mode}, canary {self.canary_percent}%"

    def enforces_no_more_than(self, other: Stage) -> bool:
        """Whether no client meets a stricter treatment by it than by `other`."""
        if self.mode == "observe":
            return True
        return _RANK[self.mode] <= _RANK[other.mode] and self.canary_percent <= other.canary_percent


@dataclass(frozen=True, slots=True)
class Policy:
    """What the rules do, times and files resolved. `mode` is the effective one (`observe` outside of
    `enforce_from` and `enforce_until`).

    `canary_percent`: of clients, for which a mode other than observe takes effect. `dscp` 0..63 and packet marks
    are None where nothing is to be set. `limit_bytes_s`: of each client, an IPv4 address or an IPv6 /64.
    `counts`: unregistered flows are counted by prefix. `shadows_limit`: observe counts what limit would drop.
    """

    mode: Mode
    scope: tuple[Service, ...]
    mark_layout: MarkLayout
    priority: int = -10
    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    canary_percent: int = 100
    registered_dscp: int | None = None
    registered_mark: int | None = None
    unregistered_dscp: int | None = None
    unregistered_mark: int | None = None
    limit_bytes_s: int = 65536
    log_group: int = 9480
    log_packets_s: int = 1000
    counts: bool = True
    shadows_limit: bool = False
    near_group: int = 9481
    near_packets_s: int = 1000
