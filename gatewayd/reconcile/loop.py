"""The reconciler: the one task that writes to the kernel, a transaction at a time, until it is as desired.

read → (step → acknowledge)* → verified → sleep until a desire, the poll of the generation, or the timer
  ▲ any KernelError: count, wait, read again; nothing is assumed
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import inf

from gatewayd.compile.desired import DesiredSets
from gatewayd.compile.masks import compile_elements
from gatewayd.compile.ruleset import RULE_SETS, compile_ruleset, parse_tag
from gatewayd.errors import DumpInterrupted, KernelError, RulesetRefused
from gatewayd.log import get_logger
from gatewayd.model.flow import Mode
from gatewayd.model.mask import parse_set_name, set_name
from gatewayd.model.policy import Policy
from gatewayd.model.registration import Registration
from gatewayd.model.transaction import AddElements, RulesTag, TableReading, Transaction
from gatewayd.reconcile.dataplane import Dataplane
from gatewayd.reconcile.picture import Picture, SetState
from gatewayd.reconcile.steps import Commit, PutRules, acknowledge, most_keys, next_step

log = get_logger(__name__)

GENERATION_POLL_S = 0.2
"""How often the kernel is asked whether anybody changed a ruleset; one message of 20 bytes."""
FIRST_RETRY_S, LONGEST_RETRY_S = 0.05, 10.0
HURRIED_RETRY_S = 1.0
"""Between attempts that fail while desires keep changing."""
SMALL_SET = 65536
"""A set up to this size is read element by element at once. The kernel's dump of a larger one is quadratic (15 s
at 1 M, 6.18): there, adding all desired elements again and comparing the kernel's count says the same in 0.7 s."""
COMPARE_AT_MOST_S = 30.0
"""Between two comparisons of all elements that foreign commits ask for, where the kernel tells no counts."""
STUCK_AFTER_S = 60.0
"""Longer than any answer is waited for."""
INTERRUPTIONS = 5
"""Attempts at a dump that other programs' changes keep interrupting."""


@dataclass(slots=True)
class Tally:
    """What the reconciler did since start; times are unix seconds, 0 = never."""

    transactions: int = 0
    elements: int = 0
    commit_seconds: float = 0.0
    failures: int = 0
    last_error: str = ""
    last_commit_at: float = 0.0
    last_verified_at: float = 0.0
    repairs: int = 0
    late_admissions: int = 0
    generation: int = 0
    turned_at: float = 0.0
    """By the stopwatch: when the task last got somewhere."""


