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
from gatewayd.reconcile.picture import Picture
from gatewayd.reconcile.steps import Commit, PutRules, acknowledge, most_keys, next_step, wanted_ruleset
from tests.support.granting import bound_hosts
from tests.support.planes import TABLE
from tests.support.reconciling import hosts, policy, registered

HOSTS = Mask(4, 32)
BANK = registered("bank", "203.0.113.0/28", services=["ipsec"])
LONGEST = Mask(6, 128, 128, "port16")


def picture_of(registrations: list[Registration], reading: TableReading | None = None) -> Picture:
    picture = Picture(DesiredSets())
    for registration in registrations:
        picture.add(registration)
    picture.start_reading(reading or TableReading(True))
    return picture


def take(picture: Picture, wanted: Any = None, most: int = 1000) -> list[str]:
    """The plan to its end: what each step was for."""
    taken = []
    while (step := next_step(picture, wanted, TABLE)) is not None:
        taken.append("rules" if isinstance(step, PutRules) else step.transaction.cause)
        acknowledge(picture, step)
        assert len(taken) < most
    return taken


def done(registrations: list[Registration], wanted: Any) -> Picture:
    picture = picture_of(registrations)
    take(picture, wanted)
    return picture


def operations_of(step: object) -> Any:
    assert isinstance(step, Commit)
    return step.transaction.operations


def test_the_first_step_is_the_table() -> None:
    picture = picture_of(hosts(2), TableReading(False))
    step = next_step(picture, policy(), TABLE)
    assert step == Commit(Transaction((CreateTable(),), "create table"))
    acknowledge(picture, step)
    assert picture.table_present


def test_a_load_ends_with_the_rules() -> None:
    picture = picture_of([BANK, *hosts(3)], TableReading(False))
    assert take(picture, policy()) == ["create table", "create sets", "add elements", "rules"]
    assert take(picture, policy()) == []
    assert picture.count_missing() == 0


def test_without_a_policy_the_rules_and_what_they_use_are_left_alone() -> None:
    picture = picture_of(hosts(1), TableReading(True, (ObservedSet("guests", 4, 0, False),)))
    assert take(picture) == ["create sets", "add elements"]
    assert picture.retired == {"guests"}
    picture.rules = "ours"
    assert take(picture) == ["delete sets"]
    assert picture.retired == set()


def test_removals_come_after_additions_and_rules_and_sets_go_last() -> None:
    reading = TableReading(True, (ObservedSet("c4_32", 4, 1024, True), ObservedSet("guests", 4, 0, False)))
    picture = picture_of([*hosts(2), BANK], reading)
    picture.observe_elements(picture.masks[HOSTS].current, {bytes(4)})
    assert take(picture, policy()) == ["create sets", "add elements", "rules", "remove elements", "delete sets"]


def test_under_the_same_policy_hooks_come_before_elements() -> None:
    picture = done(hosts(1), policy())
    picture.add(BANK)
    assert take(picture, policy()) == ["create sets", "rules", "add elements"]
    picture.add(registered("other", "203.0.113.64/27"))
    assert take(picture, policy("reject")) == ["create sets", "add elements", "rules"]


def test_an_unknown_rule_text_is_replaced_after_the_elements() -> None:
    picture = done(hosts(1), policy())
    picture.rules = None
    picture.add(hosts(1, 2)[0])
    assert take(picture, policy()) == ["add elements", "rules"]


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
    picture = picture_of(hosts(1), TableReading(True, tag=tag))
    assert wanted_ruleset(picture, policy(), TABLE).epoch == epoch


def test_the_epoch_goes_on_when_the_rules_are_gone() -> None:
    picture = picture_of(hosts(1), TableReading(True, tag=RulesTag(5, policy_digest(policy()), "")))
    picture.start_reading(TableReading(False))
    assert wanted_ruleset(picture, policy(), TABLE).epoch == 5
    assert wanted_ruleset(picture, policy("reject"), TABLE).epoch == 6


# -- hurry -------------------------------------------------------------------------------------------------


def test_late_admissions_go_first_and_together() -> None:
    picture = done([], policy())
    picture.add(BANK)
    picture.add(hosts(1)[0])
    take(picture, policy())
    for registration in (*hosts(5000, 2), late := registered("late", "203.0.113.16/28", services=["ipsec"])):
        picture.add(registration)
    keys = [registration.clients[0].packed for registration in hosts(2, 2)]
    assert picture.urge(
        [*((HOSTS, key) for key in keys), *((Mask(4, 28, selector="ipsec"), late.clients[0].packed),)]
    )
    step = next_step(picture, policy(), TABLE)
    assert operations_of(step) == (
        AddElements("c4_32", keys),
        AddElements("c4_28_ipsec", [late.clients[0].packed]),
    )
    assert step is not None
    acknowledge(picture, step)
    assert picture.urgent == {}


