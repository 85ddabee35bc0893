"""The next safe step: its order, and its bounds. What a whole plan does is test_reconcile_loop.py's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.compile.desired import DesiredSets
from gatewayd.compile.ruleset import policy_digest
from gatewayd.errors import GatewaydError
from gatewayd.kernel.fake import FakeTables
from gatewayd.kernel.tables_codec import encode_batch
from gatewayd.model.mask import Mask
from gatewayd.model.registration import Registration
from gatewayd.model.transaction import (
    AddElements,
    CreateSet,
    CreateTable,
    DeleteSet,
    ObservedSet,
    RemoveElements,
    RulesTag,
    TableReading,
    Transaction,
)
from gatewayd.reconcile import steps
from gatewayd.reconcile.steps import (
    Commit,
    PutRules,
    acknowledge,
    forecast,
    is_urgent,
    max_keys,
    next_step,
    wanted_ruleset,
)
from gatewayd.reconcile.tracker import SetTracker
from tests.support.planes import TABLE
from tests.support.reconciling import allowlist_sets, bound_hosts, hosts, policy, registered

HOSTS = Mask(4, 32)
BANK = registered("bank", "203.0.113.0/28", services=["ipsec"])
LONGEST = Mask(6, 128, 128, "port16")


def tracker_of(registrations: list[Registration], reading: TableReading | None = None) -> SetTracker:
    tracker = SetTracker(DesiredSets())
    for registration in registrations:
        tracker.add(registration)
    tracker.start_reading(reading or TableReading(True))
    return tracker


def take(tracker: SetTracker, wanted: Any = None, most: int = 1000) -> list[str]:
    """The plan to its end: what each step was for."""
    taken = []
    while (step := next_step(tracker, wanted, TABLE)) is not None:
        taken.append("rules" if isinstance(step, PutRules) else step.transaction.cause)
        acknowledge(tracker, step)
        assert len(taken) < most
    return taken


def done(registrations: list[Registration], wanted: Any) -> SetTracker:
    tracker = tracker_of(registrations)
    take(tracker, wanted)
    return tracker


def operations_of(step: object) -> Any:
    assert isinstance(step, Commit)
    return step.transaction.operations


def test_the_first_step_is_the_table() -> None:
    tracker = tracker_of(hosts(2), TableReading(False))
    step = next_step(tracker, policy(), TABLE)
    assert step == Commit(Transaction((CreateTable(),), "create table"))
    acknowledge(tracker, step)
    assert tracker.table_present


def test_a_load_ends_with_the_rules() -> None:
    tracker = tracker_of([BANK, *hosts(3)], TableReading(False))
    assert take(tracker, policy()) == ["create table", "create sets", "add elements", "rules"]
    assert take(tracker, policy()) == []
    assert tracker.count_missing() == 0


def test_without_a_policy_the_rules_and_what_they_use_are_left_alone() -> None:
    tracker = tracker_of(hosts(1), TableReading(True, (ObservedSet("guests", 4, 0, False),)))
    assert take(tracker) == ["create sets", "add elements"]
    assert tracker.retired == {"guests"}
    tracker.rules.text = "ours"
    assert take(tracker) == ["delete sets"]
    assert tracker.retired == set()


def test_removals_come_after_additions_and_rules_and_sets_go_last() -> None:
    reading = TableReading(True, (ObservedSet("c4_32", 4, 1024, True), ObservedSet("guests", 4, 0, False)))
    tracker = tracker_of([*hosts(2), BANK], reading)
    tracker.observe_elements(tracker.masks[HOSTS].current, {bytes(4)})
    assert take(tracker, policy()) == ["create sets", "add elements", "rules", "remove elements", "delete sets"]


def test_under_the_same_policy_hooks_come_before_elements() -> None:
    tracker = done(hosts(1), policy())
    tracker.add(BANK)
    assert take(tracker, policy()) == ["create sets", "rules", "add elements"]
    tracker.add(registered("other", "203.0.113.64/27"))
    assert take(tracker, policy("reject")) == ["create sets", "add elements", "rules"]


def test_an_unknown_rule_text_is_replaced_after_the_elements() -> None:
    tracker = done(hosts(1), policy())
    tracker.rules.text = None
    tracker.add(hosts(1, 2)[0])
    assert take(tracker, policy()) == ["add elements", "rules"]


# -- epochs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "epoch"),
    [
        (None, 1),
        (RulesTag(5, policy_digest(policy()), ""), 5),
        (RulesTag(5, "another", ""), 6),
        (RulesTag(127, policy_digest(policy()), ""), 127),
        (RulesTag(127, "another", ""), 1),
        (RulesTag(0, "another", ""), 1),
        (RulesTag(128, policy_digest(policy()), ""), 1),
        (RulesTag(-1, policy_digest(policy()), ""), 1),
    ],
)
def test_the_epoch_goes_up_with_the_policy_and_stays_within_the_mark(tag: RulesTag | None, epoch: int) -> None:
    tracker = tracker_of(hosts(1), TableReading(True, tag=tag))
    assert wanted_ruleset(tracker, policy(), TABLE).epoch == epoch


def test_the_epoch_goes_on_when_the_rules_are_gone() -> None:
    tracker = tracker_of(hosts(1), TableReading(True, tag=RulesTag(5, policy_digest(policy()), "")))
    tracker.start_reading(TableReading(False))
    assert wanted_ruleset(tracker, policy(), TABLE).epoch == 5
    assert wanted_ruleset(tracker, policy("reject"), TABLE).epoch == 6


# -- hurry -------------------------------------------------------------------------------------------------


def test_late_admissions_go_first_and_together() -> None:
    tracker = done([], policy())
    tracker.add(BANK)
    tracker.add(hosts(1)[0])
    take(tracker, policy())
    for registration in (*hosts(5000, 2), late := registered("late", "203.0.113.16/28", services=["ipsec"])):
        tracker.add(registration)
    keys = [registration.clients[0].packed for registration in hosts(2, 2)]
    assert tracker.prioritise(
        [*((HOSTS, key) for key in keys), *((Mask(4, 28, selector="ipsec"), late.clients[0].packed),)]
    )
    step = next_step(tracker, policy(), TABLE)
    assert operations_of(step) == (
        AddElements("c4_32", keys),
        AddElements("c4_28_ipsec", [late.clients[0].packed]),
    )
    assert step is not None
    acknowledge(tracker, step)
    assert tracker.urgent == {}


def test_a_late_admission_into_a_set_that_is_not_there_waits_for_it() -> None:
    tracker = done(hosts(1), policy())
    tracker.add(BANK)
    tracker.prioritise([(Mask(4, 28, selector="ipsec"), BANK.clients[0].packed)])
    assert take(tracker, policy()) == ["create sets", "late admission", "rules"]


def test_a_late_admission_that_is_unwanted_meanwhile_is_forgotten() -> None:
    tracker = done(hosts(1), policy())
    tracker.urgent = {(HOSTS, bytes(4)): None, (Mask(4, 9), bytes(4)): None}
    assert next_step(tracker, policy(), TABLE) is None
    assert tracker.urgent == {}


@pytest.mark.parametrize("capacity", [8, 1024])
def test_a_late_admission_that_is_believed_to_be_there_is_put_there_again(capacity: int) -> None:
    """Even into a full set: what is there takes no room."""
    tracker = tracker_of(hosts(8), TableReading(True, (ObservedSet("c4_32", 4, capacity, True),)))
    key = hosts(1)[0].clients[0].packed
    tracker.observe_elements(tracker.masks[HOSTS].current, set(tracker.desired.keys(HOSTS)))
    assert tracker.prioritise([(HOSTS, key)]) == 0
    step = next_step(tracker, policy(), TABLE)
    assert operations_of(step) == (AddElements("c4_32", [key]),)
    assert step is not None
    acknowledge(tracker, step)
    assert tracker.urgent == {}
    assert take(tracker, policy()) == ["rules"]


def test_late_admissions_keep_within_the_room() -> None:
    reading = TableReading(True, (ObservedSet("c4_32", 4, 8, True),))
    tracker = tracker_of(hosts(20), reading)
    keys = [registration.clients[0].packed for registration in hosts(20)]
    tracker.observe_elements(tracker.masks[HOSTS].current, set(keys[:5]))
    tracker.prioritise([(HOSTS, key) for key in keys[4:]])
    (operation,) = operations_of(next_step(tracker, policy(), TABLE))
    assert operation == AddElements("c4_32", keys[4:8])


@pytest.mark.parametrize("most", [64, 100, 1000])
def test_late_admissions_keep_within_the_bytes(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MAX_BYTES", most)
    tracker = done([], policy())
    tracker.add(hosts(1)[0])
    take(tracker, policy())
    for registration in hosts(200, 2):
        tracker.add(registration)
    tracker.prioritise([(HOSTS, registration.clients[0].packed) for registration in hosts(200, 2)])
    (operation,) = operations_of(next_step(tracker, policy(), TABLE))
    assert len(operation.keys) == most // 16 == max_keys(4)


# -- bounds ------------------------------------------------------------------------------------------------


def masks_of(count: int) -> list[Registration]:
    """Registrations of that many masks, one element each."""
    pairs = [(client, peer) for client in range(8, 33) for peer in range(8, 33)][:count]
    return [registered(f"{c}-{p}", f"10.0.0.0/{c}", peers=[f"11.0.0.0/{p}"]) for c, p in pairs]


def test_sets_are_made_and_removed_a_bounded_number_at_a_time() -> None:
    tracker = tracker_of(masks_of(200))
    assert take(tracker, policy())[:2] == ["create sets", "create sets"]
    again = tracker_of([], TableReading(True, tuple(ObservedSet(f"s{n}", 4, 0, False) for n in range(200))))
    assert take(again, policy()) == ["rules", "delete sets", "delete sets"]


@pytest.mark.parametrize("most", [64, 200, 4096])
def test_every_step_is_bounded_in_bytes_and_sets(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MAX_BYTES", most)
    wide = registered("wide", *(f"2001:db8::{n:x}" for n in range(9)), peers=["2001:db8:1::1"], services=["udp/5"])
    tracker = tracker_of([*masks_of(150), *hosts(70), wide])
    seen: dict[str, set[bytes]] = {}
    for wanted in (policy(), policy()):
        while (step := next_step(tracker, wanted, TABLE)) is not None:
            if isinstance(step, Commit):
                operations = step.transaction.operations
                assert 0 < len(operations) <= steps.MAX_SETS
                size = 0
                for operation in operations:
                    if isinstance(operation, AddElements | RemoveElements):
                        assert operation.keys
                        size += sum(len(key) + 12 for key in operation.keys)
                        seen.setdefault(operation.set_name, set()).update(operation.keys)
                assert size <= most
            acknowledge(tracker, step)
        for registration in (*masks_of(150), *hosts(70), wide):
            if tracker.desired.count():
                tracker.remove(registration)
    assert sum(map(len, seen.values())) == 229
    assert tracker.count_surplus() == 0


def test_a_transaction_carries_the_longest_keys_too() -> None:
    assert max_keys(LONGEST.key_length) == steps.MAX_BYTES // (40 + 12)


# -- acknowledgements --------------------------------------------------------------------------------------


def test_an_acknowledgement_for_what_is_no_longer_tracked_changes_nothing_else() -> None:
    tracker = done(hosts(1), policy())
    operations = (
        CreateSet("c4_9", Mask(4, 9), 8),
        AddElements("c4_9", [bytes(4)]),
        RemoveElements("c4_9", [bytes(4)]),
    )
    acknowledge(tracker, Commit(Transaction(operations, "late")))
    assert tracker.retired == {"c4_9"}
    acknowledge(tracker, Commit(Transaction((DeleteSet("c4_9"), DeleteSet("never")), "late")))
    assert tracker.retired == set()


def test_an_acknowledged_set_has_the_capacity_it_was_made_with() -> None:
    tracker = tracker_of(hosts(1))
    acknowledge(tracker, Commit(Transaction((CreateSet("c4_32", HOSTS, 8),), "create sets")))
    assert (tracker.masks[HOSTS].current.exists, tracker.masks[HOSTS].current.capacity) == (True, 8)


# -- any plan ----------------------------------------------------------------------------------------------

POOL = [BANK, *hosts(6), registered("net", "10.0.0.0/24", services=["udp/8000-9000"]), *masks_of(3)]


@settings(max_examples=60, deadline=None)
@given(
    stages=st.lists(
        st.tuples(st.sets(st.integers(0, len(POOL) - 1)), st.sampled_from(["observe", "reject"])), max_size=5
    ),
    most=st.sampled_from([64, 128, steps.MAX_BYTES]),
)
def test_the_kernel_takes_every_plan_and_is_then_as_tracked(stages: list[tuple[set[int], str]], most: int) -> None:
    import asyncio

    async def perform(fake: FakeTables, step: Any) -> None:
        if isinstance(step, PutRules):
            await fake.replace_rules(step.ruleset)
        else:
            await fake.commit(step.transaction)

    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch.setattr(steps, "MAX_BYTES", most)
        fake, tracker, inside = FakeTables(), tracker_of([], TableReading(False)), set[int]()
        for chosen, mode in stages:
            for number in chosen - inside:
                tracker.add(POOL[number])
            for number in inside - chosen:
                tracker.remove(POOL[number])
            tracker.retire_unused()
            inside = chosen
            while (step := next_step(tracker, policy(mode), TABLE)) is not None:
                try:
                    runner.run(perform(fake, step))
                except GatewaydError as error:  # pragma: no cover
                    raise AssertionError(f"{step} refused") from error
                acknowledge(tracker, step)
            assert fake.table is not None
            assert {name: found.keys for name, found in allowlist_sets(fake.table).items()} == {
                state.name: tracker.desired.keys(state.mask) for state in tracker.set_states()
            }


def test_a_transaction_of_bindings_is_bounded_with_all_its_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are three times in the message that adds them and twice in the one that removes them."""
    monkeypatch.setattr(steps, "MAX_BYTES", 1200)
    bound_registrations = bound_hosts(120)
    tracker = SetTracker(DesiredSets())
    for each in bound_registrations:
        tracker.add(each)
    tracker.start_reading(TableReading(True))
    counts: list[int] = []
    while bound_registrations or tracker.count_surplus():
        step = next_step(tracker, policy(), TABLE)
        if step is None:
            while bound_registrations:
                tracker.remove(bound_registrations.pop())
            continue
        acknowledge(tracker, step)
        if isinstance(step, Commit) and (count := step.transaction.count_elements()):
            counts.append(count)
            assert len(encode_batch(step.transaction, TABLE, 1).payload) <= 1200 + 300
    assert counts == [25, 25, 25, 25, 20] * 2


