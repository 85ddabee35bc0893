"""One event after another on a registry in force: readings, deltas, other sources, other local files, settings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gatewayd.errors import SourceUnreadable
from gatewayd.model import Registration
from gatewayd.model.registration import Changes
from gatewayd.registry import state as state_module
from gatewayd.registry.state import LOCAL, SOURCES
from gatewayd.settings import RemovalLimit, ShrinkGuardSettings
from gatewayd.sources.update import SourceUpdate
from tests.support.guarding import BANK, BANKS_AT_ALL, NOW, OTHERS, InForce, overrides, registration, registry

BANK_2 = registration("b2", "bank", "203.0.113.32/28")
WIDER = registration("b", "bank", "203.0.113.0/24")


def loaded(*sources: str) -> InForce:
    """A bank and others in the first source, nothing in those after it."""
    it = InForce(*sources)
    for name in sources[1:]:
        it.read(name)
    it.read(sources[0], BANK, *OTHERS)
    assert it.state.is_loaded
    return it


# -- updates of a source -------------------------------------------------------------------------------------


def test_an_update_without_content_changes_nothing_that_is_in_force() -> None:
    it = loaded("a")
    failed = SourceUpdate("a", NOW + 1, SourceUnreadable("a", "gone"))
    for update in (failed, SourceUpdate("a", NOW + 2), replace(failed, source="stranger")):
        assert it.take(it.state.apply(update, NOW)) is None
    assert it.state.sources.keys() == {"a"}
    assert (it.state.sources["a"].confirmed_at, it.state.sources["a"].error) == (NOW + 2, None)
    assert it.state.sources["a"].registrations == 11


def test_the_same_reading_again_is_no_change() -> None:
    it = loaded("a")
    version = it.state.version()
    assert it.read("a", BANK, *OTHERS) is None
    assert it.state.version() == version


def test_a_delta_is_what_it_names() -> None:
    it = loaded("a")
    assert it.follow("a", WIDER, BANK_2, withdraw=["0"]) == Changes((WIDER, BANK_2), ("0",))
    assert it.in_force == registry(WIDER, BANK_2, *OTHERS[1:])
    assert len(it.state.merged.registrations) == 11
    assert it.follow("a", WIDER) is None


def test_of_two_sources_the_earlier_wins_and_what_it_gives_up_falls_to_the_later() -> None:
    it = loaded("a", "b")
    assert it.follow("b", WIDER) is None  # "a" has the id
    it.read("b", WIDER, OTHERS[0])
    assert it.state.merged.conflicts == {"b": 1}
    assert it.follow("a", withdraw=["b"]) == Changes((WIDER,), ())
    assert it.in_force == registry(WIDER, *OTHERS)
    assert len(it.state.merged.registrations) == 11
    assert it.follow("b", withdraw=["0"]) is None  # "a" has it still
    assert it.follow("b", BANK_2, withdraw=["b"]) == Changes((BANK_2,), ())
    assert it.held() == {"b": 1}


def test_what_comes_back_into_a_delta_of_what_is_held_is_no_news() -> None:
    it = loaded("a")
    it.follow("a", withdraw=["b"])
    assert (it.held(), it.in_force["b"]) == ({"a": 1}, BANK)
    it.follow("a", BANK)
    assert (it.held(), it.in_force["b"]) == ({}, BANK)
    assert [step.came for step in it.state.history.since()] == []


def test_long_work_yields_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    it = loaded("a")
    monkeypatch.setattr(state_module, "SLICE", 4)
    more = [registration(f"n{number}") for number in range(12)]
    after = {**it.last_good["a"].registrations, **registry(*more)}
    delta = SourceUpdate("a", NOW, registrations=after, changes=Changes(tuple(more), ()))
    assert len(list(it.state.apply(delta, NOW))) == 2 * (12 // 4)  # before it, and after
    it.last_good["a"] = replace(it.last_good["a"], registrations=after)
    it.follow("a", withdraw=["b"])
    fewer = Changes(tuple(replace_client(each.id) for each in more), ())
    held = SourceUpdate("a", NOW, registrations={**after, **registry(*fewer.upserts)}, changes=fewer)
    assert len(list(it.state.apply(held, NOW))) == 3 * (12 // 4)  # is it held? is asked of each too


def replace_client(id: str) -> Registration:
    return registration(id, "bpo", "198.51.100.0/28")


# -- other sources -------------------------------------------------------------------------------------------


def test_a_source_that_a_reload_brings_withdraws_nothing_before_it_was_read() -> None:
    it = loaded("a")
    assert it.take(it.state.use_sources(["new"], NOW)) is None
    assert (it.state.unread(), it.state.is_known()) == (("new",), False)
    assert it.in_force == registry(BANK, *OTHERS)
    assert it.state.record().sources == ("new", "a")
    changes = it.read("new", BANK, *OTHERS[1:])
    assert changes == Changes((), ("0",))
    assert it.state.record().sources == ("new",)


def test_while_a_source_is_unread_the_others_are_followed() -> None:
    it = loaded("a", "b")
    it.take(it.state.use_sources(["a", "new", "b"], NOW))
    assert it.read("b", BANK_2) == Changes((BANK_2,), ())
    assert it.follow("a", WIDER) == Changes((WIDER,), ())
    it.read("new", registration("b2", "bank", "203.0.113.32/27"))
    assert str(it.in_force["b2"].clients[0]) == "203.0.113.32/27"
    assert len(it.in_force) == 12


def test_a_source_that_a_reload_takes_out_is_held_with_all_it_had() -> None:
    it = loaded("a", "b")
    it.read("b", BANK_2)
    assert it.take(it.state.use_sources(["a"], NOW)) is None
    assert it.held() == {SOURCES: 1}
    assert it.in_force == registry(BANK, BANK_2, *OTHERS)
    assert it.read("a", BANK, *OTHERS) is None
    assert it.held() == {SOURCES: 1}


# -- local files, and settings -------------------------------------------------------------------------------


def test_a_filter_is_an_operators_word_by_id_and_a_removal_by_prefix() -> None:
    it = loaded("a")
    slip = 'filters:\n  - {prefix: 203.0.113.0/24, comment: "slip"}\n'
    assert it.use_overrides(overrides('filters:\n  - {id: b, comment: "stolen"}\n')) == Changes((), ("b",))
    assert (it.held(), it.state.override_counts().filtered) == ({}, 1)
    assert it.use_overrides(overrides(slip + '  - {id: b, comment: "stolen"}\n')) is None
    assert it.held() == {LOCAL: 10}
    it.use_overrides()
    assert (it.in_force, it.held()) == (registry(BANK, *OTHERS), {})


def test_what_ends_with_its_pin_is_no_removal() -> None:
    it = loaded("a")
    text = (
        "pins:\n  - {id: %s, category: bank, clients: [39.61.0.0/28], services: [ipsec], comment: x, until: %s}\n"
    )
    pin, over = (overrides(text % (id, "2023-11-14T22:13:30Z")) for id in ("PIN", "b"))
    assert it.use_overrides(pin, over) is not None
    until_s = it.state.next_override_change()
    assert until_s == NOW + 10
    it.now = until_s
    it.use_overrides(pin, over)
    assert (it.in_force, it.held()) == (registry(BANK, *OTHERS), {})
    assert it.state.next_override_change() is None


def test_settings_may_let_go_of_what_is_held_at_the_next_event() -> None:
    it = loaded("a")
    it.read("a", *OTHERS)
    settings = it.state.settings
    everything = ShrinkGuardSettings(RemovalLimit(fraction=1.0), protected=())
    assert settings.shrink_guard == BANKS_AT_ALL
    it.state.use_settings(replace(settings, shrink_guard=everything))
    assert it.held() == {"a": 1}
    it.read("a", *OTHERS)
    assert (it.in_force, it.held()) == (registry(*OTHERS), {})
