"""What tells the reconciler that the kernel is as it believes: readings, notifications, generations, the timer.

read       everything, at the start and after a failure
receive    commits of others, notified element by element: they go into the tracker, and the next step repairs them
poll       a generation that nothing accounts for: look at sets, counts and rules, and then as the timer does
the timer  adds everything again, piece by piece; then equal counts prove that the content is equal
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from math import inf

from gatewayd.compile.keys import Keys
from gatewayd.compile.rule_sets import RULE_SETS
from gatewayd.errors import DumpInterrupted
from gatewayd.log import get_logger
from gatewayd.model.transaction import AddElements, ExternalCommit, TableReading, Transaction
from gatewayd.reconcile.dataplane import Dataplane
from gatewayd.reconcile.set_state import SetState
from gatewayd.reconcile.steps import Commit, max_keys
from gatewayd.reconcile.tracker import SetTracker
from gatewayd.reconcile.writer import Ledger

log = get_logger(__name__)

SMALL_SET = 65536
"""A set up to this size is read element by element at once. The kernel's dump of a larger one is quadratic (15 s
at 1 M, 6.18): there, adding all desired elements again and comparing the kernel's count says the same in 0.7 s."""
COMPARE_AT_MOST_S = 30.0
"""Between two comparisons of all elements that somebody else's commits ask for."""
BATCHES_OF_A_TABLE = 64
"""Of notifications, that are taken in after a failure: some 45,000 elements."""
INTERRUPTIONS = 5
"""Attempts at a dump that other programs' changes keep interrupting."""


