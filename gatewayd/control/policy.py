"""The policy: the one of the moment, the one that is in force, and what brought it there."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

from gatewayd.compile.ruleset import policy_of, schedule_of
from gatewayd.log import get_logger
from gatewayd.model.flow import Mode
from gatewayd.model.moment import earliest_of, format_time
from gatewayd.model.policy import Policy, Stage
from gatewayd.reconcile import Reconciler
from gatewayd.registry.freshness import mode_by_freshness
from gatewayd.registry.state import RegistryState
from gatewayd.settings import PolicySettings, Settings
from gatewayd.trial.stages import Decided, decide
from gatewayd.trial.state import TrialState

log = get_logger(__name__)

START, SCHEDULE, STALENESS = "start", "schedule", "staleness"
"""What may bring a policy into force, beside a reload, which names who asked for it."""


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """`since_s`: when the kernel had its rules, by the likely clock. `by`: START, SCHEDULE (`enforce_from` and
    `enforce_until`), STALENESS of sources, or who asked for the reload."""

    policy: Policy
    drain_s: float
    since_s: float
    by: str


class HasState(Protocol):
    """What operators and the trip say of the stage, as it is now."""

    @property
    def state(self) -> TrialState: ...


@dataclass(frozen=True, slots=True)
class _Unarmed:
    state: TrialState


UNARMED: Final = _Unarmed(TrialState())
"""The file alone counts."""


class PolicyKeeper:
    """Derives the policy from the settings, has the reconciler put it into force, and says so when it is."""

    def __init__(
        self, settings: Settings, reconciler: Reconciler, registry: RegistryState, arming: HasState = UNARMED
    ) -> None:
        self.in_force: PolicyInForce | None = None
        self._arming = arming
        self._settings = settings
        self._reconciler = reconciler
        self._registry = registry
        self._wanted: Policy | None = None
        self._reason = START
        """What changes the policy next, if a change follows from it."""
        self._by = START
        """What the wanted policy came from."""
        self._drain_by = START
        self._found = ""
        """What the kernel was found with."""
        self._derived: tuple[Stage, Policy] | None = None
        """The policy at the stage that was asked for last: it is asked for at each look at the time."""
        self._disarmed: Policy | None = None
        """Observe, put into force before the allowlist was complete."""

    def use(self, settings: Settings, by: str) -> None:
        """New settings, of a reload that `by` asked for."""
        if settings.policy.drain_s != self._settings.policy.drain_s:
            self._drain_by = by
        self._settings, self._derived = settings, None
        self._reason = by

    def policy(self, now: float) -> Policy:
        """The policy of the moment: observe before `enforce_from`, from `enforce_until` on, and where stale sources
        shall mean that.

        `now` may be a Moment: nothing is armed, nor a source stale, before that has certainly come. What is armed
        stays so while it may have begun, and until its end may have come (`compile.ruleset.effective_mode`).
        """
        stage = self.decide(now).stage
        if self._derived is None or self._derived[0] != stage:
            self._derived = stage, policy_of(self._settings, stage)
        return self._derived[1]

    def decide(self, now: float) -> Decided:
        """The stage of the moment, and what decides on it (`trial.stages`)."""
        settings = self._settings
        fresh = self._registry.freshness(earliest_of(now))
        known = {name: each for name, each in fresh.items() if each.since_s > -inf}
        is_armed = self._reconciler.mode_in_force != "observe"
        return decide(
            settings.policy.stage,
            self._arming.state,
            is_in_schedule=schedule_of(settings.policy, now, is_armed=is_armed) == "in force",
            is_stale=mode_by_freshness("reject", known, settings.registry.on_stale) == "observe",
        )

    def note_word(self, by: str) -> None:
        """What changes the stage next: who, or `trip`."""
        self._reason = by

    def want(self, now: float, *, is_loaded: bool, is_complete: bool) -> None:
        """What the settings say, once the allowlist is complete; observe needs no allowlist to be safe."""
        policy = self.policy(now)
        self._found = self._found or self._describe_found()
        if is_loaded and (is_complete or policy.mode == "observe"):
            self._note_cause(policy, now)
            self._reconciler.want_policy(policy)
        elif policy.mode == "observe" != self._reconciler.mode_in_force:
            self._note_cause(policy, now)
            self._disarmed = policy
            self._reconciler.disarm(policy)

    def note(self, likely_s: float) -> None:
        """Say what is in force, if it is another policy than before."""
        policy, drain_s, before = self._in_kernel(), self._settings.policy.drain_s, self.in_force
        if policy is None or (before is not None and (before.policy, before.drain_s) == (policy, drain_s)):
            return
        by = self._by if before is None or before.policy != policy else self._drain_by
        self.in_force = PolicyInForce(policy, drain_s, likely_s, by)
        log.info(
            "policy.in_force",
            mode=policy.mode,
            policy=describe_policy(policy, drain_s),
            was=self._found if before is None else describe_policy(before.policy, before.drain_s),
            by=by,
        )

    def is_in_force(self, now: float) -> bool:
        """The kernel has the policy of the moment."""
        return self._in_kernel() == self.policy(now)

    def _describe_found(self) -> str:
        has_rules = self._reconciler.epoch > 0
        return (
            f"{self._reconciler.mode_in_force}, found in the kernel"
            if has_rules
            else "no rules of ours in the kernel"
        )

    def _in_kernel(self) -> Policy | None:
        policy = self._reconciler.policy_in_force
        is_disarmed = policy is None and self._reconciler.mode_in_force == "observe"
        return self._disarmed if is_disarmed else policy

    def next_change(self, now: float) -> float | None:
        """When `enforce_from` or `enforce_until` comes next, after `now`."""
        policy = self._settings.policy
        times = (policy.enforce_from, policy.enforce_until)
        return min((each for each in times if each is not None and each > now), default=None)

    def _note_cause(self, policy: Policy, now: float) -> None:
        if policy != self._wanted:
            is_stale = self._wanted is not None and self.decide(now).cause == "staleness"
            was_stale = self._by == STALENESS and self._reason == SCHEDULE
            self._by = STALENESS if is_stale or was_stale else self._reason
            self._wanted = policy
        # From here on only the clock and the sources change it.
        self._reason = SCHEDULE


def describe_policy(policy: Policy, drain_s: float) -> str:
    """For the log and the status."""
    parts: list[str] = [policy.mode]
    if policy.mode == "limit":
        parts.append(f"{policy.limit_bytes_s} bytes/s")
    if policy.mode != "observe":
        parts.append(f"canary {policy.canary_percent}%")
    parts.append(f"scope {' '.join(map(str, policy.scope))}")
    parts.append(f"inside {' '.join(policy.inside) or 'any'}")
    parts.append(f"outside {' '.join(policy.outside) or 'any'}")
    return ", ".join([*parts, f"drain {drain_s:g} s"])


TREATMENTS: Final[dict[Mode, tuple[str, str]]] = {
    "observe": ("pass, and are counted", "passed"),
    "mark": ("pass, marked for boxes downstream", "passed, marked"),
    "limit": ("are dropped above the limit", "were dropped above the limit"),
    "reject": ("are refused", "were refused"),
}
"""Of unregistered flows in scope, now and before."""


def describe_change(found: Mode | None, policy: Policy) -> str:
    """Which traffic meets another treatment than by the rules of mode `found` (None: there are none)."""
    mode, before = policy.mode, ""
    change = mode if found is None else f"{found} stays" if found == mode else f"{found} → {mode}"
    if found not in (None, mode):
        before = f"; with {found} they {TREATMENTS[found][1]}"
    rate = f" ({policy.limit_bytes_s} bytes/s)" if mode == "limit" else ""
    share = "all clients" if policy.canary_percent == 100 else f"{policy.canary_percent}% of the client addresses"
    whose = "" if mode == "observe" else f" of {share}"
    sides = f" between {' '.join(policy.inside) or 'any'} and {' '.join(policy.outside) or 'any'}"
    scope = f"in scope ({' '.join(map(str, policy.scope))}){sides if policy.inside or policy.outside else ''}"
    return (
        f"{change}{rate}: unregistered flows{whose} {scope} {TREATMENTS[mode][0]}{before}. Registered flows pass."
    )


def describe_schedule(policy: PolicySettings, now: float) -> str:
    """When the mode of the file begins and ends, for `plan`; "" where nothing is scheduled."""
    where, ends = schedule_of(policy, now), format_time(policy.enforce_until)
    if where == "over":
        return f" {policy.mode} has ended at {ends} (enforce_until)."
    begins = f" From {format_time(policy.enforce_from)} on: {policy.mode}." if where == "not begun" else ""
    return f"{begins} Until {ends}; then observe." if ends is not None and policy.mode != "observe" else begins
