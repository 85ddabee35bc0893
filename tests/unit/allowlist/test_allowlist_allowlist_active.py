"""What each change of the active set adds, removes and names; a dumb version says what is in force after all."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

from gatewayd.allowlist.allowlist import NOTHING, ActiveSet, Desired, Wanted
from gatewayd.model import Binding, BoundRegistration, Registration, parse_prefix
from gatewayd.model.moment import Moment

ANNA, BEN = b"a" * 32, b"b" * 32
HOME = parse_prefix("100.64.0.1/32")


def registered(id: str, subscriber: bytes | None = None, **fields: Any) -> Registration:
    clients = () if subscriber else (parse_prefix("39.32.0.0/28"),)
    return Registration(id, "bpo", fields.pop("status", "active"), clients, subscriber, **fields)


def bound(subscriber: bytes, address: str = "100.64.0.1") -> Binding:
    prefix = parse_prefix(f"{address}/32")
    return Binding(subscriber=subscriber, prefix=prefix, since_s=1.0, confirmed_s=1.0, nas="bng-1", session="s")


def bind(active: ActiveSet, binding: Binding) -> tuple[BoundRegistration, ...]:
    """As the table of sessions does: into the table of bindings, then said."""
    active.allowlist.bindings.put(binding)
    return active.bind(binding)


def unbind(active: ActiveSet, binding: Binding) -> tuple[BoundRegistration, ...]:
    found = active.allowlist.bindings.get(binding.subscriber, binding.prefix, binding.ports)
    assert found is not None
    active.allowlist.bindings.remove(found)
    return active.unbind(binding)


def test_an_upsert_adds_and_its_successor_adds_before_it_removes() -> None:
    active = ActiveSet()
    first, second = registered("R"), registered("R", valid_until_s=900)
    assert active.upsert(first, 100) == Desired((first,))
    assert active.upsert(second, 100) == Desired((second,), (first,))
    assert active.count() == 1
    assert active.withdraw("R") == Desired((), (second,))
    assert active.withdraw("R") == NOTHING
    assert active.count() == 0


def test_outside_its_window_a_registration_is_held_and_adds_nothing() -> None:
    active = ActiveSet()
    early = registered("R", valid_from_s=200, valid_until_s=300)
    assert active.upsert(early, 100) == NOTHING
    assert (active.count(), len(active.allowlist)) == (0, 1)
    assert active.closed(100) == []
    assert active.refresh("R", 150) == NOTHING
    assert active.due_in_s(150) == 50
    assert active.due(200) == ["R"]
    assert active.refresh("R", 200) == Desired((early,))
    assert active.refresh("R", 250) == NOTHING
    assert active.refresh("R", 300) == Desired((), (early,))
    assert active.closed(300) == [early]
    assert active.withdraw("R") == NOTHING
    assert active.refresh("R", 300) == NOTHING


def test_a_registration_that_is_suspended_is_removed_and_is_not_closed() -> None:
    active = ActiveSet()
    first, second = registered("R"), registered("R", status="suspended")
    active.upsert(first, 100)
    assert active.upsert(second, 100) == Desired((), (first,))
    assert active.closed(100) == []
    assert active.upsert(first, 100) == Desired((first,))


def test_a_time_that_went_back_is_looked_at_again() -> None:
    active = ActiveSet()
    late = registered("R", valid_from_s=200, valid_until_s=300)
    active.upsert(late, 300)
    assert active.next_change() is None
    active.watch_all(250)
    assert active.next_change() == 300
    assert active.refresh("R", 250) == Desired((late,))
    assert active.upsert(late, Moment(150, 350)).add == (late,)


def test_a_binding_adds_what_it_gives_to_registrations_that_are_active() -> None:
    active = ActiveSet()
    mine, later = registered("M", ANNA), registered("L", ANNA, valid_from_s=500)
    assert active.upsert(mine, 100) == Desired((mine,), (), (ANNA,))
    assert active.upsert(later, 100) == NOTHING
    granted = BoundRegistration(mine, HOME, None)
    assert bind(active, bound(ANNA)) == (granted,)
    assert bind(active, bound(BEN, "100.64.0.2")) == ()
    assert active.refresh("L", 500) == Desired((later, BoundRegistration(later, HOME, None)))
    assert active.withdraw("L").subscribers == ()
    assert active.upsert(registered("M", BEN), 100).remove == (mine, granted)
    assert active.upsert(mine, 100).subscribers == (BEN, ANNA)
    assert unbind(active, bound(ANNA)) == (granted,)
    assert active.withdraw("M") == Desired((), (mine,), (ANNA,))


def test_whatever_comes_in_whatever_order_what_was_added_and_not_removed_is_what_is_active() -> None:
    for seed in range(40):
        chance, active, force = random.Random(seed), ActiveSet(), Counter[Wanted]()
        bindings: set[tuple[bytes, str]] = set()
        now = 0
        for _ in range(120):
            id, subscriber = f"R{chance.randrange(4)}", chance.choice((ANNA, BEN))
            place = subscriber, f"100.64.0.{chance.randrange(3)}"
            match chance.randrange(6):
                case 0 | 1:
                    begin = now + chance.randrange(-20, 20)
                    new = registered(
                        id,
                        chance.choice((None, subscriber)),
                        status=chance.choice(("active", "active", "suspended")),
                        valid_from_s=begin,
                        valid_until_s=begin + chance.randrange(1, 30),
                    )
                    perform(force, active.upsert(new, now))
                case 2:
                    perform(force, active.withdraw(id))
                case 3 if place not in bindings:
                    bindings.add(place)
                    perform(force, Desired(bind(active, bound(*place))))
                case 4 if place in bindings:
                    bindings.remove(place)
                    perform(force, Desired((), unbind(active, bound(*place))))
                case _:
                    now += chance.randrange(10)
            for due in active.due(now):
                perform(force, active.refresh(due, now))
            assert +force == Counter(in_force(active, bindings, now))
            assert not -force


def perform(force: Counter[Wanted], desired: Desired) -> None:
    force.update(desired.add)
    force.subtract(desired.remove)


def in_force(active: ActiveSet, bindings: Iterable[tuple[bytes, str]], now: float) -> Iterable[Wanted]:
    for each in active.allowlist:
        if each.is_effective(now):
            yield each
            for subscriber, address in bindings:
                if each.subscriber == subscriber:
                    yield BoundRegistration(each, parse_prefix(f"{address}/32"), None)