def test_one_element_at_least_is_in_every_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is."""
    monkeypatch.setattr(steps, "MAX_BYTES", 1)
    tracker = SetTracker(DesiredSets())
    bound_registrations = bound_hosts(3)
    for each in bound_registrations:
        tracker.add(each)
    tracker.start_reading(TableReading(True))
    tracker.prioritise([(Mask(4, 32, source_bits=0), bytes((100, 64, 0, 2)))])
    assert take(tracker, policy()) == ["create sets", "late admission", *["add elements"] * 2, "rules"]
    assert tracker.count_missing() == 0
    for each in bound_registrations:
        tracker.remove(each)
    assert take(tracker, policy()) == ["remove elements"] * 3


# -- a forecast --------------------------------------------------------------------------------------------


def test_a_forecast_counts_what_the_steps_would_do() -> None:
    reading = TableReading(True, (ObservedSet("c4_32", 4, 0, True, 2), ObservedSet("c4_9", 4, 0, True, 0)))
    tracker = tracker_of(hosts(2), reading)
    tracker.observe_elements(tracker.masks[HOSTS].current, [bytes((10, 0, 0, 1)), bytes((10, 0, 0, 9))])
    tracker.add(BANK)
    found = forecast(tracker, policy(), TABLE)
    assert not found.is_empty
    assert not found.creates_table
    assert (found.created_sets, found.deleted_sets) == (["c4_28_ipsec"], ["c4_9"])
    assert (found.added, found.removed) == ({"c4_28_ipsec": 1, "c4_32": 1}, {"c4_32": 1})
    assert found.ruleset is not None
    assert "set" not in (found.unprogrammed, found.in_former_form)
    assert forecast(tracker, policy(), TABLE).is_empty
    assert forecast(tracker_of([], TableReading(False)), policy(), TABLE).creates_table


def test_a_forecast_names_what_is_past_a_bound() -> None:
    tracker = SetTracker(DesiredSets(max_masks=0))
    tracker.add(hosts(1)[0])
    tracker.start_reading(TableReading(True))
    assert list(forecast(tracker, policy(), TABLE).unprogrammed) == ["host-1"]


def test_after_a_late_admission_something_else_comes_first() -> None:
    tracker = done(hosts(1), policy())
    (other,) = hosts(1, 2)
    tracker.add(other)
    tracker.prioritise([(HOSTS, other.clients[0].packed)])
    late = next_step(tracker, policy(), TABLE)
    assert late is not None
    assert is_urgent(late)
    bulk = next_step(tracker, policy(), TABLE, urgent_last=True)
    assert bulk is not None
    assert not is_urgent(bulk)
    acknowledge(tracker, bulk)
    tracker.prioritise([(HOSTS, other.clients[0].packed)])
    again = next_step(tracker, policy(), TABLE, urgent_last=True)
    assert again is not None
    assert is_urgent(again)


def test_a_full_set_leaves_what_has_no_room_to_its_successor() -> None:
    tracker = tracker_of(hosts(3), TableReading(True, (ObservedSet("c4_32", 4, 2, True, 2),)))
    tracker.observe_elements(tracker.masks[HOSTS].current, [bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))])
    tracker.grow_where_full()
    assert tracker.masks[HOSTS].successor is not None
    step = next_step(tracker, policy(), TABLE)
    assert operations_of(step) == (CreateSet("c4_32_g1", HOSTS, 1024, 0),)
    assert step is not None
    acknowledge(tracker, step)
    assert [each.set_name for each in operations_of(next_step(tracker, None, TABLE))] == ["c4_32_g1"]


def test_masks_that_wait_to_go_do_so_when_nothing_is_left_to_remove() -> None:
    tracker = done(hosts(1), policy())
    tracker.remove(hosts(1)[0])
    tracker.retire_unused()
    assert tracker.retiring
    assert take(tracker, policy()) == ["remove elements", "rules", "delete sets"]


def test_a_forecast_counts_elements_of_bindings() -> None:
    tracker = SetTracker(DesiredSets())
    for each in bound_hosts(2):
        tracker.add(each)
    tracker.start_reading(TableReading(True))
    assert forecast(tracker, policy(), TABLE).added == {"b4_32": 2}


def test_what_is_left_is_not_removed() -> None:
    (left,) = bound_hosts(1)
    tracker = SetTracker(DesiredSets())
    tracker.findings.leave_unless(lambda prefix, ports: False)
    tracker.start_reading(TableReading(True, (ObservedSet("b4_32", 4, 0, True, 1, tracker.element_timeout_s),)))
    tracker.observe_elements(tracker.set_states()[0], [left.prefix.packed])
    assert take(tracker, policy()) == ["rules"]
    assert tracker.set_states()[0].surplus == {left.prefix.packed}


def test_elements_without_room_wait_for_a_larger_set() -> None:
    tracker = tracker_of(hosts(2), TableReading(True, (ObservedSet("c4_32", 4, 2, True, 2),)))
    tracker.observe_elements(tracker.masks[HOSTS].current, [bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))])
    assert take(tracker, policy()) == ["create sets", "add elements", "rules", "delete sets"]
