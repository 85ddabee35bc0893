"""The controller as a change of the mode needs it: what is in force, and why nothing can be armed."""

from __future__ import annotations

from collections.abc import Callable

from gatewayd.control.controller import Controller
from gatewayd.control.core import InSync
from gatewayd.control.status import incompleteness_of
from gatewayd.model.flow import Mode
from gatewayd.model.policy import Stage
from gatewayd.trial.stages import Cause


class TrialGateway:
    """`change_stage`: the kernel gets the stage now, by this word. `is_stage_in_force`: it has it."""

    def __init__(self, controller: Controller, in_sync: InSync) -> None:
        self._controller = controller
        self._reconciler = controller.reconciler
        self._in_sync = in_sync
        self.change_stage: Callable[[str], None] = controller.change_stage
        self.cause_of_stage: Callable[[], Cause] = controller.cause_of_stage
        self.is_stage_in_force: Callable[[], bool] = controller.is_policy_in_force

    def file_stage(self) -> Stage:
        """Of the configuration in force."""
        return self._controller.settings.policy.stage

    def mode_in_force(self) -> Mode:
        """Of the rules in the kernel."""
        return self._reconciler.mode_in_force

    def is_stage_read_back(self) -> bool:
        """The kernel has the stage of the moment, and was found with it since."""
        return self.is_stage_in_force() and self._in_sync.epoch == self._reconciler.epoch

    def obstacles(self, stage: Stage) -> tuple[str, ...]:
        """Why it cannot be armed now, in words."""
        if stage.mode == "limit" and self._controller.settings.policy.on_unregistered.limit is None:
            return ("policy.on_unregistered.limit of the file is null",)
        reasons = tuple(incompleteness_of(self._controller))
        if reasons or self._in_sync.is_recent():
            return reasons
        unready = self._reconciler.unready()
        return () if unready is None else (unready,)

    def kernel_error(self) -> str:
        """What the kernel says of the latest attempt; "" = nothing."""
        return self._reconciler.stats.last_error or self._reconciler.unready() or ""
