"""The next safe step from what is to what is desired. Pure: called again after every step, so that whatever came
in between (a late admission, a failure, a new registration) is looked at first.

The order is make before break, and at no point does a registered address lose its place:

    table → late admissions → new sets → (more hooks, policy unchanged) → elements → rules → removals → old sets

Sets for the log alone (compile.near) have their look-ups with the rules that come after all elements.

While anything is missing, rules look into more sets and never into fewer (set_state), and nothing is removed.
Each step is bounded in bytes. A policy reaches the kernel only after every element is there, so that a load of
many transactions is never visible as a partial allowlist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from math import ceil

from gatewayd.compile.ruleset import compile_ruleset, parse_tag, policy_digest
from gatewayd.model.mask import Mask
from gatewayd.model.policy import Policy
from gatewayd.model.transaction import (
    AddElements,
    CreateSet,
    CreateTable,
    DeleteSet,
    Operation,
    RefreshElements,
    RemoveElements,
    Ruleset,
    Transaction,
)
from gatewayd.reconcile.set_state import SetState
from gatewayd.reconcile.tracker import SetTracker


@dataclass(slots=True)
class Forecast:
    """`added`, `removed`: elements by set. `ruleset`: the new text, None if the rules stay.

    `unprogrammed`: ids of the registrations past a bound, with the reason; `in_former_form`: of them, those of
    whose addresses something is in the kernel, which stays.
    """

    creates_table: bool = False
    created_sets: list[str] = field(default_factory=list)
    deleted_sets: list[str] = field(default_factory=list)
    added: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    ruleset: str | None = None
    transactions: int = 0
    unprogrammed: dict[str, str] = field(default_factory=dict)
    in_former_form: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return self.transactions == 0


def forecast(tracker: SetTracker, policy: Policy, table: str) -> Forecast:
    """Uses the tracker up: it says afterwards that all is done."""
    desired = tracker.desired
    result = Forecast(unprogrammed=desired.unprogrammed(), in_former_form=desired.in_former_form())
    while (step := next_step(tracker, policy, table)) is not None:
        result.transactions += 1
        if isinstance(step, PutRules):
            result.ruleset = step.ruleset.text
        else:
            for operation in step.transaction.operations:
                match operation:
                    case CreateTable():
                        result.creates_table = True
                    case CreateSet(name, _, _, _):
                        result.created_sets.append(name)
                    case DeleteSet(name):
                        result.deleted_sets.append(name)
                    case AddElements(name, keys) | RefreshElements(name, keys):
                        result.added[name] = result.added.get(name, 0) + len(keys)
                    case _:
                        name = operation.set_name
                        result.removed[name] = result.removed.get(name, 0) + len(operation.keys)
        acknowledge(tracker, step)
    return result


MAX_BYTES = 256 * 1024
"""Of element payload in one transaction: it fits the send buffer that an unprivileged namespace is allowed, and
commits in about 10 ms, the longest a late admission waits for bulk work."""
MAX_SETS = 128
"""Sets made or removed in one transaction."""
LATE_ADMISSION = "late admission"
"""The cause of a transaction that goes ahead of bulk work."""
_ELEMENT_OVERHEAD = 12
_BOUND_PASSES = 3
"""Over the keys of a set of bindings in one message or another, at most: see kernel/tables_codec.py."""
PIECE = 512
"""Elements of bindings asserted in one transaction: under a millisecond."""
ROUNDS = 3
"""Of assertions within the element timeout."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Elements and sets, by netlink."""

    transaction: Transaction


@dataclass(frozen=True, slots=True)
class PutRules:
    """The rules, as text."""

    ruleset: Ruleset


Step = Commit | PutRules


def max_keys(key_length: int) -> int:
    """How many keys of this length one transaction carries."""
    return MAX_BYTES // (key_length + _ELEMENT_OVERHEAD)


def _stride(mask: Mask) -> int:
    """Bytes of one element in a transaction."""
    return (mask.key_length + _ELEMENT_OVERHEAD) * (_BOUND_PASSES if mask.is_bound else 1)


def _put(state: SetState, keys: list[bytes]) -> AddElements | RefreshElements:
    """Elements of bindings with their whole time before them, also those that were there unknown to us."""
    return RefreshElements(state.name, keys) if state.mask.is_bound else AddElements(state.name, keys)


def wanted_ruleset(tracker: SetTracker, policy: Policy, table: str) -> Ruleset:
    """The ruleset for the policy and the sets that are fit to be looked into.

    The epoch is that of the latest rules known; the next one if their policy is another.
    """
    layout, tag = policy.mark_layout, tracker.rules.last_tag
    if tag is None or not 1 <= tag.epoch <= layout.last_epoch:
        epoch = 1
    elif tag.policy == _policy_digest(policy):
        epoch = tag.epoch
    else:
        epoch = layout.next_epoch(tag.epoch)
    return _compile(table, policy, tuple(tracker.hooks().items()), epoch)


