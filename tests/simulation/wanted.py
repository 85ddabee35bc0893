"""Which modes operators want: by the configuration file, by orders, and by trials with an end."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from gatewayd.model.flow import Mode

RANK: Final[dict[Mode, int]] = {"observe": 0, "mark": 1, "limit": 2, "reject": 3}
RELOAD_S: Final = 60.0
"""Within which a reload is made, or refused."""


@dataclass(slots=True)
class Order:
    """A mode that an operator wants, from when to when, in seconds since the boot of the host."""

    mode: Mode
    from_s: float
    until_s: float
    is_trial: bool


class Wanted:
    """`file_mode`: of the configuration file at present."""

    def __init__(self, file_mode: Mode) -> None:
        self._file_modes: list[tuple[Mode, float]] = [(file_mode, -inf)]
        self._orders: list[Order] = []

    @property
    def file_mode(self) -> Mode:
        return self._file_modes[-1][0]

    def allowed(self, now: float, slack_s: float) -> set[Mode]:
        """Modes that some operator's word stands for, or did within `slack_s`."""
        found = {mode for mode, until_s in self._file_modes[:-1] if now < until_s + slack_s}
        found.add(self.file_mode)
        found.update(each.mode for each in self._orders if now < each.until_s + slack_s)
        return found

    # -- the file ------------------------------------------------------------------------------------------

    def use_file(self, mode: Mode, now: float) -> None:
        """It says something else; whether it is read, the daemon decides."""
        self._file_modes[-1] = self.file_mode, now + RELOAD_S
        self._file_modes.append((mode, inf))

    def refuse_file(self) -> None:
        """The file says one thing and the daemon goes by another; an operator may want either."""
        self._file_modes = [(mode, inf) for mode, _ in self._file_modes]

    # -- orders --------------------------------------------------------------------------------------------

    def begin(self, mode: Mode, now: float, trial_s: float | None) -> Order:
        """An order is given. `trial_s`: how long a trial lasts; None is no trial."""
        until_s = inf if trial_s is None else now + trial_s + 0.5
        order = Order(mode, now, until_s, is_trial=trial_s is not None)
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

    def end_life(self, now: float) -> None:
        """Beyond what the file says an order ends with the process."""
        for each in self._orders:
            if each.until_s == inf and RANK[each.mode] > RANK[self.file_mode]:
                each.until_s = now

    def lose_power(self, now: float) -> None:
        for each in self._orders:
            if each.is_trial:
                each.until_s = min(each.until_s, now)
