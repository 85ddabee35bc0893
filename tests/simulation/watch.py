"""What must hold after every write to the kernel and after every event of a run."""

from __future__ import annotations

import re
from math import inf
from typing import Any, Final

from gatewayd.compile.ruleset import parse_tag
from gatewayd.model.flow import Flow
from gatewayd.model.policy import Stage
from gatewayd.model.transaction import CreateSet, Ruleset, RulesTag, Transaction
from tests.simulation.kernel import Kernel
from tests.simulation.life import Lives
from tests.simulation.oracle import ALL, beyond_canary, flows_found
from tests.simulation.parties import FLOWS, names_of
from tests.simulation.told import Broken, Counts, Trace
from tests.simulation.truth import Truth
from tests.simulation.wanted import Wanted

_CANARY: Final = re.compile(r"mod 100 seed 0x[0-9a-f]+ >= ([0-9]+) accept")
_REFUSAL: Final = re.compile(r"\b(?:reject with|drop$)", re.MULTILINE)
DOUBT_S: Final = 10.0
"""Within which a change that no program told of is found."""
SLACK_S: Final = 6.0
"""What a way back takes at most, once nothing is in its way."""


class Watch:
    """`tag`: of the rules in force, as they were written; None where they are gone or another program's."""

    def __init__(
        self,
        kernel: Kernel,
        truth: Truth,
        wanted: Wanted,
        lives: Lives,
        counts: Counts,
        trace: Trace,
        drain_s: float,
    ) -> None:
        self._kernel, self._clock = kernel, kernel.clock
        self._truth, self._wanted, self._lives = truth, wanted, lives
        self._counts, self._say = counts, trace.say
        self.tag: RulesTag | None = None
        self._percent = 100
        self._passed = self._found = 0
        """Certain flows that passed after the last write; and that the sets let pass."""
        self._doubtful, self._doubted_at_s = 0, -inf
        """Flows of elements that another program took out, until the process must have seen it: another element may
        let them pass meanwhile, which has its own time to go."""
        self._drain_s = drain_s
        self._lost_at: dict[Flow, float] = {}
        self._back_at: dict[Flow, float] = {}
        self._hindered_s = 0.0
        """When a way back was last hindered by the world: a start, a call that fails, another program."""

    # -- what the world does -------------------------------------------------------------------------------

    def hinder(self) -> None:
        """Something is in the way of the process for a moment."""
        self._hindered_s = self._clock.elapsed_s

    def doubt(self, flows: int) -> None:
        """Another program took elements of these flows out."""
        self._doubtful |= flows
        self._doubted_at_s = self._hindered_s = self._clock.elapsed_s
        self.look_again()

    def lose_rules(self) -> None:
        """They are no more what the process wrote."""
        self.tag = None

    def lose_power(self) -> None:
        self.tag, self._lost_at, self._back_at = None, {}, {}

    def shorten_drain(self, drain_s: float) -> None:
        self._drain_s = min(self._drain_s, drain_s)

    def changed(self) -> None:
        """Something happened around the process: only what is registered all along counts from now on."""
        self._settle()
        self._found &= self._truth.certain() & ~self._doubtful
        self._passed &= self._truth.known() & ~self._doubtful
        self._note_lost_flows()

    def look_again(self) -> None:
        """Another program took something away, or the process is another."""
        found, passes = self._look()
        self._found &= self._truth.certain() & found & ~self._doubtful
        self._passed &= self._truth.known() & passes & ~self._doubtful

    # -- what the process does -----------------------------------------------------------------------------

    def wrote(self, write: Transaction | Ruleset) -> None:
        """Raises Broken where a flow does not pass that has to."""
        if isinstance(write, Ruleset):
            self._counts.rulesets += 1
            self._check_rules(write)
            self._say(f"rules epoch={write.epoch} {' '.join(sorted(write.set_names))}")
        else:
            self._counts.commits += 1
            self._counts.grown += sum(
                isinstance(each, CreateSet) and "_g" in each.name for each in write.operations
            )
            self._say(f"commit {write.cause} " + " ".join(_text(each) for each in write.operations))
        self.changed()
        self.check("after a write")
        found, passes = self._look()
        self._found = self._truth.certain() & found & ~self._doubtful
        self._passed = self._truth.known() & passes & ~self._doubtful

    def cleared(self, flows: list[Flow]) -> None:
        """The process takes the mark *registered* off these flows. Raises Broken where one drains still."""
        now, found = self._clock.elapsed_s, flows_found(self._kernel.tables.table, self._clock.elapsed_s)
        for flow in flows:
            number = FLOWS.index(flow)
            if found >> number & 1 or not self.is_armed():
                continue
            is_back = now - self._back_at.get(flow, now) > SLACK_S
            since_s = now if is_back else self._lost_at.get(flow, now)
            if now < since_s + self._drain_s - 0.5:
                raise Broken(
                    f"the mark of {names_of(1 << number)[0]} goes after {now - since_s:.1f} s of its drain"
                )

    # -- what must hold ------------------------------------------------------------------------------------

    def stage(self) -> Stage | None:
        """Of the rules in force."""
        return None if self.tag is None else Stage(self.tag.mode, self._percent)

    def lost_flows(self) -> int:
        """Those that nothing registers, and no element lets pass."""
        return ALL & ~self._truth.possible() & ~self._look()[0]

    def is_armed(self) -> bool:
        table = self._kernel.tables.table
        return table is not None and bool(table.rules) and self.tag is not None and self.tag.mode != "observe"

    def check(self, what: str) -> None:
        """Raises Broken: a flow was lost."""
        found, passes = self._look()
        for lost in (self._found & ~found, self._passed & ~passes):
            if lost:
                raise Broken(f"{what}: lost {', '.join(names_of(lost))}")

    def check_mode(self) -> None:
        """A mode that no operator wants any more goes, once nothing is in the way. Raises Broken."""
        life, stage, now = self._lives.life, self.stage(), self._clock.elapsed_s
        if life is None or not life.is_started or stage is None or not self.is_armed():
            return
        allowed = self._wanted.allowed(now, 2 * SLACK_S)
        is_complete = life.controller.loaded and not life.controller.unread_sources()
        is_able = is_complete or all(each.mode == "observe" for each in allowed)
        if stage not in allowed and is_able and now > self._hindered_s + 2 * SLACK_S:
            raise Broken(f"mode {stage} is in force still, and no operator wants it")

    def _look(self) -> tuple[int, int]:
        """Flows that the sets let pass, and flows that pass."""
        found = flows_found(self._kernel.tables.table, self._clock.elapsed_s)
        return found, found | beyond_canary(self._percent) if self.is_armed() else ALL

    def _check_rules(self, ruleset: Ruleset) -> None:
        tag, before = parse_tag(ruleset.tag), self.tag
        assert tag is not None
        if before is not None and before.policy != tag.policy and before.epoch == tag.epoch:
            raise Broken(f"rules of another policy in the same epoch {tag.epoch}")
        stage, was = Stage(tag.mode, _percent_of(ruleset)), self.stage()
        if before is not None and was != stage and before.epoch == tag.epoch:
            raise Broken(f"rules of another stage in the same epoch {tag.epoch}")
        if tag.mode in ("observe", "mark") and _REFUSAL.search(ruleset.text):
            raise Broken(f"rules of mode {tag.mode} refuse something")
        if tag.mode != "observe" and stage not in self._wanted.allowed(self._clock.elapsed_s, SLACK_S):
            raise Broken(f"mode {stage} is armed, and no operator wants it")
        self.tag, self._percent = tag, stage.canary_percent

    # -- what is known of the process ----------------------------------------------------------------------

    def _settle(self) -> None:
        """Whether the process has put all into the kernel, by its own word: that makes the oracle stricter only
        after a restart."""
        life = self._lives.life
        if life is None or not life.is_started or life.reconciler.unready() is not None:
            return
        self._truth.settle()
        if self._clock.elapsed_s > self._doubted_at_s + DOUBT_S:
            self._doubtful = 0

    def _note_lost_flows(self) -> None:
        """Since when flows with the mark *registered* are registered no more by anything."""
        connections = self._kernel.flows.connections
        if not connections:
            return
        draining, now = self._truth.draining(), self._clock.elapsed_s
        for event in connections.values():
            if not draining >> FLOWS.index(event.flow) & 1:
                self._back_at.setdefault(event.flow, now)
                continue
            # Back for a moment that no search of connections need have seen?
            if now - self._back_at.pop(event.flow, now) > SLACK_S:
                self._lost_at[event.flow] = now
            self._lost_at.setdefault(event.flow, now)


def _percent_of(ruleset: Ruleset) -> int:
    """Of the clients that the rules enforce something for."""
    found = _CANARY.search(ruleset.text)
    return 100 if found is None else int(found[1])


def _text(operation: Any) -> str:
    keys = sorted(each.hex() for each in getattr(operation, "keys", ()))
    name = getattr(operation, "set_name", getattr(operation, "name", ""))
    return f"{type(operation).__name__} {name} {','.join(keys)}"