@lru_cache(maxsize=4)
def _compile(table: str, policy: Policy, hooks: tuple[tuple[Mask, str], ...], epoch: int) -> Ruleset:
    """The text for 200 masks takes 1.4 ms, and is the same from step to step."""
    return compile_ruleset(table, policy, dict(hooks), epoch)


@lru_cache(maxsize=4)
def _policy_digest(policy: Policy) -> str:
    return policy_digest(policy)


def is_urgent(step: Step) -> bool:
    return isinstance(step, Commit) and step.transaction.cause == LATE_ADMISSION


def next_step(tracker: SetTracker, policy: Policy | None, table: str, *, urgent_last: bool = False) -> Step | None:
    """The step to take now; None when the kernel is as desired. Without a policy, rules are left alone.

    `urgent_last`: late admissions come after all else this time; however many there are, the rest gets on.
    """
    if urgent_last:
        return _next_step(tracker, policy, table, urgent_first=False) or _urgent(tracker)
    return _next_step(tracker, policy, table, urgent_first=True)


def _next_step(tracker: SetTracker, policy: Policy | None, table: str, *, urgent_first: bool) -> Step | None:
    if not tracker.table_present:
        return Commit(Transaction((CreateTable(),), "create table"))
    tracker.grow_where_full()
    step = (_urgent(tracker) if urgent_first else None) or _create_sets(tracker)
    if step is not None:
        return step
    complete = tracker.is_complete()
    ruleset = None if policy is None else wanted_ruleset(tracker, policy, table)
    stale = ruleset is not None and ruleset.text != tracker.rules.text
    if ruleset is not None and stale and _same_policy(tracker, ruleset) and _has_more_hooks(tracker):
        return PutRules(ruleset)
    step = _add(tracker)
    if step is not None or not complete:
        return step
    if ruleset is not None and stale:
        return PutRules(ruleset)
    if tracker.rules.text is None:
        # What rules may look into that are not our own stays until ours are in force.
        return None
    step = _remove(tracker)
    if step is not None:
        return step
    if tracker.retiring and tracker.retire_unused():
        return _next_step(tracker, policy, table, urgent_first=urgent_first)
    return _delete_sets(tracker)


def acknowledge(tracker: SetTracker, step: Step) -> None:
    """The kernel has done the step."""
    if isinstance(step, PutRules):
        ruleset = step.ruleset
        tracker.hooked(ruleset.set_names, ruleset.text, parse_tag(ruleset.tag))
        return
    states = {state.name: state for state in tracker.set_states()}
    for operation in step.transaction.operations:
        match operation:
            case CreateTable():
                tracker.created_table()
            case CreateSet(name, _, capacity, _):
                tracker.created(states.get(name), name, capacity)
            case DeleteSet(name):
                tracker.retired.discard(name)
            case AddElements(name, keys) | RefreshElements(name, keys):
                if name in states:
                    tracker.added(states[name], keys)
            case _:
                if operation.set_name in states:
                    tracker.removed(states[operation.set_name], operation.keys)


def _same_policy(tracker: SetTracker, ruleset: Ruleset) -> bool:
    """Whether rules of this policy, known to be ours, are in force."""
    rules = tracker.rules
    return rules.text is not None and rules.tag is not None and rules.tag.policy == ruleset.policy


def _has_more_hooks(tracker: SetTracker) -> bool:
    """Whether the rules are to look into other sets that make a flow registered."""
    wanted, in_force = tracker.hooks(), tracker.rules.hooks
    return any(not mask.is_near and in_force.get(mask) != name for mask, name in wanted.items())


def _urgent(tracker: SetTracker) -> Step | None:
    """Late admissions into sets that exist and have room, as many as one transaction takes."""
    by_set: dict[str, tuple[SetState, list[bytes]]] = {}
    budget = MAX_BYTES
    for mask, key in list(tracker.urgent):
        state = tracker.masks.get(mask)
        if state is None or key not in tracker.desired.keys(mask):
            del tracker.urgent[(mask, key)]
            continue
        current, stride = state.current, _stride(mask)
        _, chosen = by_set.get(current.name, (current, []))
        # An element that is there takes no room, and if it is not there its place is free.
        more = 1 + sum(each in current.missing for each in chosen)
        room = key not in current.missing or current.has_room(len(tracker.desired.keys(mask)), more) >= more
        if not current.exists or (stride > budget and by_set) or not room:
            continue
        chosen.append(key)
        by_set[current.name] = (current, chosen)
        budget -= stride
    operations = tuple(_put(state, keys) for state, keys in by_set.values())
    return Commit(Transaction(operations, LATE_ADMISSION)) if operations else None


