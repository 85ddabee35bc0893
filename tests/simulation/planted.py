"""Faults put into the program on purpose, one at a time: a search that does not find these finds nothing.

Each is one that a change of this program could bring. `Planted.plant` is a context in which the program has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest.mock import patch

from gatewayd.compile import ruleset
from gatewayd.compile.desired import DesiredSets
from gatewayd.compile.ruleset import compile_ruleset
from gatewayd.control import trial_store
from gatewayd.control.assertion_gate import AssertionGate
from gatewayd.control.trusted_time import Judgement
from gatewayd.errors import KernelError
from gatewayd.model.mask import Mask
from gatewayd.model.policy import Policy, Stage
from gatewayd.model.registration import Changes, Slices
from gatewayd.model.transaction import Ruleset, Transaction
from gatewayd.reconcile import steps
from gatewayd.reconcile.findings import Findings
from gatewayd.reconcile.set_state import MaskState, choose_hooks
from gatewayd.reconcile.tracker import SetTracker
from gatewayd.reconcile.writer import Writer
from gatewayd.registry.state import RegistryState
from gatewayd.sources.update import SourceUpdate
from gatewayd.trial.state import Instant, TrialState, restore


def _patched(target: Any, name: str, new: Any) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: patch.object(target, name, new)


# -- the order of steps ------------------------------------------------------------------------------------------


def _hooks_of_wanted(self: SetTracker) -> dict[Mask, str]:
    chosen = choose_hooks(self.masks, self.rules.hooks)
    return {mask: name for mask, name in chosen.items() if mask in self.desired and self.desired.keys(mask)}


def _is_there(self: MaskState) -> bool:
    return self.successor is not None and self.successor.exists


_add, _remove = steps._add, steps._remove


def _remove_or_add(tracker: SetTracker) -> steps.Step | None:
    return _remove(tracker) or _add(tracker)


_wanted_ruleset = steps.wanted_ruleset


def _same_epoch(tracker: SetTracker, policy: Policy, table: str) -> Ruleset:
    tag = tracker.rules.last_tag
    if tag is None:
        return _wanted_ruleset(tracker, policy, table)
    return compile_ruleset(table, policy, tracker.hooks(), tag.epoch)


# -- what is believed ---------------------------------------------------------------------------------------------


_commit = Writer.commit


async def _believe_what_was_sent(self: Writer, transaction: Transaction) -> None:
    try:
        await _commit(self, transaction)
    except KernelError:
        return


def _unwant_for_all(self: DesiredSets, mask: Mask, key: bytes) -> bool:
    desired = self._sets[mask]
    desired.shared.pop(key, None)
    desired.keys.discard(key)
    return True


# -- operators ---------------------------------------------------------------------------------------------


def _begin_timer_anew(state: TrialState, file: Any, now: Instant, found: Any = None) -> TrialState:
    trial = state.trial
    if trial is None:
        return restore(state, file, now, found)
    length_s = trial.deadline_elapsed_s - trial.timer_elapsed_s
    return replace(state, trial=replace(trial, deadline_elapsed_s=now.elapsed_s + length_s, is_applied=True))


def _by_host(self: Judgement) -> float:
    return self.wall_s


_policy_digest = ruleset.policy_digest


@contextmanager
def _digest_without_canary() -> Iterator[None]:
    def digest(policy: Policy) -> str:
        return _policy_digest(replace(policy, canary_percent=100))

    with patch.object(steps, "_policy_digest", digest), patch.object(ruleset, "policy_digest", digest):
        yield


_apply = RegistryState.apply


def _without_withdrawals(self: RegistryState, update: SourceUpdate, now: float) -> Slices[Changes | None]:
    if update.changes is not None:
        update = replace(update, changes=Changes(update.changes.upserts, ()))
    return _apply(self, update, now)


async def _check_nothing(self: AssertionGate, stage: Stage, by: str, is_forced: bool) -> None:
    pass


def _forget_trip(state: TrialState, file: Any, now: Instant, found: Any = None) -> TrialState:
    return replace(restore(state, file, now, found), trip=None)


@dataclass(frozen=True, slots=True)
class Planted:
    """`within`: runs in which it has to be found."""

    name: str
    plant: Callable[[], AbstractContextManager[Any]]
    within: int


PLANTED: Final = (
    Planted(
        "rules leave a set before those that take over have its elements",
        _patched(SetTracker, "hooks", _hooks_of_wanted),
        500,
    ),
    Planted(
        "rules go over to a larger set before it is filled",
        _patched(MaskState, "successor_is_whole", property(_is_there)),
        500,
    ),
    Planted(
        "elements are removed before those that take over are added", _patched(steps, "_add", _remove_or_add), 500
    ),
    Planted(
        "a start takes its last good for all that may be in the kernel",
        _patched(Findings, "retain", lambda _: None),
        1500,
    ),
    Planted("a change of the policy keeps the epoch", _patched(steps, "wanted_ruleset", _same_epoch), 500),
    Planted(
        "what was sent is taken for done, whatever came of it",
        _patched(Writer, "commit", _believe_what_was_sent),
        1000,
    ),
    Planted(
        "an element that two want goes with the first of them",
        _patched(DesiredSets, "unwant", _unwant_for_all),
        500,
    ),
    Planted("windows go by the host's clock, set or not", _patched(Judgement, "moment", _by_host), 1000),
    Planted("another canary is taken for the same policy", _digest_without_canary, 500),
    Planted("a delta withdraws nothing", _patched(RegistryState, "apply", _without_withdrawals), 500),
    Planted("a mode is armed against an assertion", _patched(AssertionGate, "check_stage", _check_nothing), 1500),
    Planted("a start knows of no trip", _patched(trial_store, "restore", _forget_trip), 1500),
    Planted(
        "the timer of a trial begins again at a start", _patched(trial_store, "restore", _begin_timer_anew), 1000
    ),
)
