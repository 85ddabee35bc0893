"""The reconciler: the one task that writes to the kernel, a transaction at a time, until it is as desired.

read → (hear → step → acknowledge)* → verified → sleep until a desire, a notification, the poll, or the timer
  ▲ any KernelError: count, wait, read again; nothing is assumed
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from gatewayd.compile.desired import DesiredSets, elements_of
from gatewayd.compile.ruleset import compile_ruleset, parse_tag
from gatewayd.errors import KernelError
from gatewayd.log import get_logger
from gatewayd.model.binding import BoundRegistration
from gatewayd.model.flow import Flow, Mode
from gatewayd.model.mask import Mask, parse_set_name, set_name
from gatewayd.model.moment import format_time
from gatewayd.model.policy import Policy
from gatewayd.model.prefix import Prefix
from gatewayd.model.registration import Registration
from gatewayd.model.transaction import AddElements, TableReading
from gatewayd.reconcile.dataplane import Dataplane, Stats
from gatewayd.reconcile.element_timeout import ElementTimeout
from gatewayd.reconcile.leftovers import Ports
from gatewayd.reconcile.steps import Commit, PutRules, acknowledge, is_urgent, next_step
from gatewayd.reconcile.tracker import ELEMENT_TIMEOUT_S, SetTracker, masks_of
from gatewayd.reconcile.verify import Verifier

log = get_logger(__name__)

Standing = Literal["wanted", "retained", "left", "unwanted"]
"""Why an element is in the kernel: a registration wants it; or perhaps a start found it, and it stays until every
source has been read; it is of a binding that a start found and nothing explains; it is about to go."""

GENERATION_POLL_S = 0.2
"""How often the kernel is asked whether there was a commit we were not told of; one message of 20 bytes."""
FIRST_RETRY_S, MAX_RETRY_S = 0.05, 10.0
HURRIED_RETRY_S = 1.0
"""Between attempts that fail while desires keep changing."""
STUCK_AFTER_S = 60.0
"""Longer than any answer is waited for."""
MAX_RELEASED = 4096
"""Spared elements let go in one turn of the loop."""
MAX_NAMED = 5
"""Registrations that a reason for not being ready names."""
LARGE_COMMIT = 1024
"""Elements whose acknowledgement is worth a turn of the loop of its own."""


class Reconciler:
    """Owns the picture. `add`, `remove`, `prioritise` and `want_policy` are for the daemon's own turn of the
    loop."""

    def __init__(
        self,
        dataplane: Dataplane,
        table: str,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        verify_every_s: float = 300.0,
        element_timeout_s: int = ELEMENT_TIMEOUT_S,
        spread: Callable[[], float] = lambda: 0.5,
        on_in_sync: Callable[[], None] = lambda: None,
    ) -> None:
        self._dataplane = dataplane
        self._table = table
        self._clock = clock
        self._monotonic = monotonic
        self._on_in_sync = on_in_sync
        self._policy: Policy | None = None
        self._work = asyncio.Event()
        self._out_of_sync = True
        self._was_urgent = False
        """The last step was a late admission: the next is something else, if there is anything else to do."""
        self._was_refresh = False
        """So was it with bindings asserted again: neither these nor the rest waits for ever for the other."""
        self._poll_at = monotonic()
        self._said_past_bound = (0, 0)
        self._policy_put: Policy | None = None
        self._disarmed: Policy | None = None
        self._ready_to_write = asyncio.Event()
        self.tracker = SetTracker(DesiredSets(), element_timeout_s)
        self.stats = Stats()
        self._element_timeout = ElementTimeout(self.tracker, spread=spread)
        self._verifier = Verifier(
            dataplane, self.tracker, self.stats, clock=clock, monotonic=monotonic, verify_every_s=verify_every_s
        )

    # -- desires -------------------------------------------------------------------------------------------

    def add(self, wanted: Registration | BoundRegistration) -> None:
        """Desire the elements of an effective registration, or of one at a subscriber's address; they are committed
        at the loop's next turn."""
        self.tracker.add(wanted)
        self._work.set()

    def remove(self, wanted: Registration | BoundRegistration) -> None:
        self.tracker.remove(wanted)
        self._work.set()

    def prepare(self, masks: Iterable[Mask]) -> None:
        """Have sets and look-ups for what is to come, so that the first of it waits for no rules."""
        self.tracker.prepare(masks)
        self._work.set()

    def want_policy(self, policy: Policy) -> None:
        """What the rules shall do. The first call says that the allowlist is complete: only then is the kernel
        read and written."""
        if policy != self._policy:
            if self._policy is None:
                self.stats.turned_at = self._monotonic()
            self._policy = policy
            self._ready_to_write.set()
            self._work.set()

    def prioritise(self, admitted: Iterable[Registration | BoundRegistration]) -> bool:
        """Late admission: put the elements of these ahead of all bulk work; whether any was missing."""
        count = sum(self.tracker.prioritise(elements_of(each)) for each in admitted)
        self.stats.late_admissions += count > 0
        if self.tracker.urgent:
            self._work.set()
        return count > 0

    def disarm(self, policy: Policy) -> None:
        """Put the rules of mode observe before the allowlist is complete: sets and elements stay as they are."""
        self._disarmed = policy
        self._work.set()

    def retain(self) -> None:
        """What is found in the kernel at the start stays, desired or not, until `release`."""
        self.tracker.sparing = True

    def leave_unless(self, explains: Callable[[Prefix, Ports], bool]) -> None:
        """What is found at the start in sets of bindings, neither desired nor explained by this, stays until its
        time is over; see leftovers.py."""
        self.tracker.explains = explains

    def let_go(self, prefix: Prefix, ports: Ports) -> None:
        """Of what was left: it is known now who has the address, or that nobody has."""
        if self.tracker.leftovers and self.tracker.leftovers.drop_at(prefix, ports):
            self._work.set()

    def sort_retained_in_slices(self, closed: Iterable[Registration]) -> Generator[None, None, tuple[int, int]]:
        """How many elements were spared that nothing explains, of how many found; these are released last.
        `closed`: registrations whose windows have closed, which explain theirs."""
        explained = (
            {element for each in closed for element in elements_of(each)} if self.tracker.count_retained() else ()
        )
        left = yield from self.tracker.sort_retained_in_slices(explained)
        return left, sum(self.tracker.found.values())

    def release_in_slices(self, keeping: int = 0) -> Generator[None, None, None]:
        """The registry is known for what it is now: what was spared goes but for so many, some of it between two
        yields."""
        released = 0
        self.tracker.sparing = False
        while count := self.tracker.release(min(MAX_RELEASED, self.tracker.count_retained() - keeping)):
            released += count
            self._work.set()
            yield
        if released:
            log.info("reconcile.released", elements=released)

    def found(self, reading: TableReading) -> None:
        """What was there at the start: its masks are kept before anything new gets one."""
        self.tracker.tag = reading.tag
        self.tracker.desired.reserve(masks_of(reading))

    def protect(self, categories: Iterable[str]) -> None:
        """Registrations of these find room where others find none."""
        self.tracker.desired.protected = frozenset(categories)

    @property
    def mode_in_force(self) -> Mode:
        """What the rules in the kernel do; without any of ours nothing is blocked."""
        if self.policy_in_force is not None:
            return self.policy_in_force.mode
        return self.tracker.tag.mode if self.tracker.tag is not None else "observe"

    @property
    def epoch(self) -> int:
        """The epoch of the rules in force; 0 if none are known."""
        return self.tracker.tag.epoch if self.tracker.tag is not None else 0

    def verify_every(self, seconds: float) -> None:
        """Another period of the timer, from now on."""
        self._verifier.verify_every(seconds)

    # -- facts ---------------------------------------------------------------------------------------------

    @property
    def policy_in_force(self) -> Policy | None:
        """What the rules in the kernel do, once we have put them there."""
        return self._policy_put if self.tracker.rules is not None else None

    def unready(self) -> str | None:
        """None when the kernel was read back and is as desired; else the reason."""
        if self._policy is None:
            return "no allowlist yet"
        if not self._verifier.known:
            return f"kernel not read: {self.stats.last_error}" if self.stats.last_error else "kernel not read yet"
        missing = self.tracker.count_missing()
        if missing:
            return f"{missing} elements are not in the kernel yet"
        if self.tracker.rules is None:
            return "rules are not in the kernel yet"
        if not self._verifier.read_back:
            return "the kernel has not been read back yet"
        return self._in_former_form()

    def _in_former_form(self) -> str | None:
        ids = self.tracker.desired.in_former_form()
        if not ids:
            return None
        named = ", ".join(ids[:MAX_NAMED]) + (", …" if len(ids) > MAX_NAMED else "")
        return f"{len(ids)} registrations are in the kernel in their former form alone, past a bound: {named}"

    def stuck(self) -> str | None:
        """None while the task gets on; else for how long it has not. Feeds the watchdog."""
        session_timeout_s = self._monotonic() - self.stats.turned_at
        if self._policy is None or session_timeout_s < STUCK_AFTER_S:
            return None
        return f"the reconciler has not moved for {session_timeout_s:.0f} s"

    def holds(self, wanted: Registration | BoundRegistration) -> bool:
        """Whether every element of it is known to be in the kernel, looked into by the rules."""
        if not self._verifier.known:
            return False
        return all(self.tracker.holds(*element) for element in elements_of(wanted))

    def standing_of(self, mask: Mask, key: bytes) -> Standing:
        """Why an element is in the kernel."""
        tracker = self.tracker
        if key in tracker.leftovers.of(mask):
            return "left"
        if mask not in tracker.desired or key not in tracker.desired.keys(mask):
            return "unwanted"
        return "retained" if tracker.count_retained() else "wanted"

    def count_leftovers(self) -> int:
        """Elements of bindings that a start found and nothing explains."""
        return len(self.tracker.leftovers)

    def element_for(self, flow: Flow) -> tuple[Mask, bytes] | None:
        """By which the kernel is known to pass the flow, whoever wants it there, or nobody."""
        return self.tracker.element_for(flow) if self._verifier.known else None

    def report(self) -> Stats:
        """The table as it is now, and what was done to it since the start."""
        tracker = self.tracker
        states = list(tracker.set_states())
        return replace(
            self.stats,
            table=self._table,
            not_in_kernel=tracker.count_missing(),
            surplus=tracker.count_surplus(),
            retained=tracker.count_retained(),
            elements_desired=tracker.desired.count(),
            masks=len(tracker.masks),
            sets=sum(state.exists for state in states),
            pending=len(tracker.retired) + sum(len(each.missing) + len(each.surplus) for each in states),
        )

    def unprogrammed(self) -> Mapping[str, str]:
        """Why, by id, registrations are not in the kernel in their present form: they are past a bound."""
        return self.tracker.desired.unprogrammed()

    def in_former_form(self) -> Sequence[str]:
        """Ids of those whose former form is in the kernel meanwhile."""
        return self.tracker.desired.in_former_form()

    def is_unprogrammed(self, wanted: Registration | BoundRegistration) -> bool:
        """Whether this one cannot be in the kernel, being past a bound."""
        return self.tracker.desired.is_unprogrammed(wanted)

    @property
    def refreshed(self) -> int:
        """Elements of bindings asserted again so far."""
        return self._element_timeout.refreshed

    # -- the task ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. The kernel keeps what it has."""
        await self._wait_for_allowlist()
        self._dataplane.watch(self._work.set)
        try:
            await self._keep()
        finally:
            self._dataplane.unwatch()

    async def _keep(self) -> None:
        retry_s = FIRST_RETRY_S
        while True:
            try:
                await self._converge()
                retry_s = FIRST_RETRY_S
                await self._idle()
            except KernelError as error:
                self.stats.failures += 1
                self.stats.last_error = str(error)
                self._verifier.forget()
                self._element_timeout.start_over()
                log.warning("reconcile.failed", error=str(error), retry_in_s=retry_s)
                await self._back_off(retry_s)
                retry_s = min(retry_s * 2, MAX_RETRY_S)

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
                self.stats.failures += 1
                self.stats.last_error = str(error)
                log.warning("reconcile.failed", error=str(error), retry_in_s=MAX_RETRY_S)
                await asyncio.sleep(HURRIED_RETRY_S)
                self.disarm(policy)

    async def _put_disarmed(self, policy: Policy) -> None:
        reading = await self._dataplane.read_table()
        if reading.tag is None or reading.tag.mode == policy.mode:
            return
        parsed = [each for item in reading.sets if item.regular and (each := parse_set_name(item.name)) is not None]
        # Of a set and its successor the older one is whole.
        hooks = {mask: set_name(mask, generation) for mask, generation in sorted(parsed, reverse=True)}
        epoch = policy.mark_layout.next_epoch(reading.tag.epoch)
        ruleset = compile_ruleset(self._table, policy, hooks, epoch)
        await self._dataplane.replace_rules(ruleset)
        self.tracker.tag = parse_tag(ruleset.tag)
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
        verifier = self._verifier
        while True:
            self.stats.turned_at = self._monotonic()
            self._work.clear()
            verifier.hear()
            if not verifier.known:
                await verifier.read()
            elif verifier.must_look:
                await verifier.look()
                continue
            elif self._monotonic() >= self._poll_at:
                self._poll_at = self._monotonic() + GENERATION_POLL_S
                await verifier.poll()
                continue
            policy = self._policy
            turn = self._element_timeout.is_first or not self._was_refresh
            self._was_refresh = False
            if turn and (refresh := self._element_timeout.next_piece(self._monotonic())) is not None:
                self._was_refresh = True
                await self._perform(Commit(refresh))
                continue
            step = next_step(self.tracker, policy, self._table, urgent_last=self._was_urgent)
            if step is not None:
                self._was_urgent = is_urgent(step)
                await self._perform(step)
                self._out_of_sync = True
                if isinstance(step, PutRules):
                    self._policy_put = policy
            elif (refresh := self._element_timeout.next_piece(self._monotonic())) is not None:
                await self._perform(Commit(refresh))
            elif verifier.verified and self._out_of_sync:
                self._out_of_sync = False
                self._say_past_bound()
                self._on_in_sync()
            elif (again := verifier.next_assertion()) is not None:
                await self._commit(again)
            elif not verifier.verified:
                await verifier.verify()
                self._out_of_sync = self._out_of_sync or verifier.verified
            else:
                return

    def _say_past_bound(self) -> None:
        """Which registrations are past a bound, when there are others than the last time."""
        desired = self.tracker.desired
        said = (desired.count_unprogrammed(), len(desired.in_former_form()))
        if said != self._said_past_bound:
            self._said_past_bound = said
            unprogrammed = desired.unprogrammed()
            ids = [*dict.fromkeys([*desired.in_former_form(), *unprogrammed])][:MAX_NAMED]
            log.warning("reconcile.past_bound", registrations=len(unprogrammed), in_former_form=said[1], ids=ids)

    async def _perform(self, step: Commit | PutRules) -> None:
        if isinstance(step, PutRules):
            await self._put_rules(step)
            return
        await self._commit(step)
        acknowledge(self.tracker, step)

    async def _commit(self, step: Commit) -> None:
        started = self._monotonic()
        transaction = step.transaction
        await self._dataplane.commit(transaction)
        adds_only = all(isinstance(each, AddElements) for each in transaction.operations)
        elements = transaction.count_elements()
        self._note(transaction.cause, elements, started, surely=not adds_only)
        if elements > LARGE_COMMIT:
            await asyncio.sleep(0)

    async def _put_rules(self, step: PutRules) -> None:
        """Put the rules and look at once how the kernel lists them, to know them from anybody's edit later."""
        started = self._monotonic()
        before = await self._dataplane.read_generation()
        try:
            await self._dataplane.replace_rules(step.ruleset)
        except KernelError:
            # Elements do not wait for rules that cannot be put: next time they go first.
            self.tracker.rules_seen = ""
            raise
        self._note("replace rules", 0, started, surely=True)
        acknowledge(self.tracker, step)
        self._verifier.verified = False
        reading = await self._dataplane.read_table()
        if before + 1 == reading.generation == await self._dataplane.read_generation():
            self.tracker.rules_seen = reading.rules

    def _note(self, cause: str, elements: int, started: float, *, surely: bool) -> None:
        """An acknowledgement came. `surely`: it changed something."""
        took_s = self._monotonic() - started
        self._verifier.committed(surely=surely)
        stats = self.stats
        stats.transactions += 1
        stats.elements += elements
        stats.commit_seconds += took_s
        stats.last_commit_at = format_time(self._clock())
        log.debug("reconcile.applied", cause=cause, elements=elements, duration_ms=round(took_s * 1000, 2))

    async def _idle(self) -> None:
        """Sleep until there is something to do or the generation is to be looked at."""
        pause_s = min(max(0.0, self._poll_at - self._monotonic()), GENERATION_POLL_S)
        try:
            async with asyncio.timeout(pause_s):
                await self._work.wait()
        except TimeoutError:
            self._poll_at = self._monotonic()
