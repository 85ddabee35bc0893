"""What a registry and a policy would make of the flows that are alive: counted, each by the rule itself. Pure."""

from __future__ import annotations

from gatewayd.allowlist.match import Facing, in_scope, matching_registrations
from gatewayd.api.explanation import effect_of
from gatewayd.api.plan import FlowCounts
from gatewayd.compile.effects import judge_canary
from gatewayd.model.flow import Flow, reverse_flow
from gatewayd.model.policy import Policy

_FIELDS = {"reject": "refused", "limit": "limited", "mark": "marked", "observe": "passed", "pass": "passed"}


class FlowSum:
    """Takes live flows one by one. `world`: what would be registered; `now` may be a Moment."""

    def __init__(self, world: Facing, policy: Policy, now: float) -> None:
        self._world = world
        self._policy = policy
        self._now = now
        self._counts = dict.fromkeys(FlowCounts.__struct_fields__[:-1], 0)

    @property
    def looked_at(self) -> int:
        return self._counts["looked_at"]

    def count(self, flow: Flow, *, was: str) -> None:
        """`was`: `registered` or `judged`, as its mark says; `""`: the policy had not looked at it."""
        counts, policy = self._counts, self._policy
        counts["looked_at"] += 1
        if matching_registrations(self._world, flow, self._now):
            counts["registered"] += 1
            counts["gains"] += was == "judged"
            return
        if not in_scope(policy.scope, flow) and not in_scope(policy.scope, reverse_flow(flow)):
            counts["leaves"] += bool(was)
            return
        counts["loses"] += was == "registered"
        counts["enters"] += not was
        counts[_FIELDS[effect_of("unregistered", policy.mode, judge_canary(policy, flow))]] += 1

    def result(self, *, is_complete: bool) -> FlowCounts:
        return FlowCounts(**self._counts, is_complete=is_complete)
