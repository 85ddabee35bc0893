"""One assertion against what is registered and a policy, and which assertions a change would break."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gatewayd.allowlist.match import Covering, decide, in_scope
from gatewayd.compile.effects import judge_canary
from gatewayd.compile.interfaces import Sides, crosses
from gatewayd.errors import InputRejected
from gatewayd.model.assertion import Assertion
from gatewayd.model.flow import DecisionWord, Flow, Mode
from gatewayd.model.policy import Policy
from gatewayd.model.registration import Slices
from gatewayd.model.service import Service

_CUTS: Final[dict[Mode, tuple[int, str]]] = {
    "limit": (1, "mode limit drops its packets above the limit"),
    "reject": (2, "mode reject refuses it"),
}
"""How much a mode takes from an unregistered flow, and in words."""


class FlowState(NamedTuple):
    """What a flow is, and why in words."""

    word: DecisionWord
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether the assertion holds, and what the policy takes from a flow that must pass: 0 nothing, 1 packets above
    the limit, 2 all. `reason`: of the first service that fails."""

    holds: bool
    cut: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Broken:
    """An assertion that a change would break, and why."""

    assertion: Assertion
    reason: str

    def __str__(self) -> str:
        each = self.assertion
        return f"{each.kind} {each.name} ({each.place}): {self.reason}; it is there for: {each.comment}"


class AssertionsBroken(InputRejected):
    """A change would break these; it was not made. `--force` makes it all the same."""

    def __init__(self, broken: tuple[Broken, ...]) -> None:
        self.broken = broken
        super().__init__("\n".join(map(str, broken)))


@dataclass(frozen=True, slots=True)
class World:
    """Before or after a change. `is_retained`: whether an element that nobody registers lets the flow pass."""

    allowlist: Covering
    policy: Policy
    now: float
    is_retained: Callable[[Flow], bool] = lambda _: False

    def state_of(self, flow: Flow) -> FlowState:
        decision = decide(self.allowlist, self.policy.scope, flow, self.now)
        if decision.word == "unregistered" and self.is_retained(flow):
            return FlowState("registered", "an element in the kernel lets it pass, and nobody registers it")
        return FlowState(decision.word, decision.reason)


def judge(assertion: Assertion, policy: Policy, state_of: Callable[[Flow], FlowState]) -> Outcome:
    """`state_of`: what a flow of it is, by the registry or by the kernel."""
    states = [(flow, state_of(flow)) for flow in assertion.flows]
    if assertion.kind == "must_not_pass":
        failing = [each for each in states if each[1].word != "unregistered"]
        return Outcome(not failing, reason=_reason(assertion, failing))
    failing = [each for each in states if each[1].word == "unregistered"]
    level, words = _CUTS.get(policy.mode, (0, ""))
    cut = level if any(judge_canary(policy, flow) != "out" for flow, _ in failing) else 0
    return Outcome(not failing, cut, _reason(assertion, failing) + (f", and {words}" if cut else ""))


def _reason(assertion: Assertion, failing: Sequence[tuple[Flow, FlowState]]) -> str:
    if not failing:
        return ""
    flow, state = failing[0]
    service = next(each for each in assertion.services if each.matches(flow.protocol, flow.destination_port))
    return f"{service}: {state.reason}"


def would_break_in_slices(
    assertions: Sequence[Assertion], before: World, after: World
) -> Slices[tuple[Broken, ...]]:
    """Those that hold before and not after, and those of which a flow that must pass would be cut, or more so."""
    found: list[Broken] = []
    for each in assertions:
        is_, was = judge(each, after.policy, after.state_of), judge(each, before.policy, before.state_of)
        if (was.holds and not is_.holds) or is_.cut > was.cut:
            found.append(Broken(each, is_.reason))
        yield
    return tuple(found)


def scope_warnings(assertions: Sequence[Assertion], scope: tuple[Service, ...]) -> tuple[str, ...]:
    """A sentence on each that names a service out of scope, with its file and line."""
    said = []
    for each in assertions:
        pairs = zip(each.flows, each.services, strict=True)
        out = ", ".join(str(service) for flow, service in pairs if not in_scope(scope, flow))
        what = f"{each.place}: {each.kind} {each.name}: {out} is not in policy.scope and passes in every mode"
        if out and each.kind == "must_pass":
            said.append(f"{what}, registered or not")
        elif out:
            said.append(f"{what}, so the assertion fails")
    return tuple(said)


def route_warnings(
    assertions: Sequence[Assertion], sides: Sides, route: Callable[[bytes], str | None]
) -> tuple[str, ...]:
    """A sentence on each whose packets the rules would not judge, by the routes of this host. `route`: which
    interface leads to an address; None: not known."""
    said = []
    for each in assertions if sides.inside or sides.outside else ():
        source, destination = route(each.source), route(each.destination)
        if source is not None and destination is not None and not crosses(sides, source, destination):
            way = f"by the routes of this host its packets go between {source} and {destination}"
            why = "which are not inside and outside (policy.interfaces): the rules judge none of them"
            said.append(f"{each.place}: {each.kind} {each.name}: {way}, {why}")
    return tuple(said)


def in_force(assertions: Sequence[Assertion], now: float) -> tuple[Assertion, ...]:
    """Those whose end has not come, the first of each name."""
    named: dict[str, Assertion] = {}
    for each in assertions:
        if now < each.until_s:
            named.setdefault(each.name, each)
    return tuple(named.values())
