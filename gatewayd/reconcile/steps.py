"""The next safe step from what is to what is desired. Pure: called again after every step, so that whatever came
in between (a late admission, a failure, a new registration) is looked at first.

The order is make before break, and at no point does a registered address lose its place:

    table → late admissions → new sets → (more hooks, policy unchanged) → elements → rules → removals → old sets

While anything is missing, rules look into more sets and never into fewer (hooks.py), and nothing is removed.
Each step is bounded in bytes. A policy reaches the kernel only after every element is there, so that a load of
many transactions is never visible as a partial allowlist.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

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
from gatewayd.reconcile.picture import Picture
from gatewayd.reconcile.set_state import SetState


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


def forecast(picture: Picture, policy: Policy, table: str) -> Forecast:
    """Uses the picture up: it says afterwards that all is done."""
    desired = picture.desired
    result = Forecast(unprogrammed=desired.unprogrammed(), in_former_form=desired.in_former_form())
    while (step := next_step(picture, policy, table)) is not None:
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
                    case AddElements(name, keys):
                        result.added[name] = result.added.get(name, 0) + len(keys)
                    case RemoveElements(name, keys):
                        result.removed[name] = result.removed.get(name, 0) + len(keys)
        acknowledge(picture, step)
    return result


MOST_BYTES = 256 * 1024
"""Of element payload in one transaction: it fits the send buffer that an unprivileged namespace is allowed, and
commits in about 10 ms, the longest a late admission waits for bulk work."""
MOST_SETS = 128
"""Sets made or removed in one transaction."""
LATE_ADMISSION = "late admission"
"""The cause of a transaction that goes ahead of bulk work."""
_ELEMENT_OVERHEAD = 12
_BOUND_PASSES = 3
"""Over the keys of a set of bindings in one message or another, at most: see kernel/tables_codec.py."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Elements and sets, by netlink."""

    transaction: Transaction


@dataclass(frozen=True, slots=True)
class PutRules:
    """The rules, as text."""

    ruleset: Ruleset


Step = Commit | PutRules


def most_keys(key_length: int) -> int:
    """How many keys of this length one transaction carries."""
    return MOST_BYTES // (key_length + _ELEMENT_OVERHEAD)


def _stride(mask: Mask) -> int:
    """Bytes of one element in a transaction."""
    return (mask.key_length + _ELEMENT_OVERHEAD) * (_BOUND_PASSES if mask.is_bound else 1)


def _put(state: SetState, keys: list[bytes]) -> AddElements | RefreshElements:
    """Elements of bindings with their whole time before them, also those that were there unknown to us."""
    return RefreshElements(state.name, keys) if state.mask.is_bound else AddElements(state.name, keys)


def wanted_ruleset(picture: Picture, policy: Policy, table: str) -> Ruleset:
    """The ruleset for the policy and the sets that are fit to be looked into.

    The epoch is that of the latest rules known; the next one if their policy is another.
    """
    layout, tag = policy.mark_layout, picture.last_tag
    if tag is None or not 1 <= tag.epoch <= layout.last_epoch:
        epoch = 1
    elif tag.policy == _policy_digest(policy):
        epoch = tag.epoch
    else:
        epoch = layout.next_epoch(tag.epoch)
    return _compile(table, policy, tuple(picture.hooks().items()), epoch)


@lru_cache(maxsize=4)
def _compile(table: str, policy: Policy, hooks: tuple[tuple[Mask, str], ...], epoch: int) -> Ruleset:
    """The text for 200 masks takes 1.4 ms, and is the same from step to step."""
    return compile_ruleset(table, policy, dict(hooks), epoch)


@lru_cache(maxsize=4)
def _policy_digest(policy: Policy) -> str:
    return policy_digest(policy)


def is_urgent(step: Step) -> bool:
    return isinstance(step, Commit) and step.transaction.cause == LATE_ADMISSION


def next_step(picture: Picture, policy: Policy | None, table: str, *, urgent_last: bool = False) -> Step | None:
    """The step to take now; None when the kernel is as desired. Without a policy, rules are left alone.

    `urgent_last`: late admissions come after all else this time; however many there are, the rest gets on.
    """
    if urgent_last:
        return _next_step(picture, policy, table, urgent_first=False) or _urgent(picture)
    return _next_step(picture, policy, table, urgent_first=True)


