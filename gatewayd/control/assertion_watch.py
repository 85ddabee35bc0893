"""Whether the kernel keeps the assertions, looked up again and again: its rules, and the very elements.

At least every LOOK_EVERY_S, and soon after anything was committed. A look takes turns with everything else: it
sends a few requests at a time, and rests many times as long as it took.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import islice
from math import inf

from gatewayd.allowlist.match import in_scope
from gatewayd.assertions.judge import FlowState, Outcome, World, judge
from gatewayd.assertions.lookups import Element, Passage, RulesReading, elements_for
from gatewayd.assertions.states import AssertionsView
from gatewayd.control.assertion_gate import AssertionGate
from gatewayd.control.controller import Controller
from gatewayd.errors import KernelError
from gatewayd.log import RateLimited, get_logger
from gatewayd.model.assertion import Assertion
from gatewayd.model.flow import Flow

log = get_logger(__name__)

LOOK_EVERY_S = 5.0
POLL_S = 0.5
"""How often it is asked whether anything was committed."""
REST = 20
"""After a look so many times as long as it took passes before the next: 5 % of one core at most."""
PIECE = 64
"""Elements asked for at a time."""


class AssertionWatch:
    """`likely`: the time for people. Nothing is looked up before the rules of this run are in the kernel."""

    def __init__(
        self,
        controller: Controller,
        gate: AssertionGate,
        passage: Passage,
        *,
        likely: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._controller = controller
        self._gate = gate
        self._passage = passage
        self._likely = likely
        self._monotonic = monotonic
        self._has_begun = False
        self._looked_s: float | None = None
        self._failures = 0
        self._last: dict[Flow, Element] = {}
        """What let each flow pass at the latest look: asked for first."""
        self._said = RateLimited(log, interval_s=60.0, clock=monotonic)

    def view(self) -> AssertionsView:
        """For the status."""
        gate = self._gate
        counts = AssertionsView(refused=gate.refused, forced=gate.forced, look_failures=self._failures)
        return gate.states.view(self._looked_s, counts)

    @property
    def failing(self) -> int:
        """Assertions that the kernel did not keep at the latest look."""
        return len(self._gate.states.failing())

    async def run(self) -> None:
        """Until cancelled."""
        next_s, rested_s, seen = -inf, -inf, (0, 0, -1)
        while True:
            await asyncio.sleep(POLL_S)
            now = self._monotonic()
            stats = self._controller.reconciler.stats
            found = stats.transactions, stats.repairs, self._controller.reconciler.epoch
            if now < rested_s or (now < next_s and found == seen):
                continue
            seen = found
            await self.look()
            ended = self._monotonic()
            rested_s = ended + REST * (ended - now)
            next_s = rested_s if self._gate.states.is_waiting else max(ended + LOOK_EVERY_S, rested_s)

    async def look(self) -> None:
        """Once. What the kernel cannot say now is as it was."""
        gate, reconciler = self._gate, self._controller.reconciler
        # Rules come after all elements. Not `unready`: for a registration past a bound it stays so.
        self._has_begun = self._has_begun or (self._controller.loaded and reconciler.policy_in_force is not None)
        gate.settle()
        if not self._has_begun:
            return
        try:
            rules = await self._passage.read_rules() if gate.states.assertions else RulesReading()
            for assertion in gate.states.assertions:
                await self._look_at(assertion, rules)
        except KernelError as error:
            self._failures += 1
            self._said.warning("assertion.look_failed", error=str(error))
            return
        flows = {flow for each in gate.states.assertions for flow in each.flows}
        self._last = {flow: element for flow, element in self._last.items() if flow in flows}
        self._looked_s = self._likely()

    async def _look_at(self, assertion: Assertion, rules: RulesReading) -> None:
        controller = self._controller
        now = controller.moment()
        policy = controller.reconciler.policy_in_force or controller.policy(now)
        passing = [flow for flow in assertion.flows if await self._passes(flow, rules)]
        world = World(controller.allowlist, policy, now)

        def state_of(flow: Flow) -> FlowState:
            return self._state_in_kernel(flow, world, rules, is_passing=flow in passing)

        outcome = judge(assertion, policy, state_of)
        expected = judge(assertion, policy, world.state_of)
        self._say(assertion, outcome, is_expected=expected.holds)

    def _state_in_kernel(self, flow: Flow, world: World, rules: RulesReading, *, is_passing: bool) -> FlowState:
        """The kernel's word, with the registry's reason for it where they agree."""
        said = world.state_of(flow)
        if not in_scope(world.policy.scope, flow):
            return FlowState("out_of_scope", said.reason)
        if rules.tag is None:
            return FlowState("unregistered", "the kernel has no rules of gatewayd")
        if is_passing and said.word != "registered":
            return FlowState("registered", "an element in the kernel lets it pass, and nobody registers it")
        if not is_passing and said.word == "registered":
            return FlowState("unregistered", f"{said.reason}, but the kernel has no element of it")
        return said

    async def _passes(self, flow: Flow, rules: RulesReading) -> bool:
        """Whether an element that is in the kernel now, in a set that its rules look into, lets the flow pass."""
        known = self._last.get(flow)
        if known is not None and known[0] in rules.set_names and await self._passage.find_elements([known]):
            return True
        self._last.pop(flow, None)
        rest: Iterator[Element] = elements_for(flow, rules.set_names)
        while piece := list(islice(rest, PIECE)):
            found = await self._passage.find_elements(piece)
            if found:
                self._last[flow] = min(found)
                return True
        return False

    def _say(self, assertion: Assertion, outcome: Outcome, *, is_expected: bool) -> None:
        turn = self._gate.states.note(
            assertion, outcome, self._monotonic(), self._likely(), is_expected=is_expected
        )
        name, kind, place = assertion.name, assertion.kind, assertion.place
        if turn == "fails":
            log.error(
                "assertion.failing",
                assertion=name,
                kind=kind,
                place=place,
                reason=outcome.reason,
                comment=assertion.comment,
            )
        elif turn == "passes":
            log.info("assertion.passing", assertion=name, kind=kind, place=place)
