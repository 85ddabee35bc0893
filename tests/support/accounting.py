"""Accounting events by the dozen, and a table of sessions that takes them.

    table = Table()
    table.start("s1", ALI, "10.0.0.1", at=10)
    assert table.bound() == {"10.0.0.1/32": ALI}

Every subscriber is registered unless it is said otherwise. Times are small: event time, arrival and `now` are the
same unless `now` is given.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from gatewayd.allowlist import BindingTable
from gatewayd.model.accounting import AccountingEvent, AccountingKind
from gatewayd.model.prefix import Prefix, parse_prefix
from gatewayd.model.registration import Binding, BindingChange
from gatewayd.subscribers.journal_rows import Row
from gatewayd.subscribers.sessions.session import Outcome, Terms
from gatewayd.subscribers.sessions.sessions import Sessions

ALI, BANO, CHAND = b"A" * 32, b"B" * 32, b"C" * 32
AT_ONCE = Terms(restart_grace_s=0)


class NoJitter:
    """The least of what is asked for."""

    def uniform(self, a: float, b: float, /) -> float:
        return a


class Everybody:
    def __contains__(self, subscriber: object) -> bool:
        return True


def event(
    kind: AccountingKind,
    session: str = "",
    subscriber: bytes | None = None,
    *addresses: str,
    at: float,
    nas: str = "bng1",
    received: float | None = None,
    **more: Any,
) -> AccountingEvent:
    more.setdefault("is_final_stop", kind == "stop")
    return AccountingEvent(
        kind=kind,
        nas=nas,
        session=session,
        subscriber=subscriber,
        addresses=tuple(map(parse_prefix, addresses)),
        at_s=float(at),
        received_at_s=float(at if received is None else received),
        **more,
    )


def confirmed(sessions: Sessions, bindings: BindingTable) -> list[Binding]:
    """Those in force that a session holds, as they are now confirmed."""
    found = [sessions.confirmed(each) for each in bindings]
    return [each for each in found if each is not None]


class Table:
    """`sessions`, and the bindings that its changes add up to. Fails where a change does not fit those before."""

    def __init__(self, registered: Container[bytes] | None = None, terms: Terms = AT_ONCE, **more: Any) -> None:
        self.bindings = BindingTable()
        self.sessions = Sessions(
            Everybody() if registered is None else registered,
            self.bindings,
            randomness=NoJitter(),
            terms_of=lambda _: terms,
            **more,
        )
        self.changes: list[BindingChange] = []
        self._rows: list[Row] = []
        self._bound: set[tuple[bytes, Prefix, tuple[int, int] | None]] = set()

    def take(self, event: AccountingEvent, now: float | None = None) -> Outcome:
        return self.sessions.receive(event, event.received_at_s if now is None else now)

    def start(self, *arguments: Any, now: float | None = None, **more: Any) -> None:
        self.take(event("start", *arguments, **more), now)

    def interim(self, *arguments: Any, now: float | None = None, **more: Any) -> None:
        self.take(event("interim", *arguments, **more), now)

    def stop(self, *arguments: Any, now: float | None = None, **more: Any) -> None:
        self.take(event("stop", *arguments, **more), now)

    def on(self, *, now: float | None = None, **more: Any) -> None:
        self.take(event("on", **more), now)

    def off(self, *, now: float | None = None, **more: Any) -> None:
        self.take(event("off", **more), now)

    def wait_until(self, now: float) -> int:
        """Let the timer run as a loop would; how many calls it took."""
        calls = 0
        while (due_s := self.sessions.get_timer()) is not None and due_s <= now:
            self.sessions.handle_timer(now)
            calls += 1
            assert calls < 10_000
        return calls

    def next_changes(self) -> list[str]:
        """As text: `+10.0.0.1/32`, `-10.0.0.2/32`."""
        self.changes, rows = self.sessions.next_changes()
        assert len({row.key for row in rows}) == len(rows), "a row was given twice"
        self._rows += rows
        for change in self.changes:
            key = (change.binding.subscriber, change.binding.prefix, change.binding.ports)
            if change.kind == "added":
                assert key not in self._bound
                self._bound.add(key)
            else:
                self._bound.remove(key)
        kinds = [change.kind for change in self.changes]
        assert kinds == sorted(kinds), "make before break"
        return [("+" if change.kind == "added" else "-") + str(change.binding.prefix) for change in self.changes]

    def next_rows(self) -> list[Row]:
        """For the journal, of all changes since the last call; each key once, the last."""
        self.next_changes()
        rows, self._rows = {row.key: row for row in self._rows}, []
        return list(rows.values())

    def confirmed(self) -> list[Binding]:
        """Those in force that a session holds, as they are now confirmed."""
        return confirmed(self.sessions, self.bindings)

    def bound(self) -> dict[str, bytes]:
        """Prefix → subscriber, of whole addresses; after what is due at once."""
        self.next_changes()
        for held in (self.bindings, self.confirmed()):
            assert {(each.subscriber, each.prefix, each.ports) for each in held} == self._bound
        whole = [(str(prefix), subscriber) for subscriber, prefix, ports in self._bound if ports is None]
        assert len(dict(whole)) == len(whole), "an address belongs to two"
        return dict(whole)

    def blocks(self) -> dict[tuple[str, int, int], bytes]:
        """(Prefix, first, last port) → subscriber."""
        self.next_changes()
        return {(str(prefix), *ports): subscriber for subscriber, prefix, ports in self._bound if ports}