class Verifier:
    """Holds the kernel against the tracker. All of it runs in the reconciler's own task."""

    def __init__(self, dataplane: Dataplane, tracker: SetTracker, ledger: Ledger, *, verify_every_s: float) -> None:
        self.known = False
        self.verified = False
        """Nothing happened since the last comparison that asks for another."""
        self.read_back = False
        """Compared at least once since all was read: a look at the timer does not take readiness away."""
        self.must_look = False
        """Somebody changed more in our table than elements that we were told of."""
        self._suspect: tuple[ExternalCommit | None, str | None] = (None, None)
        """That commit, and what it told of elements."""
        self._dataplane = dataplane
        self._tracker = tracker
        self._ledger = ledger
        self._generations = ledger.generations
        self._monotonic = ledger.monotonic
        self._verify_every_s = verify_every_s
        self._assertion: Iterator[tuple[SetState, list[bytes]]] | None = None
        self._assert_at = ledger.monotonic() + verify_every_s
        self._asserted_at = self._compared_at = -inf
        self._asserted = False
        """All that is desired was added again since the last thing that gave a reason to."""

    def verify_every(self, seconds: float) -> None:
        """Another period of the timer, from now on."""
        if seconds != self._verify_every_s:
            self._verify_every_s = seconds
            self._assert_at = self._monotonic() + seconds

    def forget(self) -> None:
        """Nothing is known any more; all is to be read."""
        self.known = self.verified = self.read_back = self.must_look = False
        self._tracker.doubt()
        self._assertion, self._suspect = None, (None, None)

    async def fail(self) -> None:
        """The kernel refused: nothing is known any more. `read` tells of the commit that may be why.

        A table that went is a message for each rule and element of it, and comes in several batches.
        """
        suspect = self._suspect
        self.forget()
        self._suspect = suspect
        for _ in range(BATCHES_OF_A_TABLE):
            for commit in self._dataplane.take_changes().commits:
                self._generations.reported(commit.generation)
                if commit.others:
                    self._suspect = commit, None
            if self._suspect[0] is not None:
                break
            await asyncio.sleep(0)

    def rules_replaced(self) -> None:
        """The kernel has other rules: it is to be compared again."""
        self.verified = False

    # -- readings ------------------------------------------------------------------------------------------

    async def read(self) -> None:
        """Observe everything: sets, rules, and the content of sets small enough."""
        reading = await self._dataplane.read_table()
        tracker = self._tracker
        (suspect, changed), self._suspect = self._suspect, (None, None)
        if suspect is not None and (difference := self._difference(reading) or changed) is not None:
            self._tell(difference, suspect)
        pending = tracker.read_again(reading)
        self._ledger.anchor(reading.generation)
        for state, found in pending:
            if found.count == 0:
                tracker.observe_elements(state, ())
            elif (found.count or 0) <= SMALL_SET:
                keys, whole = await self._read_elements(state)
                if whole:
                    await self._observe(state, keys)
                else:
                    tracker.observe_some(state, keys)
                    state.note_unread(max(1, len(keys) - len(state.surplus)))
        self.known, self.verified, self._asserted = True, False, True
        tracker.findings.finish_reading()

    async def _read_elements(self, state: SetState) -> tuple[Keys, bool]:
        keys, whole = await read_keys(self._dataplane, state.name, self._ledger.turn)
        if not whole:
            log.warning("reconcile.dump_abandoned", set=state.name, attempts=INTERRUPTIONS)
        return keys, whole

    async def _observe(self, state: SetState, keys: Keys) -> int:
        slices = self._tracker.observe_in_slices(state, keys)
        while True:
            try:
                next(slices)
            except StopIteration as end:
                return int(end.value)
            await asyncio.sleep(0)

    # -- commits of others ---------------------------------------------------------------------------------

    def receive(self) -> bool:
        """Take in commits of others; whether any of it was in our table."""
        changes = self._dataplane.take_changes()
        touched = False
        for commit in changes.commits:
            self._generations.reported(commit.generation)
            if not (commit.others or commit.elements) or not self.known:
                continue
            touched = True
            went, came = self._tracker.observe_changes(commit.elements)
            names = ", ".join(sorted({change.set_name for change in commit.elements}))
            found = f"elements of {names}: {went} removed, {came} added" if went or came else None
            if commit.others:
                self.must_look, self._suspect = True, (commit, found)
                if commit.unlisted:
                    self._doubt()
            elif found is not None:
                self._tell(found, commit)
        if changes.lost and self.known:
            self.must_look = True
            self._doubt()
            self._ledger.lose_notifications()
        return touched

    async def poll(self) -> None:
        """Keep an eye on the generation and the timer, however busy we are."""
        generation = await self._dataplane.read_generation()
        self.receive()
        if self._generations.unreported:
            # A whole period has passed since, and no notification has come of it.
            self._doubt()
        if not self._ledger.explain(generation):
            await self.look()
            return
        self._tracker.make_room()
        if self._monotonic() >= self._assert_at and self._assertion is None:
            self._assert_at = self._monotonic() + self._verify_every_s
            self._tracker.retire_unused()
            self._assertion = self._slices()

    async def look(self) -> None:
        """Sets, counts and rules, at once: each of ours that is not as we left it is put right."""
        for _ in range(INTERRUPTIONS):
            self.must_look = False
            reading = await self._dataplane.read_table()
            if not self.receive():
                break
        (suspect, found), self._suspect = self._suspect, (None, None)
        difference = self._difference(reading) or self._count_difference(reading)
        if difference is not None:
            self._tell(difference, suspect)
            self.forget()
        elif self._tracker.rules.differ(reading):
            self._tell("the rules were changed", suspect)
            self._tracker.forget_rules(reading.tag)
            self.verified = False
        elif found is not None:
            self._tell(found, suspect)
        self._ledger.anchor(reading.generation)

    def _difference(self, reading: TableReading) -> str | None:
        """Which sets are not as we left them, their content apart."""
        if not reading.present:
            return "the table is gone"
        found = {item.name for item in reading.sets}
        known = {state.name for state in self._tracker.set_states() if state.exists}
        if known - found:
            return f"set {min(known - found)} is gone"
        strange = found - known - self._tracker.retired - RULE_SETS
        if strange:
            return f"set {min(strange)} is not ours"
        return None

    def _count_difference(self, reading: TableReading) -> str | None:
        counts = {item.name: item.count for item in reading.sets}
        now, difference = self._monotonic(), None
        for state in self._tracker.set_states():
            count, expected = counts.get(state.name), self._tracker.expected_count(state)
            if count is None and not state.unread and now < self._compared_at + COMPARE_AT_MOST_S:
                # A dump of all elements for every commit of any program would never end.
                self._doubt()
            elif count is None or state.unread:
                # Only its elements can tell; they are compared once there is no step left to take.
                self.verified = self.verified and not state.exists
                self._asserted = self._asserted and not state.exists
            elif count is None or not expected - len(self._tracker.left(state.mask)) <= count <= expected:
                difference = f"set {state.name} has {count} elements instead of {expected}"
        return difference

    def _tell(self, found: str, commit: ExternalCommit | None) -> None:
        self._ledger.repair()
        who = {} if commit is None else {"program": commit.program, "pid": commit.pid}
        log.warning("reconcile.external_change", found=found, **who)

    # -- comparing all -------------------------------------------------------------------------------------

    def _doubt(self) -> None:
        """A change is possible that no count shows: compare everything soon."""
        self._assert_at = min(self._assert_at, max(self._monotonic(), self._asserted_at + COMPARE_AT_MOST_S))

    def _slices(self) -> Iterator[tuple[SetState, list[bytes]]]:
        # With half of what a transaction may carry, gathering, sending and committing stay under 10 ms a turn.
        return self._tracker.known_in_slices(lambda key_length: max(1, max_keys(key_length) // 2))

    def next_assertion(self) -> Commit | None:
        """The next piece of the timer's work: add again what is there. None when no piece is left."""
        while self._assertion is not None:
            state, piece = next(self._assertion, (None, []))
            if state is None:
                self._assertion, self.verified, self._asserted = None, False, True
                self._asserted_at = self._monotonic()
            elif state.exists and any(state is known for known in self._tracker.set_states()):
                wanted = self._tracker.desired.keys(state.mask)
                keys = [key for key in piece if key in wanted]
                if keys:
                    return Commit(Transaction((AddElements(state.name, keys),), "verify"))
        return None

    async def verify(self) -> None:
        """Compare the kernel's counts and rules with the tracker; look closer where they differ."""
        reading = await self._dataplane.read_table()
        tracker = self._tracker
        if self.receive() or self.must_look:
            return
        tracker.rules.recognise(reading)
        if self._tracker.rules.differ(reading) or self._difference(reading) is not None:
            await self.look()
            return
        counts = {item.name: item.count for item in reading.sets}
        strange = 0
        for state in tracker.set_states():
            if state.exists and counts.get(state.name) != tracker.expected_count(state):
                keys, whole = await self._read_elements(state)
                if whole:
                    strange += await self._observe(state, keys)
                else:
                    tracker.observe_some(state, keys)
                if not whole and not self._asserted:
                    # It cannot be compared, but all that is wanted can be put there again.
                    self._assertion = self._slices()
                    return
            state.note_unread(0)
        if strange:
            self._tell(f"{strange} elements, added or removed", None)
        self._ledger.anchor(reading.generation)
        self.verified = self.read_back = True
        if left := tracker.findings.finish_leaving():
            log.warning("reconcile.left", elements=left)
        self._compared_at = self._monotonic()
        self._ledger.verify()


async def read_keys(
    dataplane: Dataplane, set_name: str, on_piece: Callable[[], None] = lambda: None
) -> tuple[Keys, bool]:
    """Keys of a set, and whether these are all: a dump that is interrupted again and again is abandoned."""
    keys = Keys()
    for _ in range(INTERRUPTIONS):
        keys = Keys()
        try:
            async for piece in dataplane.read_elements(set_name):
                keys.update(piece)
                on_piece()
        except DumpInterrupted:
            continue
        return keys, True
    return keys, False
