"""How a registry comes into force: the first readings, and a restart from what the run before left."""

from __future__ import annotations

from math import inf

import pytest

from gatewayd.registry.guard import RemovalGuard
from gatewayd.registry.guard_record import GuardRecord
from gatewayd.registry.state import LOCAL, SOURCES
from gatewayd.sources.update import SourceUpdate
from tests.support.guarding import BANK, NOW, OTHERS, InForce, overrides, registration, registry

BANK_2 = registration("b2", "bank", "203.0.113.32/28")
FILTER = overrides('filters:\n  - {prefix: 203.0.113.0/24, comment: "slip"}\n')
PIN = overrides(
    "pins:\n  - {id: PIN, category: bank, clients: [39.61.0.0/28], services: [ipsec], comment: x}\n"
    '  - {id: "0", category: bpo, clients: [39.61.0.16/28], services: [ipsec], comment: x}\n'
)


def running(*sources: str) -> InForce:
    """A registry with a bank and others in its first source."""
    it = InForce(*sources)
    it.read(sources[0], BANK, *OTHERS)
    for name in sources[1:]:
        it.read(name, BANK_2)
    return it


# -- the first run -------------------------------------------------------------------------------------------


def test_nothing_is_in_force_before_every_source_was_read() -> None:
    it = InForce("a", "b")
    assert it.state.next_end() == inf
    assert it.use_overrides(PIN) is None
    assert it.read("b", BANK) is None
    assert it.read("b", BANK_2) is None
    assert (it.state.unread(), it.state.is_loaded, it.state.is_known()) == (("a",), False, False)
    assert it.state.record().sources is None
    it.read("a", *OTHERS)
    assert (it.state.unread(), it.state.is_loaded, it.state.is_known()) == ((), True, True)
    assert it.in_force.keys() == {"b2", "PIN", *(each.id for each in OTHERS)}
    assert [str(each) for each in it.in_force["0"].clients] == ["39.61.0.16/28"]
    assert it.held() == {}
    assert it.state.record().sources == ("a", "b")


def test_a_registry_without_records_is_in_force_too() -> None:
    it = InForce("a")
    changes = it.read("a")
    assert changes is not None
    assert (changes.upserts, it.state.is_loaded) == ((), True)


def test_a_reload_may_take_out_the_source_that_all_wait_for() -> None:
    it = InForce("a", "b")
    it.read("a", BANK)
    assert it.take(it.state.use_sources(["b", "a"], NOW)) is None
    it.take(it.state.use_sources(["a"], NOW))
    assert it.in_force == registry(BANK)


# -- a restart -----------------------------------------------------------------------------------------------


def test_a_restart_puts_the_last_good_in_force_before_a_source_has_answered() -> None:
    it = running("a", "b")
    again = it.restarted("a", "b")
    assert again.in_force == it.in_force
    assert (again.state.is_loaded, again.state.is_known(), again.state.lost_files) == (True, False, False)
    assert again.state.freshness(NOW)["a"].word == "fresh"
    for name in ("a", "b"):
        again.take(again.state.apply(SourceUpdate(name, NOW), NOW))
    assert again.state.is_known()
    assert again.held() == {}


def test_what_was_held_is_held_and_in_force_after_a_restart() -> None:
    it = running("a")
    it.read("a", *OTHERS)
    assert it.held() == {"a": 1}
    again = it.restarted("a").restarted("a")
    assert (again.in_force, again.held()) == (it.in_force, {"a": 1})
    again.take(again.state.accept(again.serial, NOW))
    assert again.in_force == registry(*OTHERS)


def test_a_removal_after_a_restart_is_judged_by_what_was_in_force() -> None:
    again = running("a").restarted("a")
    again.read("a", *OTHERS[5:])
    assert again.in_force == registry(BANK, *OTHERS)
    assert again.held() == {"a": 6}


def test_a_source_that_has_another_name_takes_nothing_away() -> None:
    it = running("old")
    again = it.restarted("new")
    assert not again.state.is_loaded
    again.read("new", BANK, *OTHERS)
    assert (again.in_force, again.held()) == (it.in_force, {})
    assert again.state.record().sources == ("new",)


def test_a_source_that_was_taken_out_while_the_daemon_was_down_is_held() -> None:
    it = running("a", "b")
    again = it.restarted("a")
    assert again.in_force == it.in_force
    assert again.held() == {SOURCES: 1}
    again.take(again.state.accept(int(NOW), NOW))
    assert again.in_force == registry(BANK, *OTHERS)


def test_sources_in_another_order_are_judged_by_what_each_had() -> None:
    it = InForce("a", "b")
    it.read("a", BANK)
    it.read("b", registration("b", "bank", "203.0.113.16/28"))
    again = it.restarted("b", "a")
    assert [str(each.clients[0]) for each in again.in_force.values()] == ["203.0.113.0/28", "203.0.113.16/28"]
    assert again.held() == {SOURCES: 1}


def test_a_filter_that_came_while_the_daemon_was_down_is_held() -> None:
    again = running("a").restarted("a", files=(FILTER,))
    assert again.in_force == registry(BANK, *OTHERS)
    assert again.held() == {LOCAL: 11}


def test_a_pin_that_went_while_the_daemon_was_down_is_held() -> None:
    it = running("a")
    it.use_overrides(PIN)
    assert it.restarted("a", files=(PIN,)).held() == {}
    again = it.restarted("a")
    assert again.in_force.keys() == {"PIN", "b", "0#held", *(each.id for each in OTHERS)}
    assert again.held() == {LOCAL: 2}


@pytest.mark.parametrize("lost", [("a",), ("a", "b")])
def test_of_a_lost_file_the_kernel_alone_may_know_until_its_rest_is_judged(lost: tuple[str, ...]) -> None:
    again = running("a", "b").restarted("a", "b", lost=lost)
    assert (again.state.unread(), again.state.lost_files) == (lost, True)
    again.read("a", *OTHERS)
    again.read("b", BANK_2)
    assert again.in_force == registry(BANK_2, *OTHERS)
    assert again.state.record().lost_files
    assert again.restarted("a", "b").state.lost_files
    version = again.state.version()
    again.state.end_loss()
    assert again.state.version() != version
    assert not again.restarted("a", "b").state.lost_files


def test_without_a_record_all_may_be_lost() -> None:
    it = InForce("a")
    it.take(it.state.restore(GuardRecord(RemovalGuard()), {}, NOW))
    assert it.state.lost_files


def test_a_source_that_is_new_is_waited_for_and_takes_over_what_it_has() -> None:
    it = running("a")
    again = it.restarted("new", "a")
    assert (again.in_force, again.state.unread()) == ({}, ("new",))
    again.read("new", BANK_2)
    assert again.in_force == registry(BANK_2, BANK, *OTHERS)
    assert again.held() == {}