class Reconciler:
    """Owns the picture. `add`, `remove`, `urge` and `want_policy` are for the daemon's own turn of the loop."""

    def __init__(
        self,
        dataplane: Dataplane,
        table: str,
        *,
        clock: Callable[[], float],
        stopwatch: Callable[[], float],
        verify_every_s: float = 300.0,
        on_settled: Callable[[], None] = lambda: None,
    ) -> None:
        self._dataplane = dataplane
        self._table = table
        self._clock = clock
        self._stopwatch = stopwatch
        self._on_settled = on_settled
        self._policy: Policy | None = None
        self._work = asyncio.Event()
        self._known = False
        self._verified = False
        """Nothing happened since the last comparison that asks for another."""
        self._read_back = False
        """Compared at least once since all was read: a look at the timer does not take readiness away."""
        self._unsettled = True
        self.policy_in_force: Policy | None = None
        """What the rules in the kernel do, once we have put them there."""
        self._disarmed: Policy | None = None
        self._ready_to_write = asyncio.Event()
        self._expected_generation = 0
        self._assertion: Iterator[tuple[SetState, list[bytes]]] | None = None
        self._assert_at = stopwatch() + verify_every_s
        self._poll_at = stopwatch()
        self._compared_at = -inf
        self._verify_every_s = verify_every_s
        self.picture = Picture(DesiredSets())
        self.tally = Tally()

    # -- desires -------------------------------------------------------------------------------------------

    def add(self, registration: Registration) -> None:
        """Desire an effective registration's elements; they are committed at the loop's next turn."""
        self.picture.add(registration)
        self._work.set()

    def remove(self, registration: Registration) -> None:
        self.picture.remove(registration)
        self._work.set()

    def want_policy(self, policy: Policy) -> None:
        """What the rules shall do. The first call says that the allowlist is complete: only then is the kernel
        read and written."""
        if policy != self._policy:
            if self._policy is None:
                self.tally.turned_at = self._stopwatch()
            self._policy = policy
            self._ready_to_write.set()
            self._work.set()

    def urge(self, registrations: Iterable[Registration]) -> bool:
        """Late admission: put the elements of these ahead of all bulk work; whether any was missing."""
        count = sum(self.picture.urge(compile_elements(registration)) for registration in registrations)
        self.tally.late_admissions += count > 0
        if self.picture.urgent:
            self._work.set()
        return count > 0

    def disarm(self, policy: Policy) -> None:
        """Put the rules of mode observe before the allowlist is complete: sets and elements stay as they are."""
        self._disarmed = policy
        self._work.set()

    def found(self, tag: RulesTag | None) -> None:
        """What the rules say that were there at the start."""
        self.picture.tag = tag

    @property
    def mode_in_force(self) -> Mode:
        """What the rules in the kernel do; without any of ours nothing is blocked."""
        if self.policy_in_force is not None:
            return self.policy_in_force.mode
        return self.picture.tag.mode if self.picture.tag is not None else "observe"

    @property
    def epoch(self) -> int:
        """The epoch of the rules in force; 0 if none are known."""
        return self.picture.tag.epoch if self.picture.tag is not None else 0

    def verify_every(self, seconds: float) -> None:
        """Another period of the timer, from now on."""
        if seconds != self._verify_every_s:
            self._verify_every_s = seconds
            self._assert_at = self._stopwatch() + seconds

    # -- facts ---------------------------------------------------------------------------------------------

    def unready(self) -> str | None:
        """None when the kernel was read back and is as desired; else the reason."""
        if self._policy is None:
            return "no allowlist yet"
        if not self._known:
            return f"kernel not read: {self.tally.last_error}" if self.tally.last_error else "kernel not read yet"
        missing = self.picture.count_missing()
        if missing:
            return f"{missing} elements are not in the kernel yet"
        if self.picture.rules is None:
            return "rules are not in the kernel yet"
        if not self._read_back:
            return "the kernel has not been read back yet"
        return None

    def stuck(self) -> str | None:
        """None while the task gets on; else for how long it has not. Feeds the watchdog."""
        silent_s = self._stopwatch() - self.tally.turned_at
        if self._policy is None or silent_s < STUCK_AFTER_S:
            return None
        return f"the reconciler has not moved for {silent_s:.0f} s"

    def holds(self, registration: Registration) -> bool:
        """Whether every element of the registration is known to be in the kernel, looked into by the rules."""
        return self._known and all(self.picture.holds(*element) for element in compile_elements(registration))

    # -- the task ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. The kernel keeps what it has."""
        await self._wait_for_allowlist()
        retry_s = FIRST_RETRY_S
        while True:
            try:
                await self._converge()
                retry_s = FIRST_RETRY_S
                await self._idle()
            except KernelError as error:
                self.tally.failures += 1
                self.tally.last_error = str(error)
                self._forget()
                log.warning("reconcile.failed", error=str(error), retry_in_s=retry_s)
                await self._back_off(retry_s)
                retry_s = min(retry_s * 2, LONGEST_RETRY_S)

    async def _wait_for_allowlist(self) -> None:
        """Until `want_policy`. All that is done before is to take an armed mode off when told to."""
        while not self._ready_to_write.is_set():
            await self._work.wait()
            self._work.clear()
            policy, self._disarmed = self._disarmed, None
            if policy is None or self._ready_to_write.is_set():
                continue
            try:
                await self._put_disarmed(policy)
            except KernelError as error:
                self.tally.failures += 1
                self.tally.last_error = str(error)
                log.warning("reconcile.failed", error=str(error), retry_in_s=LONGEST_RETRY_S)
                await asyncio.sleep(HURRIED_RETRY_S)
                self.disarm(policy)

    async def _put_disarmed(self, policy: Policy) -> None:
        reading = await self._read_table()
        if reading.tag is None or reading.tag.mode == policy.mode:
            return
        parsed = [each for item in reading.sets if item.regular and (each := parse_set_name(item.name)) is not None]
        # Of a set and its successor the older one is whole.
        hooks = {mask: set_name(mask, generation) for mask, generation in sorted(parsed, reverse=True)}
        epoch = policy.mark_layout.next_epoch(reading.tag.epoch)
        ruleset = compile_ruleset(self._table, policy, hooks, epoch)
        await self._dataplane.replace_rules(ruleset)
        self.picture.tag = parse_tag(ruleset.tag)
        log.info("reconcile.disarmed", was=reading.tag.mode)

    async def _back_off(self, retry_s: float) -> None:
        """Wait, but not for long when there is something new to do: it may be what can be done."""
        at_least_s = min(retry_s, HURRIED_RETRY_S)
        await asyncio.sleep(at_least_s)
        try:
            async with asyncio.timeout(retry_s - at_least_s):
                await self._work.wait()
        except TimeoutError:
            pass

    async def _converge(self) -> None:
        """Steps until there is none left to take; then one slice of the timer's work at a time."""
        while True:
            self.tally.turned_at = self._stopwatch()
            self._work.clear()
            if not self._known:
                await self._read()
            elif self._stopwatch() >= self._poll_at:
                await self._poll()
                continue
            policy = self._policy
            step = next_step(self.picture, policy, self._table)
            if step is not None:
                await self._perform(step)
                self._unsettled = True
                if isinstance(step, PutRules):
                    self.policy_in_force = policy
            elif self._verified and self._unsettled:
                self._unsettled = False
                self._on_settled()
            elif self._assertion is not None:
                await self._assert_slice(self._assertion)
            elif not self._verified:
                await self._verify()
            else:
                return

    async def _perform(self, step: Commit | PutRules) -> None:
        started = self._stopwatch()
        if isinstance(step, PutRules):
            cause, elements = "replace rules", 0
            await self._put_rules(step)
        else:
            cause, elements = step.transaction.cause, step.transaction.count_elements()
            await self._dataplane.commit(step.transaction)
            acknowledge(self.picture, step)
        took_s = self._stopwatch() - started
        self._expected_generation += 1
        tally = self.tally
        tally.transactions += 1
        tally.elements += elements
        tally.commit_seconds += took_s
        tally.last_commit_at = self._clock()
        log.debug("reconcile.applied", cause=cause, elements=elements, duration_ms=round(took_s * 1000, 2))

    async def _put_rules(self, step: PutRules) -> None:
        """Put the rules and look at once how the kernel lists them, to know them from anybody's edit later."""
        before = await self._dataplane.read_generation()
        try:
            await self._dataplane.replace_rules(step.ruleset)
        except RulesetRefused:
            # Elements do not wait for rules that cannot be put: next time they go first.
            self.picture.rules_seen = ""
            raise
        acknowledge(self.picture, step)
        self._verified = False
        reading = await self._read_table()
        if before + 1 == reading.generation == await self._dataplane.read_generation():
            self.picture.rules_seen = reading.rules

    async def _read_table(self) -> TableReading:
        for _ in range(INTERRUPTIONS - 1):
            try:
                return await self._dataplane.read_table()
            except DumpInterrupted:
                await asyncio.sleep(0)
        return await self._dataplane.read_table()

    async def _read(self) -> None:
        """Observe everything: sets, rules, and the content of sets small enough."""
        reading = await self._read_table()
        same_rules = bool(reading.rules) and reading.rules == self.picture.rules_seen
        rules = self.picture.rules if same_rules else None
        # A set is known to be looked into only by rules that we know.
        hooked = frozenset(state.name for state in self.picture.set_states() if state.hooked and rules is not None)
        pending = self.picture.start_reading(reading, hooked)
        self.picture.rules = rules
        if rules is None:
            self.policy_in_force = None
        self._expected_generation = self.tally.generation = reading.generation
        for state, found in pending:
            state.hooked = state.name in hooked
            if found.count == 0:
                self.picture.observe_elements(state, set())
            elif (found.count if found.count is not None else 0) <= SMALL_SET:
                self.picture.observe_elements(state, await self._read_elements(state))
        self._known, self._verified = True, False

    async def _read_elements(self, state: SetState) -> set[bytes]:
        for attempt in range(INTERRUPTIONS):
            keys: set[bytes] = set()
            try:
                async for piece in self._dataplane.read_elements(state.name):
                    keys.update(piece)
                    self.tally.turned_at = self._stopwatch()
            except DumpInterrupted:
                if attempt + 1 == INTERRUPTIONS:
                    raise
                continue
            return keys
        raise AssertionError("unreachable")

    async def _verify(self) -> None:
        """Compare the kernel's counts and rules with the picture; look closer where they differ."""
        reading = await self._read_table()
        if self.picture.rules is not None and not self.picture.rules_seen and reading.tag == self.picture.tag:
            self.picture.rules_seen = reading.rules
        difference = self._difference(reading)
        if difference is not None:
            self._foreign(difference)
            return
        counts = {item.name: item.count for item in reading.sets}
        strange = 0
        for state in self.picture.set_states():
            if state.exists and counts.get(state.name) != self.picture.expected_count(state):
                strange += self.picture.observe_elements(state, await self._read_elements(state))
            state.unread = 0
        if strange:
            self.tally.repairs += 1
            log.warning("reconcile.foreign_change", found=f"{strange} elements were added or removed")
        self._expected_generation = self.tally.generation = reading.generation
        self._verified = self._read_back = True
        self._compared_at = self._stopwatch()
        self.tally.last_verified_at = self._clock()
        self.tally.last_error = ""
        self._unsettled = True

    def _difference(self, reading: TableReading) -> str | None:
        """What in the table is not as we left it, the content of sets apart."""
        if not reading.present:
            return "the table is gone"
        found = {item.name for item in reading.sets}
        known = {state.name for state in self.picture.set_states() if state.exists}
        if known - found:
            return f"set {min(known - found)} is gone"
        strange = found - known - self.picture.retired - RULE_SETS
        if strange:
            return f"set {min(strange)} is not ours"
        if self.picture.rules is not None and reading.rules != self.picture.rules_seen:
            return "the rules were changed"
        return None

    def _foreign(self, what: str) -> None:
        self.tally.repairs += 1
        self._forget()
        log.warning("reconcile.foreign_change", found=what)

    def _forget(self) -> None:
        self._known = self._verified = self._read_back = False
        self._assertion = None

    async def _idle(self) -> None:
        """Sleep until there is something to do or the generation is to be looked at."""
        pause_s = min(max(0.0, self._poll_at - self._stopwatch()), GENERATION_POLL_S)
        try:
            async with asyncio.timeout(pause_s):
                await self._work.wait()
        except TimeoutError:
            self._poll_at = self._stopwatch()

    async def _poll(self) -> None:
        """Keep an eye on the generation and the timer, however busy we are."""
        self._poll_at = self._stopwatch() + GENERATION_POLL_S
        if await self._dataplane.read_generation() != self._expected_generation:
            await self._look_closer()
        elif self._stopwatch() >= self._assert_at and self._assertion is None:
            self._assert_at = self._stopwatch() + self._verify_every_s
            self.picture.retire_unused()
            self._assertion = self._slices()

    async def _look_closer(self) -> None:
        """Somebody committed something: if it was in our table, read all of it again."""
        reading = await self._read_table()
        difference = self._difference(reading)
        if difference is None:
            counts = {item.name: item.count for item in reading.sets}
            for state in self.picture.set_states():
                count, expected = counts.get(state.name), self.picture.expected_count(state)
                if count is None and not state.unread and self._stopwatch() < self._compared_at + COMPARE_AT_MOST_S:
                    # A listing of all elements for every commit of any program would never end.
                    self._assert_at = min(self._assert_at, self._compared_at + COMPARE_AT_MOST_S)
                elif count is None or state.unread:
                    # Only its elements can tell; they are compared once there is no step left to take.
                    self._verified = self._verified and not state.exists
                elif count != expected:
                    difference = f"set {state.name} has {count} elements instead of {expected}"
        if difference is not None:
            self._foreign(difference)
        self._expected_generation = self.tally.generation = reading.generation

    def _slices(self) -> Iterator[tuple[SetState, list[bytes]]]:
        """All that is known to be in the kernel, in pieces of a transaction's size."""
        for state in self.picture.set_states():
            keys = iter(self.picture.desired.keys(state.mask) - state.missing)
            while piece := list(islice(keys, most_keys(state.mask.key_length))):
                yield state, piece

    async def _assert_slice(self, slices: Iterator[tuple[SetState, list[bytes]]]) -> None:
        """The timer's comparison: add again what is there, piece by piece; then equal counts prove equality."""
        state, piece = next(slices, (None, []))
        if state is None:
            self._assertion, self._verified = None, False
            return
        if any(state is known for known in self.picture.set_states()):
            wanted = self.picture.desired.keys(state.mask)
            operation = AddElements(state.name, [key for key in piece if key in wanted])
            if operation.keys and state.exists:
                await self._perform(Commit(Transaction((operation,), "verify")))
        await asyncio.sleep(0)
