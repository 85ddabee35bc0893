"""The registry as one state: each event gives what is to change of what is in force."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import inf

import msgspec
import pytest

from gatewayd.errors import SerialNotHeld, SourceTooLarge
from gatewayd.model import Registration, parse_address, parse_prefix
from gatewayd.model.registration import Changes, Slices, run_slices
from gatewayd.registry import state as state_module
from gatewayd.registry.budget import ElementBudget
from gatewayd.registry.guard import RemovalGuard
from gatewayd.registry.guard_record import GuardRecord
from gatewayd.registry.history import Step
from gatewayd.registry.state import ACCEPTED, LOCAL, WINDOWS, RegistryState
from gatewayd.settings.model import ProtectedCategory, RegistrySettings, ShrinkGuardSettings, SourceSettings
from gatewayd.settings.values import RemovalLimit
from gatewayd.sources.last_good import Restored
from gatewayd.sources.override_file import Filter, OverrideFile
from gatewayd.sources.update import FeedPosition, SourceUpdate

NOW = 1000.0


def registration(id: str, client: str = "203.0.113.0/28", **fields: object) -> Registration:
    return msgspec.structs.replace(Registration(id, "bank", "active", (parse_prefix(client),)), **fields)


def houses(count: int, first: int = 0) -> list[Registration]:
    return [registration(f"h{number}") for number in range(first, first + count)]


A, B, C = (registration(id, f"198.51.100.{16 * number}/28") for number, id in enumerate("abc"))


def settings_of(*names: str, max_removed: float = 0.5, min_removed: int = 2) -> RegistrySettings:
    guard = ShrinkGuardSettings(RemovalLimit(fraction=max_removed), min_removed=min_removed, protected=())
    return RegistrySettings(tuple(SourceSettings(name, f"file:/{name}") for name in names), shrink_guard=guard)


def make_state(*names: str, min_removed: int = 2) -> RegistryState:
    return RegistryState(settings_of(*names or ("national",), min_removed=min_removed))


def reading(name: str, serial: int, some: Iterable[Registration]) -> SourceUpdate:
    position = FeedPosition("session", serial, 900.0)
    return SourceUpdate(name, NOW, registrations={each.id: each for each in some}, position=position)


def run(slices: Slices[Changes | None]) -> tuple[list[str], list[str]] | None:
    """Ids that are upserted and withdrawn."""
    changes = run_slices(slices)
    return None if changes is None else (sorted(each.id for each in changes.upserts), sorted(changes.withdrawals))


def test_what_is_said_of_each_step_by_whom() -> None:
    state = make_state(min_removed=0)
    run(state.apply(reading("national", 1, houses(10)), NOW))
    assert state.history.since() == ()  # the first load is no news
    run(state.apply(reading("national", 2, [*houses(10), A]), NOW + 1))
    run(state.use_overrides((OverrideFile("x.yaml", (), (Filter("a", None, "why", inf, 3, "x.yaml"),)),), NOW + 2))
    (filtered,) = state.filtered_at(parse_address("198.51.100.1"))
    assert (filtered.id, filtered.filters) == ("a", state.overrides_in_force())
    run(state.apply(reading("national", 3, houses(3)), NOW + 3))
    held = state.held_removals()
    assert (held.total, held.serial) == (7, 3)
    assert held.items[0].cause == "national"
    assert held.items[0].since_s == NOW + 3
    run(state.apply(reading("national", 4, [*houses(3), registration("h9", "192.0.2.0/28")]), NOW + 4))
    with pytest.raises(SerialNotHeld):
        state.accept(9, NOW + 5)
    serial = state.held_removals().serial
    run(state.accept(serial, NOW + 5, "uid 1000"))
    gone = tuple(f"h{number}" for number in range(3, 9))
    assert state.history.since() == (
        Step(NOW + 1, "national", 2, "", ("a",), (), ()),
        Step(NOW + 2, LOCAL, int(NOW + 2), "", (), ("a",), ()),
        Step(NOW + 4, "national", 4, "", (), (), ("h9",)),
        Step(NOW + 5, ACCEPTED, serial, "uid 1000", (), gone, ()),
    )
    assert state.standing_of("h0").source == "national"


def test_a_window_that_closed_on_what_is_held_is_a_step_of_the_clock() -> None:
    state = make_state(min_removed=0)
    ending = [registration(f"h{number}", valid_until_s=NOW + 10) for number in range(5)]
    run(state.apply(reading("national", 1, ending), NOW))
    run(state.apply(reading("national", 2, ending[:1]), NOW + 1))
    assert state.held_removals().total == 4
    assert state.next_end() == NOW + 10
    assert run(state.end_windows(NOW + 9)) is None
    assert state.history.since() == ()
    run(state.end_windows(NOW + 10))
    (step,) = state.history.since()
    assert (step.cause, len(step.went)) == (WINDOWS, 4)


def test_a_protected_category_that_nobody_has_is_named_but_for_the_usual_ones() -> None:
    guard = ShrinkGuardSettings(
        protected=tuple(ProtectedCategory(each, RemovalLimit(count=0)) for each in ("embassy", "bank", "bnak"))
    )
    settings = RegistrySettings((SourceSettings("national", "file:/n"),), shrink_guard=guard)
    state = RegistryState(settings)
    assert state.unknown_protected() == ()  # nothing is known yet
    run(state.apply(reading("national", 1, [A]), NOW))
    assert state.unknown_protected() == ("bnak",)
    run(state.apply(reading("national", 2, [A, registration("x", category="bnak")]), NOW))
    assert state.unknown_protected() == ()


def test_a_reading_past_the_bound_is_refused_and_all_stays() -> None:
    budget = ElementBudget(lambda _: 1, 12)
    state = RegistryState(settings_of("national", min_removed=5), budget)
    with pytest.raises(SourceTooLarge):
        run(state.apply(reading("national", 1, houses(13)), NOW))
    assert state.unread() == ("national",)
    assert state.sources["national"].error is not None
    run(state.apply(reading("national", 2, houses(10)), NOW))
    assert state.sources["national"].error is None
    grown = replace(reading("national", 3, houses(15)), changes=Changes(tuple(houses(5, 10)), ()))
    with pytest.raises(SourceTooLarge):
        run(state.apply(grown, NOW))
    assert (state.sources["national"].serial, state.sources["national"].refused) == (2, 2)
    assert len(state.merged.registrations) == 10
    # The feed's next delta leads on from what was refused; what it comes to is what counts.
    gone = Changes((), ("h11", "h12", "h13", "h14"))
    after = replace(reading("national", 4, houses(11)), changes=gone)
    assert run(state.apply(after, NOW)) == (["h10"], [])
    assert len(state.merged.registrations) == 11


def test_a_last_good_past_the_bound_is_as_if_it_were_lost() -> None:
    state = RegistryState(settings_of("national"), ElementBudget(lambda _: 1, 5))
    found = {"national": Restored({each.id: each for each in houses(9)}, FeedPosition("s", 1), NOW)}
    assert run(state.restore(GuardRecord(RemovalGuard(), ("national",)), found, NOW)) is None
    assert (state.unread(), state.lost_files) == (("national",), True)
    assert "the largest is h0 with 1" in (state.sources["national"].error or "")


def test_what_is_held_and_comes_back_has_changed_and_is_not_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "SLICE", 1)
    state = make_state(min_removed=0)
    run(state.apply(reading("national", 1, houses(4)), NOW))
    run(state.apply(reading("national", 2, houses(1)), NOW + 1))
    assert state.held_removals().total == 3
    assert run(state.end_windows(NOW + 2)) is None
    back = registration("h3", valid_until_s=NOW + 1e9)
    run(state.apply(reading("national", 3, [*houses(1), back, A]), NOW + 3))
    (step,) = state.history.since()
    assert (step.came, step.changed) == (("a",), ("h3",))