def _create_sets(tracker: SetTracker) -> Step | None:
    absent = islice((state for state in tracker.set_states() if not state.exists), MAX_SETS)
    operations = tuple(
        CreateSet(state.name, state.mask, state.capacity, tracker.timeout_s(state.mask)) for state in absent
    )
    return Commit(Transaction(operations, "create sets")) if operations else None


def _add(tracker: SetTracker) -> Step | None:
    """As many missing elements as one transaction takes, one at least, from as many sets as need some."""
    operations: list[Operation] = []
    budget = MAX_BYTES
    for state in tracker.set_states():
        if not state.missing:
            continue
        stride = _stride(state.mask)
        room = state.has_room(len(tracker.desired.keys(state.mask)), len(state.missing))
        keys = list(islice(state.missing, min(room, budget // stride or not operations)))
        if keys:
            operations.append(_put(state, keys))
            budget -= len(keys) * stride
        if budget < 64 or len(operations) >= MAX_SETS:
            break
    return Commit(Transaction(tuple(operations), "add elements")) if operations else None


def _remove(tracker: SetTracker) -> Step | None:
    operations: list[Operation] = []
    budget = MAX_BYTES
    for state in tracker.set_states():
        if not state.surplus:
            continue
        stride = _stride(state.mask)
        left = tracker.left(state.mask)
        keys = list(islice((key for key in state.surplus if key not in left), budget // stride or not operations))
        if keys:
            operations.append(RemoveElements(state.name, keys))
            budget -= len(keys) * stride
        if budget < 64 or len(operations) >= MAX_SETS:
            break
    return Commit(Transaction(tuple(operations), "remove elements")) if operations else None


def _delete_sets(tracker: SetTracker) -> Step | None:
    names = sorted(tracker.retired.difference(tracker.rules.hooks.values()))[:MAX_SETS]
    operations = tuple(DeleteSet(name) for name in names)
    return Commit(Transaction(operations, "delete sets")) if operations else None


class ElementTimeout:
    """When the elements of bindings are asserted again.

    They go by themselves `element_timeout_s` after the daemon has died. While it lives, a round goes through all of
    them in a third of that time, a piece at a time and not quite evenly, so that an element is never older than two
    thirds. The first round is at once: the age of the elements that a restart found is not known.

    `spread`: a number from 0 to 1 each time it is called, for pauses that do not fall together.
    """

    def __init__(self, tracker: SetTracker, *, spread: Callable[[], float]) -> None:
        self._tracker = tracker
        self._spread = spread
        self._round: Iterator[tuple[SetState, list[bytes]]] | None = None
        self._begun_at = self._due_at = 0.0
        self._pause_s = 0.0
        self.is_first = True
        self.refreshed = 0

    def start_over(self) -> None:
        """Nothing is known of what is in the kernel: a round at once, as soon as it is known again."""
        self._round, self.is_first, self._due_at = None, True, 0.0

    def next_piece(self, now: float) -> Commit | None:
        """Elements to assert now; None if nothing is due yet, or nothing is there."""
        period_s = self._tracker.element_timeout_s / ROUNDS
        while now >= self._due_at:
            if self._round is None:
                self._begin(now, period_s)
            assert self._round is not None
            state, piece = next(self._round, (None, []))
            if state is None:
                self._round, self.is_first = None, False
                self._due_at = max(now, self._begun_at + period_s * (1 - self._spread() / 4))
                return None
            if not any(state is known for known in self._tracker.set_states()):
                self.start_over()  # all was read again meanwhile
                continue
            wanted = self._tracker.desired.keys(state.mask)
            keys = [key for key in piece if key in wanted and key not in state.missing]
            if keys:
                # More pieces than were counted, or a halt of ours: at its end a round waits no more.
                end = 0.0 if self.is_first else self._begun_at + period_s
                self._due_at = min(end, now + self._pause_s * (0.5 + self._spread()))
                self.refreshed += len(keys)
                return Commit(Transaction((RefreshElements(state.name, keys),), "refresh bindings"))
        return None

    def _begin(self, now: float, period_s: float) -> None:
        bound = [state for state in self._tracker.set_states() if state.mask.is_bound and state.exists]
        pieces = sum(ceil(len(self._tracker.desired.keys(state.mask)) / PIECE) for state in bound)
        self._begun_at = now
        self._pause_s = period_s / (2 * max(pieces, 1))
        self._round = self._tracker.known_in_slices(lambda _: PIECE, bound)
