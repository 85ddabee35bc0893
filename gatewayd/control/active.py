"""What is effective now, told to the kernel's side: registrations in their windows, and grants at bound addresses.

Registrations and bindings that overlap do not disturb each other: what any of them lets pass, passes. So one record
costs what one record costs, however many bindings lie within its addresses.

Every change is one turn without await, and additions come before removals, so an element that both an old and a new
form want never leaves the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gatewayd.allowlist import Allowlist, Schedule
from gatewayd.compile import compile_bound
from gatewayd.log import get_logger
from gatewayd.model.binding import Binding, BindingChange, BoundRegistration
from gatewayd.model.prefix import Prefix
from gatewayd.model.registration import Registration
from gatewayd.reconcile import Reconciler
from gatewayd.reconcile.connections import ConnectionScanner

log = get_logger(__name__)

_USUAL_ADDRESSES = (Prefix(bytes(4), 32), Prefix(bytes(16), 64))
"""What a phone gets: an IPv4 address, an IPv6 /64 (3GPP TS 23.401 §5.3.1.2)."""


class ActiveSet:
    """Owns the allowlist and the schedule. `prepares`: have sets ready for addresses that subscribers may get.

    `on_subscriber`: told of a subscriber whom a registration names now, or no longer.
    """

    def __init__(
        self, allowlist: Allowlist, reconciler: Reconciler, scanner: ConnectionScanner, *, prepares: bool
    ) -> None:
        self.allowlist = allowlist
        self.schedule = Schedule()
        self.on_subscriber: Callable[[bytes], None] = lambda _: None
        self._reconciler = reconciler
        self._scanner = scanner
        self._prepares = prepares
        self._dormant: set[str] = set()

    def count(self) -> int:
        """Registrations that are effective."""
        return len(self.allowlist) - len(self._dormant)

    def closed(self, now: float) -> list[Registration]:
        """Registrations whose window has closed."""
        found = [self.allowlist.get(id) for id in self._dormant]
        return [
            each for each in found if each is not None and each.status == "active" and each.valid_until_s <= now
        ]

    def upsert(self, registration: Registration, now: float) -> None:
        old = self.allowlist.upsert(registration)
        was_programmed = old is not None and registration.id not in self._dormant
        self.schedule.watch(registration, now)
        if registration.is_effective(now):
            self._dormant.discard(registration.id)
            self._program(registration)
        else:
            self._dormant.add(registration.id)
        if old is not None and was_programmed:
            self._unprogram(old)
        self._tell_subscribers(old, registration)

    def withdraw(self, registration_id: str) -> None:
        old = self.allowlist.withdraw(registration_id)
        self.schedule.forget(registration_id)
        if registration_id in self._dormant:
            self._dormant.remove(registration_id)
        elif old is not None:
            self._unprogram(old)
        self._tell_subscribers(old, None)

    def refresh(self, registration_id: str, now: float) -> None:
        """A window may have opened or closed."""
        registration = self.allowlist.get(registration_id)
        if registration is None:
            return
        self.schedule.watch(registration, now)
        is_dormant = registration_id in self._dormant
        if registration.is_effective(now) and is_dormant:
            self._dormant.remove(registration_id)
            self._program(registration)
            log.info("window.opened", id=registration_id)
        elif not registration.is_effective(now) and not is_dormant:
            self._dormant.add(registration_id)
            self._unprogram(registration)
            log.info("window.closed", id=registration_id)

    def leave_unless(self, explains: Callable[[Prefix, tuple[int, int] | None], bool]) -> None:
        """What a start finds in the kernel of bindings, and this does not know of, stays until its time is over."""
        self._reconciler.leave_unless(explains)

    @property
    def left(self) -> int:
        """Elements that are left so."""
        return self._reconciler.count_left()

    def hear(self, prefixes: Iterable[Prefix]) -> None:
        """The addresses in an accounting record, whosever they are."""
        self._scanner.grace.hear(prefixes)

    def let_go(self, prefix: Prefix, ports: tuple[int, int] | None) -> None:
        """Accounting says of a place who has it, or that nobody has it any more."""
        self._reconciler.let_go(prefix, ports)

    def take(self, changes: Iterable[BindingChange]) -> None:
        """Bindings came and went; those that came are first."""
        for change in changes:
            if change.kind == "added":
                self._bind(change.binding)
            else:
                self._unbind(change.binding)

    def _bind(self, binding: Binding) -> None:
        for bound in self.allowlist.bound_registrations_at(binding):
            if bound.registration.id not in self._dormant:
                self._reconciler.add(bound)
                self._scanner.note_bound(binding.prefix)

    def _unbind(self, binding: Binding) -> None:
        for bound in self.allowlist.bound_registrations_at(binding):
            if bound.registration.id not in self._dormant:
                self._reconciler.remove(bound)
                self._scanner.note_unbound()

    def _program(self, registration: Registration) -> None:
        self._reconciler.add(registration)
        for bound in self.allowlist.bound_registrations_of(registration):
            self._reconciler.add(bound)
        if self._prepares and registration.subscriber is not None:
            for prefix in _USUAL_ADDRESSES:
                self._reconciler.prepare(mask for mask, _ in compile_bound(BoundRegistration(registration, prefix)))
        self._scanner.note_added()

    def _unprogram(self, registration: Registration) -> None:
        """Called once it is effective no more, or replaced."""
        self._reconciler.remove(registration)
        for bound in self.allowlist.bound_registrations_of(registration):
            self._reconciler.remove(bound)
        self._scanner.note_removed()

    def _tell_subscribers(self, old: Registration | None, new: Registration | None) -> None:
        for subscriber in self.allowlist.subscribers_changed(old, new):
            self.on_subscriber(subscriber)
