"""Which stages, a mode and a canary, operators want: by the file, by orders, and by trials with an end."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from gatewayd.model.policy import Stage

TRIP_SAVED_S: Final = 1.0
RELOAD_S: Final = 60.0
"""Within which a reload is made, or refused."""


@dataclass(slots=True)
class Order:
    """A stage that an operator wants, from when to when, in seconds since the boot of the host."""

    stage: Stage
    from_s: float
    until_s: float
    is_trial: bool


class Wanted:
    """`file_stage`: of the configuration file at present."""

    def __init__(self, file_stage: Stage) -> None:
        self._file_stages: list[tuple[Stage, float]] = [(file_stage, -inf)]
        self._orders: list[Order] = []
        self._tripped_s: float | None = None

    @property
    def file_stage(self) -> Stage:
        return self._file_stages[-1][0]

    def allowed(self, now: float, slack_s: float) -> set[Stage]:
        """Stages that some operator's word stands for, or did within `slack_s`."""
        if self._tripped_s is not None and now > self._tripped_s + slack_s / 2:
            return {Stage("observe")}
        found = {stage for stage, until_s in self._file_stages[:-1] if now < until_s + slack_s}
        found.add(self.file_stage)
        found.update(each.stage for each in self._orders if now < each.until_s + slack_s)
        return found

    # -- the file ------------------------------------------------------------------------------------------

    def use_file(self, stage: Stage, now: float) -> None:
        """It says something else; whether it is read, the daemon decides."""
        self._file_stages[-1] = self.file_stage, now + RELOAD_S
        self._file_stages.append((stage, inf))

    def refuse_file(self) -> None:
        """The file says one thing and the daemon goes by another; an operator may want either."""
        self._file_stages = [(stage, inf) for stage, _ in self._file_stages]

    # -- orders --------------------------------------------------------------------------------------------

    def begin(self, stage: Stage, now: float, trial_s: float | None) -> Order:
        """An order is given. `trial_s`: how long a trial lasts; None is no trial."""
        until_s = inf if trial_s is None else now + trial_s + 0.5
        order = Order(stage, now, until_s, is_trial=trial_s is not None)
        self._orders.append(order)
        return order

    def refuse(self, order: Order, now: float) -> None:
        order.until_s = min(order.until_s, now)

    def confirm(self, now: float) -> None:
        """Trials that are not over stand."""
        for each in self._orders:
            if each.is_trial and each.until_s > now:
                each.until_s, each.is_trial = inf, False

    def end(self, given_before_s: float, now: float) -> None:
        """Orders that were given before are over."""
        for each in self._orders:
            if each.from_s < given_before_s:
                each.until_s = min(each.until_s, now)

    # -- the trip ------------------------------------------------------------------------------------------

    def trip(self, now: float) -> None:
        """The gateway has gone back to observe, whatever operators want, until one of them rearms it."""
        self._tripped_s = now

    def rearm(self) -> None:
        """Also where a restart knows nothing of the trip."""
        self._tripped_s = None

    def is_latched(self, now: float) -> bool:
        """For so long that it is on a disk that takes it."""
        return self._tripped_s is not None and now > self._tripped_s + TRIP_SAVED_S

    def end_life(self, now: float) -> None:
        """Beyond what the file says an order ends with the process."""
        for each in self._orders:
            if each.until_s == inf and not each.stage.enforces_no_more_than(self.file_stage):
                each.until_s = now

    def lose_power(self, now: float) -> None:
        for each in self._orders:
            if each.is_trial:
                each.until_s = min(each.until_s, now)
