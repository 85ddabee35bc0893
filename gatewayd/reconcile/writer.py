"""The way into the kernel: the writer of steps, and the ledger of commits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from gatewayd.compile.desired import DesiredSets
from gatewayd.compile.ruleset import compile_ruleset, parse_tag
from gatewayd.errors import KernelError
from gatewayd.log import get_logger
from gatewayd.model.mask import parse_set_name, set_name
from gatewayd.model.moment import format_time
from gatewayd.model.policy import Policy
from gatewayd.model.transaction import AddElements, Transaction
from gatewayd.reconcile.dataplane import Dataplane, Generations, Stats, found_in
from gatewayd.reconcile.steps import PutRules, Step, acknowledge
from gatewayd.reconcile.tracker import SetTracker

log = get_logger(__name__)


MAX_NAMED = 5
"""Registrations past a bound that a line of the log, or a reason for not being ready, names."""
LARGE_COMMIT = 1024
"""Elements whose acknowledgement is worth a turn of the loop of its own."""


class Ledger:
    """Commits and failures, ours and others', counted; and when the reconciler last got somewhere."""

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic
        self.generations = Generations()
        self.stats = Stats()
        self._clock = clock
        self.committed_at: float | None = None
        self._turned_at = 0.0
        self._said_past_bound = (0, 0)

    def say_past_bound(self, desired: DesiredSets) -> None:
        """Which registrations are past a bound, when there are others than the last time."""
        former = desired.in_former_form()
        said = (desired.count_unprogrammed(), len(former))
        if said != self._said_past_bound:
            self._said_past_bound = said
            unprogrammed = desired.unprogrammed()
            ids = [*dict.fromkeys([*former, *unprogrammed])][:MAX_NAMED]
            log.warning("reconcile.past_bound", registrations=len(unprogrammed), in_former_form=said[1], ids=ids)

    def turn(self) -> None:
        """The reconciler has got somewhere."""
        self._turned_at = self.monotonic()

    def still_for_s(self) -> float:
        """For how long it has not."""
        return self.monotonic() - self._turned_at

    def commit(self, cause: str, elements: int, started: float, *, surely: bool) -> None:
        """A transaction of ours, sent at `started`, was acknowledged. `surely`: it changed something."""
        took_s = self.monotonic() - started
        self.generations.committed(surely=surely)
        stats = self.stats
        stats.transactions += 1
        stats.elements += elements
        stats.commit_seconds += took_s
        self.committed_at = self._clock()
        log.debug("reconcile.applied", cause=cause, elements=elements, duration_ms=round(took_s * 1000, 2))

    def fail(self, error: KernelError, retry_in_s: float) -> None:
        self.stats.failures += 1
        self.stats.last_error = str(error)
        log.warning("reconcile.failed", error=str(error), retry_in_s=retry_in_s)

    def admit_late(self) -> None:
        self.stats.late_admissions += 1

    def repair(self) -> None:
        """Another program's change was found, and is put right."""
        self.stats.repairs += 1

    def lose_notifications(self) -> None:
        self.stats.notifications_lost += 1
        log.warning("reconcile.notifications_lost")

    def anchor(self, generation: int) -> None:
        """All that was committed up to this generation is known."""
        self.generations.read(generation)
        self.stats.generation, self.stats.found = generation, None

    def explain(self, generation: int) -> bool:
        """Whether the kernel's generation is what it should be by now."""
        if not self.generations.explain(generation):
            return False
        self.stats.generation = generation
        return True

    def verify(self) -> None:
        """The kernel was read back and is as desired."""
        self.stats.last_verified_at = format_time(self._clock())
        self.stats.last_error = None


class Writer:
    """Takes steps into the kernel, one after another, and acknowledges them to the tracker."""

    def __init__(self, dataplane: Dataplane, table: str, tracker: SetTracker, ledger: Ledger) -> None:
        self._dataplane = dataplane
        self._table = table
        self._tracker = tracker
        self._ledger = ledger
        self._policy: Policy | None = None

    @property
    def policy(self) -> Policy | None:
        """What the rules in the kernel do, once we have put them there."""
        return self._policy if self._tracker.rules.text is not None else None

    async def take(self, step: Step, policy: Policy | None = None) -> None:
        """`policy`: from which the rules were compiled, where it is rules."""
        if isinstance(step, PutRules):
            await self._put_rules(step)
            self._policy = policy
        else:
            await self.commit(step.transaction)
            acknowledge(self._tracker, step)

    async def commit(self, transaction: Transaction) -> None:
        """Without an acknowledgement to the tracker: all that is in it is known to be there."""
        started = self._ledger.monotonic()
        await self._dataplane.commit(transaction)
        adds_only = all(isinstance(each, AddElements) for each in transaction.operations)
        elements = transaction.count_elements()
        self._ledger.commit(transaction.cause, elements, started, surely=not adds_only)
        if elements > LARGE_COMMIT:
            await asyncio.sleep(0)

    async def _put_rules(self, step: PutRules) -> None:
        """Put the rules and look at once how the kernel lists them, to know them from anybody's edit later."""
        started = self._ledger.monotonic()
        rules = self._tracker.rules
        before = await self._dataplane.read_generation()
        try:
            await self._dataplane.replace_rules(step.ruleset)
        except KernelError:
            # Elements do not wait for rules that cannot be put: next time they go first.
            rules.see_fingerprint("")
            raise
        self._ledger.commit("replace rules", 0, started, surely=True)
        acknowledge(self._tracker, step)
        reading = await self._dataplane.read_table()
        if before + 1 == reading.generation == await self._dataplane.read_generation():
            rules.see_fingerprint(reading.rules)

    async def disarm(self, policy: Policy) -> None:
        """Put the rules of a policy that blocks nothing in place of armed ones; sets and elements stay."""
        reading = await self._dataplane.read_table()
        if reading.tag is None or reading.tag.mode == policy.mode:
            return
        parsed = [each for item in reading.sets if item.regular and (each := parse_set_name(item.name)) is not None]
        # Of a set and its successor the older one is whole.
        hooks = {mask: set_name(mask, generation) for mask, generation in sorted(parsed, reverse=True)}
        epoch = policy.mark_layout.next_epoch(reading.tag.epoch)
        ruleset = compile_ruleset(self._table, policy, hooks, epoch)
        await self._dataplane.replace_rules(ruleset)
        self._tracker.rules.see_tag(parse_tag(ruleset.tag))
        self._ledger.stats.found = found_in(replace(reading, tag=parse_tag(ruleset.tag)))
        log.info("reconcile.disarmed", was=reading.tag.mode)
