"""The reconciler: the one task that writes to the kernel, a transaction at a time, until it is as desired.

read → (receive → step → acknowledge)* → verified → sleep until a desire, a notification, the poll, or the timer
  ▲ any KernelError: count, wait, read again; nothing is assumed
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace

from gatewayd.compile.desired import DesiredSets, elements_of
from gatewayd.compile.near import NearClients
from gatewayd.errors import KernelError
from gatewayd.log import get_logger
from gatewayd.model.flow import Flow, Mode
from gatewayd.model.mask import Mask
from gatewayd.model.moment import format_time
from gatewayd.model.policy import Policy
from gatewayd.model.prefix import Prefix
from gatewayd.model.registration import BoundRegistration, Registration
from gatewayd.model.transaction import TableReading
from gatewayd.reconcile.dataplane import Dataplane, Stats, found_in
from gatewayd.reconcile.findings import Explains, Ports, Presence
from gatewayd.reconcile.steps import ElementTimeout, PutRules, is_urgent, next_step
from gatewayd.reconcile.tracker import ELEMENT_TIMEOUT_S, SetTracker
from gatewayd.reconcile.verify import Verifier
from gatewayd.reconcile.writer import MAX_NAMED, Ledger, Writer

log = get_logger(__name__)

GENERATION_POLL_S = 0.2  # between questions for commits that nothing reported; one message of 20 bytes
FIRST_RETRY_S, MAX_RETRY_S = 0.05, 10.0
HURRIED_RETRY_S = 1.0
"""Between attempts that fail while desires keep changing."""
STUCK_AFTER_S = 60.0
"""Longer than any answer is waited for."""
MAX_RELEASED = 4096
"""Retained elements let go in one turn of the loop; elements for the log taken in."""


class Reconciler:
    """Holds the desires and the tracker. Desires are for the daemon's own turn of the loop."""

    def __init__(
        self,
        dataplane: Dataplane,
        table: str,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        verify_every_s: float = 300.0,
        desired: DesiredSets | None = None,
        near: NearClients | None = None,
        element_timeout_s: int = ELEMENT_TIMEOUT_S,
        spread: Callable[[], float] = lambda: 0.5,
        on_in_sync: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._dataplane = dataplane
        self._table = table
        self._monotonic = monotonic
        self._on_in_sync = on_in_sync
        self._policy: Policy | None = None
        self._disarmed: Policy | None = None
        self._work = asyncio.Event()
        self._ready_to_write = asyncio.Event()
        self._out_of_sync = True
        self._was_urgent = False
        """The last step was a late admission: the next is something else, if there is anything else to do."""
        self._was_refresh = False
        """So was it with bindings asserted again: neither these nor the rest waits for ever for the other."""
        self._poll_at = monotonic()
        self._desired = desired or DesiredSets()
        self._near = NearClients() if near is None else near
        self.tracker = SetTracker(self._desired, element_timeout_s)
        self._findings = self.tracker.findings
        self._ledger = Ledger(clock, monotonic)
        self._element_timeout = ElementTimeout(self.tracker, spread=spread)
        self._writer = Writer(dataplane, table, self.tracker, self._ledger)
        self._verifier = Verifier(dataplane, self.tracker, self._ledger, verify_every_s=verify_every_s)

    # -- before the start ----------------------------------------------------------------------------------

    def found(self, reading: TableReading) -> None:
        """The table as it was found: its masks are kept before anything new gets one."""
        self.tracker.reserve(reading)
        self.stats.found = found_in(reading)

    def protect(self, categories: Iterable[str]) -> None:
        """Registrations of these find room where others find none."""
        self._desired.protect(categories)

    def retain(self) -> None:
        """Elements that are found in the kernel at the start stay, desired or not, until `release_in_slices`."""
        self._findings.retain()

    def leave_unless(self, explains: Explains) -> None:
        """Elements of bindings that a start finds, and nothing explains, stay until their time is over."""
        self._findings.leave_unless(explains)

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
        """Have sets and look-ups for masks to come, so that the first element of one waits for no rules."""
        self.tracker.prepare(masks)
        self._work.set()

    def want_near(self) -> None:
        """Prefixes that clients lie in came or went."""
        self._work.set()

    def want_policy(self, policy: Policy) -> None:
        """Of the rules. The first call says that the allowlist is complete: only then is the kernel read and
        written."""
        if policy != self._policy:
            if self._policy is None:
                self._ledger.turn()
            self._policy = policy
            self._ready_to_write.set()
            self._work.set()

    def disarm(self, policy: Policy) -> None:
        """Put the rules of mode observe before the allowlist is complete: sets and elements stay as they are."""
        self._disarmed = policy
        self._work.set()

    def prioritise(self, admitted: Iterable[Registration | BoundRegistration]) -> bool:
        """Late admission: put the elements of these ahead of all bulk work; whether any was missing."""
        count = sum(self.tracker.prioritise(elements_of(each)) for each in admitted)
        if count:
            self._ledger.admit_late()
        if self.tracker.urgent:
            self._work.set()
        return bool(count)

    def let_go(self, prefix: Prefix, ports: Ports) -> None:
        """Of elements that were left: it is known now who has the address, or that no subscriber has."""
        if self._findings.leftovers and self._findings.leftovers.drop_at(prefix, ports):
            self._work.set()

    def sort_retained_in_slices(self, closed: Iterable[Registration]) -> Generator[None, None, tuple[int, int]]:
        """How many retained elements nothing explains, of how many found; these are released last. `closed`:
        registrations whose windows have closed, which explain theirs."""
        explaining = closed if self._findings.count_retained() else ()
        explained = {element for each in explaining for element in elements_of(each)}
        return (yield from self._findings.sort_retained_in_slices(explained)), self._findings.count()

    def release_in_slices(self, keeping: int = 0) -> Generator[None, None, None]:
        """Retained elements go but for so many, some of them between two yields."""
        released = 0
        while count := self.tracker.release(min(MAX_RELEASED, self._findings.count_retained() - keeping)):
            released += count
            self._work.set()
            yield
        if released:
            log.info("reconcile.released", elements=released)

    def verify_every(self, seconds: float) -> None:
        """Another period of the timer, from now on."""
        self._verifier.verify_every(seconds)

    # -- facts ---------------------------------------------------------------------------------------------

    @property
    def stats(self) -> Stats:
        return self._ledger.stats

    @property
    def refreshed(self) -> int:
        """Elements of bindings asserted again so far."""
        return self._element_timeout.refreshed

    @property
    def policy_in_force(self) -> Policy | None:
        """Of the rules in the kernel, once we have put them there."""
        return self._writer.policy

    @property
    def has_allowlist(self) -> bool:
        """The first `want_policy` was: the registry in force is known, all of it."""
        return self._policy is not None

    @property
    def mode_in_force(self) -> Mode:
        """Of the rules in the kernel; without any of ours nothing is blocked."""
        policy, tag = self._writer.policy, self.tracker.rules.tag
        if policy is not None:
            return policy.mode
        return tag.mode if tag is not None else "observe"

    @property
    def epoch(self) -> int:
        """The epoch of the rules in force; 0 if none are known."""
        tag = self.tracker.rules.tag
        return tag.epoch if tag is not None else 0

    def unready(self) -> str | None:
        """None when the kernel was read back and is as desired; else the reason."""
        if self._policy is None:
            return "no allowlist yet"
        if not self._verifier.known:
            last_error = self.stats.last_error
            return f"kernel not read: {last_error}" if last_error else "kernel not read yet"
        missing = self.tracker.count_missing()
        if missing:
            return f"{missing} elements are not in the kernel yet"
        if self.tracker.rules.text is None:
            return "rules are not in the kernel yet"
        if not self._verifier.read_back:
            return "the kernel has not been read back yet"
        ids = self.in_former_form()
        if not ids:
            return None
        named = ", ".join(ids[:MAX_NAMED]) + (", …" if len(ids) > MAX_NAMED else "")
        return f"{len(ids)} registrations are in the kernel in their former form alone, past a bound: {named}"

    def stuck(self) -> str | None:
        """None while the task gets on; else for how long it has not. Feeds the watchdog."""
        still_for_s = self._ledger.still_for_s()
        if self._policy is None or still_for_s < STUCK_AFTER_S:
            return None
        return f"the reconciler has not moved for {still_for_s:.0f} s"

    def unprogrammed(self) -> dict[str, str]:
        """Ids of the registrations past a bound, with the reason; not to be changed by the caller."""
        return self._desired.unprogrammed()

    def is_unprogrammed(self, wanted: Registration | BoundRegistration) -> bool:
        """Whether this very registration, or an equal one at an address, is past a bound."""
        return self._desired.is_unprogrammed(wanted)

    def in_former_form(self) -> list[str]:
        """Ids of the registrations whose present form is past a bound and a former one is in force."""
        return self._desired.in_former_form()

    def report(self) -> Stats:
        """The table as it is now, and the work on it since the start."""
        tracker = self.tracker
        states = list(tracker.set_states())
        return replace(
            self.stats,
            table=self._table,
            not_in_kernel=tracker.count_missing(),
            surplus=tracker.count_surplus(),
            retained=self._findings.count_retained(),
            elements_desired=self._desired.count(),
            masks=len(tracker.masks),
            sets=sum(state.exists for state in states),
            last_commit_at=format_time(self._ledger.committed_at),
            pending=len(tracker.retired) + sum(len(each.missing) + len(each.surplus) for each in states),
        )

    def count_left(self) -> int:
        """Elements of bindings that a start found, nothing explains, and that go by themselves."""
        return len(self._findings.leftovers)

    def holds(self, wanted: Registration | BoundRegistration) -> bool:
        """Whether every element of it is known to be in the kernel, looked into by the rules."""
        return self._verifier.known and all(self.tracker.holds(*element) for element in elements_of(wanted))

    def element_for(self, flow: Flow) -> tuple[Mask, bytes] | None:
        """By which the kernel is known to pass the flow, desired or not."""
        return self.tracker.element_for(flow) if self._verifier.known else None

    def presence_of(self, mask: Mask, key: bytes) -> Presence:
        """Why an element that is in the kernel is there. While any are retained, it may be one of these."""
        if key in self.tracker.left(mask):
            return "left"
        if mask not in self._desired or key not in self._desired.keys(mask):
            return "surplus"
        return "retained" if self._findings.count_retained() else "desired"

    # -- the task ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. The kernel keeps its content."""
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
                self._ledger.fail(error, retry_s)
                await self._verifier.fail()
                self._element_timeout.start_over()
                await self._back_off(retry_s)
                retry_s = min(retry_s * 2, MAX_RETRY_S)

    async def _wait_for_allowlist(self) -> None:
        """Until `want_policy`. Before that, only an armed mode is taken off when told to."""
        while not self._ready_to_write.is_set():
            await self._work.wait()
            self._work.clear()
            policy, self._disarmed = self._disarmed, None
            if policy is None or self._ready_to_write.is_set():
                continue
            try:
                await self._writer.disarm(policy)
            except KernelError as error:
                self._ledger.fail(error, MAX_RETRY_S)
                await asyncio.sleep(HURRIED_RETRY_S)
                self.disarm(policy)

    async def _back_off(self, retry_s: float) -> None:
        """Wait, but not for long when there is something new to do: that may succeed."""
        at_least_s = min(retry_s, HURRIED_RETRY_S)
        await asyncio.sleep(at_least_s)
        await self._wait_for_work(retry_s - at_least_s)

    async def _wait_for_work(self, timeout_s: float) -> bool:
        """Whether there is some."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._work.wait()
        except TimeoutError:
            return False
        return True

    async def _converge(self) -> None:
        """Steps until there is none left to take; then one slice of the timer's work at a time."""
        verifier = self._verifier
        while True:
            self._ledger.turn()
            self._work.clear()
            verifier.receive()
            self.tracker.take_near(*self._near.take(MAX_RELEASED))
            while self._near.has_pending:
                await asyncio.sleep(0)
                self.tracker.take_near(*self._near.take(MAX_RELEASED))
            if not verifier.known:
                await verifier.read()
            elif verifier.must_look:
                await verifier.look()
                continue
            elif self._monotonic() >= self._poll_at:
                self._poll_at = self._monotonic() + GENERATION_POLL_S
                await verifier.poll()
                continue
            if await self._take_step():
                continue
            if verifier.verified and self._out_of_sync:
                self._out_of_sync = False
                self._ledger.say_past_bound(self._desired)
                self._on_in_sync(self.epoch)
            elif (again := verifier.next_assertion()) is not None:
                await self._writer.commit(again.transaction)
            elif not verifier.verified:
                await verifier.verify()
                self._out_of_sync = self._out_of_sync or verifier.verified
            else:
                return

    async def _take_step(self) -> bool:
        """Whether there was one to take."""
        policy, timeout = self._policy, self._element_timeout
        turn = timeout.is_first or not self._was_refresh
        self._was_refresh = False
        if turn and (refresh := timeout.next_piece(self._monotonic())) is not None:
            self._was_refresh = True
            await self._writer.take(refresh)
            return True
        step = next_step(self.tracker, policy, self._table, urgent_last=self._was_urgent)
        if step is not None:
            self._was_urgent = is_urgent(step)
            await self._writer.take(step, policy)
            self._out_of_sync = True
            if isinstance(step, PutRules):
                self._verifier.rules_replaced()
            return True
        refresh = timeout.next_piece(self._monotonic())
        if refresh is not None:
            await self._writer.take(refresh)
        return refresh is not None

    async def _idle(self) -> None:
        """Sleep until there is something to do or the generation is to be looked at."""
        pause_s = min(max(0.0, self._poll_at - self._monotonic()), GENERATION_POLL_S)
        if not await self._wait_for_work(pause_s):
            self._poll_at = self._monotonic()
