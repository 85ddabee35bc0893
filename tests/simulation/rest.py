"""The end of a run: nothing more happens, all comes to rest, and is as it should be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gatewayd.compile.rule_sets import RULE_SETS
from tests.simulation.kernel import Kernel
from tests.simulation.life import Lives
from tests.simulation.loop import SeededLoop, nothing
from tests.simulation.nas import Nas
from tests.simulation.operators import ELEMENT_TIMEOUT_S, SESSION_TIMEOUT_S, Operators
from tests.simulation.oracle import flows_found
from tests.simulation.parties import names_of
from tests.simulation.told import Broken
from tests.simulation.truth import Truth
from tests.simulation.wanted import Wanted
from tests.simulation.watch import SLACK_S, Watch

REST_S: Final = 300.0
"""Within which all has come to rest, once nothing more happens."""


class Rest:
    """For a process that runs, with nothing in its way."""

    def __init__(
        self, kernel: Kernel, loop: SeededLoop, truth: Truth, wanted: Wanted, lives: Lives, watch: Watch,
        nas: Nas, operators: Operators,
    ) -> None:  # fmt: skip
        self._kernel, self._clock, self._loop = kernel, kernel.clock, loop
        self._truth, self._wanted, self._lives, self._watch = truth, wanted, lives, watch
        self._nas, self._operators = nas, operators

    def come(self, *, has_ghosts: bool) -> None:
        """`has_ghosts`: the journal may have sessions that are over. Raises Broken."""
        self._nas.end_sessions(SESSION_TIMEOUT_S)
        self._pass(2.0)
        self._pass(SESSION_TIMEOUT_S * 1.2 + ELEMENT_TIMEOUT_S if has_ghosts else 12.0)
        until_s = self._clock.elapsed_s + REST_S
        while (reason := self._unrest()) is not None:
            if self._clock.elapsed_s > until_s:
                raise Broken(f"it does not come to rest: {reason}")
            self._operators.accept()
            self._pass(1.0)
        self._check()

    def _pass(self, seconds: float) -> None:
        """Sessions stay confirmed meanwhile."""
        until_s = self._clock.elapsed_s + seconds
        while self._clock.elapsed_s < until_s:
            step_s = min(
                until_s, self._clock.elapsed_s + (3.0 if seconds < SESSION_TIMEOUT_S else SESSION_TIMEOUT_S / 3)
            )
            self._loop.call_at(step_s, nothing)
            self._loop.run_until(self._is_after(step_s))
            if seconds > SESSION_TIMEOUT_S / 3:
                self._nas.end_sessions(SESSION_TIMEOUT_S)
            self._watch.changed()
            self._watch.check("at rest")
            self._watch.check_mode()

    def _is_after(self, until_s: float) -> Callable[[], bool]:
        return lambda: self._clock.elapsed_s >= until_s

    def _unrest(self) -> str | None:
        life = self._lives.life
        assert life is not None
        if not life.is_started or self._nas.unanswered:
            return "records without an answer" if self._nas.unanswered else "it does not start"
        if self._operators.is_behind():
            self._operators.reload_again()
            return "the file is not in force"
        if (why := life.reconciler.unready()) is not None:
            return why
        if life.reconciler.tracker.count_surplus() or life.reconciler.tracker.retired:
            return "surplus"
        if life.controller.holds():
            return "removals are held"
        if life.trials.state.trial is not None:
            return "a trial is pending"
        if not life.controller.is_policy_in_force():
            return "another policy is in force"
        found = flows_found(self._kernel.tables.table, self._clock.elapsed_s)
        wrong = found ^ self._truth.registered()
        return f"{names_of(wrong)} are wrong" if wrong else None

    def _check(self) -> None:
        table = self._kernel.tables.table
        assert table is not None
        unused = table.sets.keys() - RULE_SETS - table.used
        if unused:
            raise Broken(f"sets that no rule looks into: {sorted(unused)}")
        stage, now = self._watch.stage(), self._clock.elapsed_s
        if stage is None or (stage.mode != "observe" and stage not in self._wanted.allowed(now, 2 * SLACK_S)):
            raise Broken(f"at rest with {stage}, which no operator wants")