def test_a_late_admission_into_a_set_that_is_not_there_waits_for_it() -> None:
    picture = done(hosts(1), policy())
    picture.add(BANK)
    picture.urge([(Mask(4, 28, selector="ipsec"), BANK.clients[0].packed)])
    assert take(picture, policy()) == ["create sets", "late admission", "rules"]


def test_a_late_admission_that_is_unwanted_meanwhile_is_forgotten() -> None:
    picture = done(hosts(1), policy())
    picture.urgent = {(HOSTS, bytes(4)): None, (Mask(4, 9), bytes(4)): None}
    assert next_step(picture, policy(), TABLE) is None
    assert picture.urgent == {}


@pytest.mark.parametrize("capacity", [8, 1024])
def test_a_late_admission_that_is_believed_to_be_there_is_put_there_again(capacity: int) -> None:
    """Even into a full set: what is there takes no room."""
    picture = picture_of(hosts(8), TableReading(True, (ObservedSet("c4_32", 4, capacity, True),)))
    key = hosts(1)[0].clients[0].packed
    picture.observe_elements(picture.masks[HOSTS].current, set(picture.desired.keys(HOSTS)))
    assert picture.urge([(HOSTS, key)]) == 0
    step = next_step(picture, policy(), TABLE)
    assert operations_of(step) == (AddElements("c4_32", [key]),)
    assert step is not None
    acknowledge(picture, step)
    assert picture.urgent == {}
    assert take(picture, policy()) == ["rules"]


def test_late_admissions_keep_within_the_room() -> None:
    reading = TableReading(True, (ObservedSet("c4_32", 4, 8, True),))
    picture = picture_of(hosts(20), reading)
    keys = [registration.clients[0].packed for registration in hosts(20)]
    picture.observe_elements(picture.masks[HOSTS].current, set(keys[:5]))
    picture.urge([(HOSTS, key) for key in keys[4:]])
    (operation,) = operations_of(next_step(picture, policy(), TABLE))
    assert operation == AddElements("c4_32", keys[4:8])


