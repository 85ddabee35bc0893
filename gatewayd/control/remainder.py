"""The elements that a start found in the kernel and that nobody registers: judged, held, released."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

from gatewayd.model.registration import Registration
from gatewayd.reconcile import Reconciler
from gatewayd.registry.limits import GuardDecision, judge_remainder
from gatewayd.registry.state import KERNEL
from gatewayd.settings import ShrinkGuardSettings
from gatewayd.sources.runner import run_in_slices

REMAINDER_EVERY_S = 10.0
"""How often at most what is held of the kernel is compared with a registry that changes."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Removals that wait for `accept`. `serial`: under which. `by_cause`: how many, by what brought them about;
    registrations, or elements of the kernel. `reason`: in words."""

    serial: int
    since_s: float
    by_cause: Mapping[str, int]
    reason: str

    @property
    def count(self) -> int:
        return sum(self.by_cause.values())

    @property
    def causes(self) -> tuple[str, ...]:
        return tuple(sorted(self.by_cause))


class Remainder:
    """Retains what the kernel is found with, from the start until `judge`. `held`: elements that wait for
    `accept`."""

    def __init__(self, reconciler: Reconciler) -> None:
        self.held: Hold | None = None
        self._reconciler = reconciler
        self._retains = True
        self._judged_at = -inf
        self._is_old = False
        reconciler.retain()

    def note_change(self) -> None:
        """The registry in force is another one."""
        self._is_old = True

    def is_due(self, now: float) -> bool:
        """Whether `judge` may find something to release that it did not find before."""
        return self._retains or (
            self.held is not None and self._is_old and now >= self._judged_at + REMAINDER_EVERY_S
        )

    async def judge(
        self,
        closed: Iterable[Registration],
        settings: ShrinkGuardSettings,
        now: float,
        *,
        lost_files: bool,
        taken: int | None,
    ) -> GuardDecision:
        """Release the elements that nobody registers, unless they are more than the guard lets go: then `held`.

        `closed`: registrations whose windows have closed, which explain theirs. `lost_files`: files that said whose
        elements are were lost. `taken`: a serial that removals are held under already.
        """
        self._retains = self._is_old = False
        self._judged_at = now
        left, found = await run_in_slices(self._reconciler.sort_retained_in_slices(closed))
        decision = judge_remainder(found, left, settings, lost_files=lost_files)
        await run_in_slices(self._reconciler.release_in_slices(left if decision.is_held else 0))
        before, self.held = self.held, None
        if decision.is_held:
            reason = f"the kernel has {left} elements that nobody registers, of {found} that it was found with"
            if decision.reason == "protected":
                reason = f"{reason}, and they may be of a protected category: files that said whose were lost"
            number = int(now) + (taken == int(now))
            serial, since_s = (number, now) if before is None else (before.serial, before.since_s)
            self.held = Hold(serial, since_s, {KERNEL: left}, f"{reason}; more than {decision.limit}")
        return decision

    async def accept(self, serial: int) -> int:
        """Release what is held under this serial, and how many elements that is."""
        if self.held is None or self.held.serial != serial:
            return 0
        count, self.held = self.held.count, None
        await run_in_slices(self._reconciler.release_in_slices())
        return count