def _next_step(picture: Picture, policy: Policy | None, table: str, *, urgent_first: bool) -> Step | None:
    if not picture.table_present:
        return Commit(Transaction((CreateTable(),), "create table"))
    picture.grow_where_full()
    step = (_urgent(picture) if urgent_first else None) or _create_sets(picture)
    if step is not None:
        return step
    complete = picture.is_complete()
    ruleset = None if policy is None else wanted_ruleset(picture, policy, table)
    stale = ruleset is not None and ruleset.text != picture.rules
    if ruleset is not None and stale and _same_policy(picture, ruleset):
        return PutRules(ruleset)
    step = _add(picture)
    if step is not None or not complete:
        return step
    if ruleset is not None and stale:
        return PutRules(ruleset)
    if picture.rules is None:
        # What rules may look into that are not our own stays until ours are in force.
        return None
    step = _remove(picture)
    if step is not None:
        return step
    if picture.retiring and picture.retire_unused():
        return _next_step(picture, policy, table, urgent_first=urgent_first)
    return _delete_sets(picture)


def acknowledge(picture: Picture, step: Step) -> None:
    """The kernel has done the step."""
    if isinstance(step, PutRules):
        ruleset = step.ruleset
        picture.hooked(ruleset.set_names, ruleset.text, parse_tag(ruleset.tag))
        return
    states = {state.name: state for state in picture.set_states()}
    for operation in step.transaction.operations:
        match operation:
            case CreateTable():
                picture.table_present = True
            case CreateSet(name, _, capacity, _):
                state = states.get(name)
                if state is None:
                    picture.retired.add(name)
                else:
                    state.exists = True
                    state.capacity = capacity
            case DeleteSet(name):
                picture.retired.discard(name)
            case AddElements(name, keys) | RefreshElements(name, keys):
                if name in states:
                    picture.added(states[name], keys)
            case _:
                if operation.set_name in states:
                    picture.removed(states[operation.set_name], operation.keys)


def _same_policy(picture: Picture, ruleset: Ruleset) -> bool:
    """Whether rules of this policy, known to be ours, are in force."""
    return picture.rules is not None and picture.tag is not None and picture.tag.policy == ruleset.policy


def _urgent(picture: Picture) -> Step | None:
    """Late admissions into sets that exist and have room, as many as one transaction takes."""
    by_set: dict[str, tuple[SetState, list[bytes]]] = {}
    budget = MOST_BYTES
    for mask, key in list(picture.urgent):
        state = picture.masks.get(mask)
        if state is None or key not in picture.desired.keys(mask):
            del picture.urgent[(mask, key)]
            continue
        current, stride = state.current, _stride(mask)
        _, chosen = by_set.get(current.name, (current, []))
        # An element that is there takes no room, and if it is not there its place is free.
        more = 1 + sum(each in current.missing for each in chosen)
        room = key not in current.missing or current.has_room(len(picture.desired.keys(mask)), more) >= more
        if not current.exists or (stride > budget and by_set) or not room:
            continue
        chosen.append(key)
        by_set[current.name] = (current, chosen)
        budget -= stride
    operations = tuple(_put(state, keys) for state, keys in by_set.values())
    return Commit(Transaction(operations, LATE_ADMISSION)) if operations else None


def _create_sets(picture: Picture) -> Step | None:
    absent = islice((state for state in picture.set_states() if not state.exists), MOST_SETS)
    operations = tuple(
        CreateSet(state.name, state.mask, state.capacity, picture.timeout_s(state.mask)) for state in absent
    )
    return Commit(Transaction(operations, "create sets")) if operations else None


def _add(picture: Picture) -> Step | None:
    """As many missing elements as one transaction takes, one at least, from as many sets as need some."""
    operations: list[Operation] = []
    budget = MOST_BYTES
    for state in picture.set_states():
        if not state.missing:
            continue
        stride = _stride(state.mask)
        room = state.has_room(len(picture.desired.keys(state.mask)), len(state.missing))
        keys = list(islice(state.missing, min(room, budget // stride or not operations)))
        if keys:
            operations.append(_put(state, keys))
            budget -= len(keys) * stride
        if budget < 64 or len(operations) >= MOST_SETS:
            break
    return Commit(Transaction(tuple(operations), "add elements")) if operations else None


def _remove(picture: Picture) -> Step | None:
    operations: list[Operation] = []
    budget = MOST_BYTES
    for state in picture.set_states():
        if not state.surplus:
            continue
        stride = _stride(state.mask)
        left = picture.leftovers.of(state.mask)
        keys = list(islice((key for key in state.surplus if key not in left), budget // stride or not operations))
        if keys:
            operations.append(RemoveElements(state.name, keys))
            budget -= len(keys) * stride
        if budget < 64 or len(operations) >= MOST_SETS:
            break
    return Commit(Transaction(tuple(operations), "remove elements")) if operations else None


def _delete_sets(picture: Picture) -> Step | None:
    names = sorted(picture.retired.difference(picture.in_force.values()))[:MOST_SETS]
    operations = tuple(DeleteSet(name) for name in names)
    return Commit(Transaction(operations, "delete sets")) if operations else None