@pytest.mark.parametrize("most", [64, 100, 1000])
def test_late_admissions_keep_within_the_bytes(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MOST_BYTES", most)
    picture = done([], policy())
    picture.add(hosts(1)[0])
    take(picture, policy())
    for registration in hosts(200, 2):
        picture.add(registration)
    picture.urge([(HOSTS, registration.clients[0].packed) for registration in hosts(200, 2)])
    (operation,) = operations_of(next_step(picture, policy(), TABLE))
    assert len(operation.keys) == most // 16 == most_keys(4)


# -- bounds ------------------------------------------------------------------------------------------------


def masks_of(count: int) -> list[Registration]:
    """Registrations of that many masks, one element each."""
    pairs = [(client, peer) for client in range(8, 33) for peer in range(8, 33)][:count]
    return [registered(f"{c}-{p}", f"10.0.0.0/{c}", peers=[f"11.0.0.0/{p}"]) for c, p in pairs]


def test_sets_are_made_and_removed_a_bounded_number_at_a_time() -> None:
    picture = picture_of(masks_of(200))
    assert take(picture, policy())[:2] == ["create sets", "create sets"]
    again = picture_of([], TableReading(True, tuple(ObservedSet(f"s{n}", 4, 0, False) for n in range(200))))
    assert take(again, policy()) == ["rules", "delete sets", "delete sets"]


@pytest.mark.parametrize("most", [64, 200, 4096])
def test_every_step_is_bounded_in_bytes_and_sets(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MOST_BYTES", most)
    wide = registered("wide", *(f"2001:db8::{n:x}" for n in range(9)), peers=["2001:db8:1::1"], services=["udp/5"])
    picture = picture_of([*masks_of(150), *hosts(70), wide])
    seen: dict[str, set[bytes]] = {}
    for wanted in (policy(), policy()):
        while (step := next_step(picture, wanted, TABLE)) is not None:
            if isinstance(step, Commit):
                operations = step.transaction.operations
                assert 0 < len(operations) <= steps.MOST_SETS
                size = 0
                for operation in operations:
                    if isinstance(operation, AddElements | RemoveElements):
                        assert operation.keys
                        size += sum(len(key) + 12 for key in operation.keys)
                        seen.setdefault(operation.set_name, set()).update(operation.keys)
                assert size <= most
            acknowledge(picture, step)
        for registration in (*masks_of(150), *hosts(70), wide):
            if picture.desired.count():
                picture.remove(registration)
    assert sum(map(len, seen.values())) == 229
    assert picture.count_surplus() == 0


def test_a_transaction_carries_the_longest_keys_too() -> None:
    assert most_keys(LONGEST.key_length) == steps.MOST_BYTES // (40 + 12)


# -- acknowledgements --------------------------------------------------------------------------------------


def test_an_acknowledgement_for_what_is_no_longer_pictured_changes_nothing_else() -> None:
    picture = done(hosts(1), policy())
    operations = (
        CreateSet("c4_9", Mask(4, 9), 8),
        AddElements("c4_9", [bytes(4)]),
        RemoveElements("c4_9", [bytes(4)]),
    )
    acknowledge(picture, Commit(Transaction(operations, "late")))
    assert picture.retired == {"c4_9"}
    acknowledge(picture, Commit(Transaction((DeleteSet("c4_9"), DeleteSet("never")), "late")))
    assert picture.retired == set()


def test_an_acknowledged_set_has_the_capacity_it_was_made_with() -> None:
    picture = picture_of(hosts(1))
    acknowledge(picture, Commit(Transaction((CreateSet("c4_32", HOSTS, 8),), "create sets")))
    assert (picture.masks[HOSTS].current.exists, picture.masks[HOSTS].current.capacity) == (True, 8)


# -- any plan ----------------------------------------------------------------------------------------------

POOL = [BANK, *hosts(6), registered("net", "10.0.0.0/24", services=["udp/8000-9000"]), *masks_of(3)]


@settings(max_examples=60, deadline=None)
@given(
    stages=st.lists(
        st.tuples(st.sets(st.integers(0, len(POOL) - 1)), st.sampled_from(["observe", "reject"])), max_size=5
    ),
    most=st.sampled_from([64, 128, steps.MOST_BYTES]),
)
def test_the_kernel_takes_every_plan_and_is_then_as_pictured(stages: list[tuple[set[int], str]], most: int) -> None:
    import asyncio

    async def perform(fake: FakeTables, step: Any) -> None:
        if isinstance(step, PutRules):
            await fake.replace_rules(step.ruleset)
        else:
            await fake.commit(step.transaction)

    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch.setattr(steps, "MOST_BYTES", most)
        fake, picture, inside = FakeTables(), picture_of([], TableReading(False)), set[int]()
        for chosen, mode in stages:
            for number in chosen - inside:
                picture.add(POOL[number])
            for number in inside - chosen:
                picture.remove(POOL[number])
            picture.retire_unused()
            inside = chosen
            while (step := next_step(picture, policy(mode), TABLE)) is not None:
                try:
                    runner.run(perform(fake, step))
                except GatewaydError as error:  # pragma: no cover
                    raise AssertionError(f"{step} refused") from error
                acknowledge(picture, step)
            assert fake.table is not None
            assert {name: found.keys for name, found in fake.table.sets.items()} == {
                state.name: picture.desired.keys(state.mask) for state in picture.set_states()
            }


def test_a_transaction_of_bindings_is_bounded_with_all_its_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are three times in the message that adds them and twice in the one that removes them."""
    monkeypatch.setattr(steps, "MOST_BYTES", 1200)
    grants = bound_hosts(120)
    picture = Picture(DesiredSets())
    for each in grants:
        picture.add(each)
    picture.start_reading(TableReading(True))
    counts: list[int] = []
    while grants or picture.count_surplus():
        step = next_step(picture, policy(), TABLE)
        if step is None:
            while grants:
                picture.remove(grants.pop())
            continue
        acknowledge(picture, step)
        if isinstance(step, Commit) and (count := step.transaction.count_elements()):
            counts.append(count)
            assert len(encode_batch(step.transaction, TABLE, 1).payload) <= 1200 + 300
    assert counts == [25, 25, 25, 25, 20] * 2


def test_one_element_at_least_is_in_every_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is."""
    monkeypatch.setattr(steps, "MOST_BYTES", 1)
    picture = Picture(DesiredSets())
    grants = bound_hosts(3)
    for each in grants:
        picture.add(each)
    picture.start_reading(TableReading(True))
    picture.urge([(Mask(4, 32, source_bits=0), bytes((100, 64, 0, 2)))])
    assert take(picture, policy()) == ["create sets", "late admission", *["add elements"] * 2, "rules"]
    assert picture.count_missing() == 0
    for each in grants:
        picture.remove(each)
    assert take(picture, policy()) == ["remove elements"] * 3
