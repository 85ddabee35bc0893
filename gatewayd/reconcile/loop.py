"""The reconciler: the one task that writes to the kernel, a transaction at a time, until it is as desired.

read → (step → acknowledge)* → verified → sleep until a desire, the poll of the generation, or the timer
  ▲ any KernelError: count, wait, read again; nothing is assumed
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from gatewayd.compile.desired import DesiredSets
from gatewayd.compile.masks import compile_elements
from gatewayd.compile.ruleset import RULE_SETS
from gatewayd.errors import DumpInterrupted, KernelError
from gatewayd.log import get_logger
from gatewayd.model.policy import Policy
from gatewayd.model.registration import Registration
from gatewayd.model.transaction import AddElements, TableReading, Transaction
from gatewayd.reconcile.dataplane import Dataplane
from gatewayd.reconcile.picture import Picture, SetState
from gatewayd.reconcile.steps import Commit, PutRules, acknowledge, most_keys, next_step

log = get_logger(__name__)

GENERATION_POLL_S = 0.2
"""How often the kernel is asked whether anybody changed a ruleset; one message of 20 bytes."""
FIRST_RETRY_S, LONGEST_RETRY_S = 0.05, 10.0
SMALL_SET = 65536
"""A set up to this size is read element by element at once. The kernel's dump of a larger one is quadratic (15 s
at 1 M, 6.18): there, adding all desired elements again and comparing the kernel's count says the same in 0.7 s."""
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
        self._unsettled = True
        self.policy_in_force: Policy | None = None
        """What the rules in the kernel do, once we have put them there."""
        self._ready_to_write = asyncio.Event()
        self._expected_generation = 0
        self._assertion: Iterator[tuple[SetState, list[bytes]]] | None = None
        self._assert_at = stopwatch() + verify_every_s
        self.verify_every_s = verify_every_s
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
        """Late admission: put what is missing of these ahead of all bulk work; whether anything was."""
        count = sum(self.picture.urge(compile_elements(registration)) for registration in registrations)
        self.tally.late_admissions += count > 0
        if count:
            self._work.set()
        return count > 0

    @property
    def epoch(self) -> int:
        """The epoch of the rules in force; 0 if none are known."""
        return self.picture.tag.epoch if self.picture.tag is not None else 0

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
        if not self._verified:
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
        await self._ready_to_write.wait()
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
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, LONGEST_RETRY_S)

    async def _converge(self) -> None:
        """Steps until there is none left to take; then one slice of the timer's work at a time."""
        while True:
            self.tally.turned_at = self._stopwatch()
            if not self._known:
                await self._read()
            self._work.clear()
            policy = self._policy
            step = next_step(self.picture, policy, self._table)
            if step is not None:
                await self._perform(step)
                self._unsettled = True
                if isinstance(step, PutRules):
                    self.policy_in_force = policy
            elif self._assertion is not None:
                await self._assert_slice(self._assertion)
            elif not self._verified:
                await self._verify()
            else:
                if self._unsettled:
                    self._unsettled = False
                    self._on_settled()
                return

    async def _perform(self, step: Commit | PutRules) -> None:
        started = self._stopwatch()
        if isinstance(step, PutRules):
            await self._dataplane.replace_rules(step.ruleset)
            cause, elements = "replace rules", 0
        else:
            await self._dataplane.commit(step.transaction)
            cause, elements = step.transaction.cause, step.transaction.count_elements()
        took_s = self._stopwatch() - started
        acknowledge(self.picture, step)
        self._expected_generation += 1
        self._verified = self._verified and not isinstance(step, PutRules)
        tally = self.tally
        tally.transactions += 1
        tally.elements += elements
        tally.commit_seconds += took_s
        tally.last_commit_at = self._clock()
        log.debug("reconcile.applied", cause=cause, elements=elements, duration_ms=round(took_s * 1000, 2))

    async def _read(self) -> None:
        """Observe everything: sets, rules, and the content of sets small enough."""
        reading = await self._dataplane.read_table()
        same_rules = bool(reading.rules) and reading.rules == self.picture.rules_seen
        rules = self.picture.rules if same_rules else None
        hooked = {state.name for state in self.picture.set_states() if state.hooked}
        pending = self.picture.start_reading(reading)
        self.picture.rules = rules
        if rules is None:
            self.policy_in_force = None
        self._expected_generation = self.tally.generation = reading.generation
        for state, found in pending:
            # A set is known to be looked into only by rules that we know.
            state.hooked = rules is not None and state.name in hooked
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
            except DumpInterrupted:
                if attempt + 1 == INTERRUPTIONS:
                    raise
                continue
            return keys
        raise AssertionError("unreachable")

    async def _verify(self) -> None:
        """Compare the kernel's counts and rules with the picture; look closer where they differ."""
        reading = await self._dataplane.read_table()
        if self.picture.rules is not None and not self.picture.rules_seen and reading.tag == self.picture.tag:
            self.picture.rules_seen = reading.rules
        difference = self._difference(reading)
        if difference is not None:
            self._foreign(difference)
            return
        counts = {item.name: item.count for item in reading.sets}
        for state in self.picture.set_states():
            if state.exists and counts[state.name] != self.picture.expected_count(state):
                self.picture.observe_elements(state, await self._read_elements(state))
                if state.missing or state.surplus:
                    log.info(
                        "reconcile.compared", set=state.name, missing=len(state.missing), surplus=len(state.surplus)
                    )
                    self._work.set()
                    return
        self._expected_generation = self.tally.generation = reading.generation
        self._verified = True
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
        self._known = self._verified = False
        self._assertion = None

    async def _idle(self) -> None:
        """Sleep until there is something to do; keep an eye on the generation and the timer."""
        while not self._work.is_set():
            self.tally.turned_at = self._stopwatch()
            try:
                async with asyncio.timeout(GENERATION_POLL_S):
                    await self._work.wait()
            except TimeoutError:
                if await self._dataplane.read_generation() != self._expected_generation:
                    await self._look_closer()
                    return
                if self._stopwatch() >= self._assert_at:
                    self._assert_at = self._stopwatch() + self.verify_every_s
                    self.picture.retire_unused()
                    self._assertion = self._slices()
                    return

    async def _look_closer(self) -> None:
        """Somebody committed something: if it was in our table, read all of it again."""
        reading = await self._dataplane.read_table()
        difference = self._difference(reading)
        if difference is None:
            counts = {item.name: item.count for item in reading.sets}
            for state in self.picture.set_states():
                count, expected = counts.get(state.name), self.picture.expected_count(state)
                if count is not None and count != expected:
                    difference = f"set {state.name} has {count} elements instead of {expected}"
                elif count is None and state.exists:
                    self._verified = False
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
        wanted = self.picture.desired.keys(state.mask)
        operation = AddElements(state.name, [key for key in piece if key in wanted])
        if operation.keys and state.exists:
            await self._perform(Commit(Transaction((operation,), "verify")))
        await asyncio.sleep(0)
