"""The fake's own ways: what tests may do to it. That it behaves as the kernel does is tests/contract's."""

from __future__ import annotations

import errno

import pytest

from gatewayd.assertions.lookups import RulesReading
from gatewayd.compile.rule_sets import COUNTED_TIMEOUT_S
from gatewayd.compile.ruleset import COUNTERS, compile_ruleset, parse_tag
from gatewayd.errors import OperationRefused, RulesetRefused
from gatewayd.kernel.fake import FakeTables
from gatewayd.model import Mode
from gatewayd.model.mask import Mask
from gatewayd.model.policy import MarkLayout, Policy
from gatewayd.model.transaction import (
    AddElements,
    Counted,
    CreateSet,
    CreateTable,
    DeleteSet,
    ElementChange,
    ExternalChanges,
    ExternalCommit,
    ObservedSet,
    Operation,
    RefreshElements,
    RemoveElements,
    Ruleset,
    TableReading,
    Transaction,
)
from tests.support.reconciling import OBSERVE

HOSTS = Mask(4, 32)
MADE = (CreateTable(), CreateSet("c4_32", HOSTS, 4), AddElements("c4_32", [bytes(4)]))


async def made(*, tells_counts: bool = True) -> FakeTables:
    fake = FakeTables(tells_counts=tells_counts)
    await fake.commit(Transaction(MADE, "test"))
    return fake


def ruleset(*names: str, mode: Mode = "observe") -> Ruleset:
    policy = Policy(mode, (), MarkLayout(0xFF000000))
    return compile_ruleset("gatewayd", policy, dict.fromkeys([HOSTS], names[0]) if names else {}, 1)


async def test_a_fake_begins_with_nothing() -> None:
    fake = FakeTables()
    assert await fake.read_table() == TableReading(False, generation=1)
    assert await fake.read_counters() == {}
    assert await fake.delete_table() is False
    assert await fake.read_generation() == 1
    with pytest.raises(OperationRefused):
        [piece async for piece in fake.read_elements("c4_32")]


@pytest.mark.parametrize("tells_counts", [True, False])
async def test_sets_are_listed_with_their_counts_where_the_kernel_would(tells_counts: bool) -> None:
    fake = await made(tells_counts=tells_counts)
    count = 1 if tells_counts else None
    assert (await fake.read_table()).sets == (ObservedSet("c4_32", 4, 4, True, count),)


async def test_elements_come_in_pieces() -> None:
    fake = FakeTables()
    keys = [number.to_bytes(4, "big") for number in range(1100)]
    await fake.commit(
        Transaction((CreateTable(), CreateSet("c4_32", HOSTS, 0), AddElements("c4_32", keys)), "test")
    )
    pieces = [piece async for piece in fake.read_elements("c4_32")]
    assert [len(piece) for piece in pieces] == [500, 500, 100]
    assert sorted(key for piece in pieces for key in piece) == keys


@pytest.mark.parametrize(
    ("operation", "number"),
    [
        (CreateSet("c4_32", HOSTS, 4), errno.EEXIST),
        (DeleteSet("c4_9"), errno.ENOENT),
        (AddElements("c4_9", [bytes(4)]), errno.ENOENT),
        (AddElements("c4_32", [bytes(3)]), errno.EINVAL),
        (AddElements("c4_32", [bytes((1, 0, 0, number)) for number in range(4)]), errno.ENFILE),
        (RemoveElements("c4_32", [bytes((1, 0, 0, 0))]), errno.ENOENT),
        (RemoveElements("c4_32", [bytes(4), bytes(4)]), errno.ENOENT),
        (RemoveElements("c4_32", [bytes(5)]), errno.EINVAL),
    ],
)
async def test_a_refusal_leaves_everything_as_it_was(operation: Operation, number: int) -> None:
    fake = await made()
    before = await fake.read_table()
    with pytest.raises(OperationRefused) as caught:
        await fake.commit(Transaction((AddElements("c4_32", [bytes((9, 9, 9, 9))]), operation), "test"))
    assert caught.value.errno == number
    assert await fake.read_table() == before


@pytest.mark.parametrize("operation", MADE[1:])
async def test_without_a_table_everything_else_is_refused(operation: Operation) -> None:
    with pytest.raises(OperationRefused) as caught:
        await FakeTables().commit(Transaction((operation,), "test"))
    assert caught.value.errno == errno.ENOENT


async def test_no_keys_are_no_operation() -> None:
    fake = FakeTables()
    await fake.commit(Transaction((AddElements("c4_32", []), RemoveElements("c4_32", [])), "test"))
    assert (fake.table, fake.generation) == (None, 1)


async def test_elements_and_sets_go() -> None:
    fake = await made()
    await fake.commit(Transaction((RemoveElements("c4_32", [bytes(4)]),), "test"))
    assert [piece async for piece in fake.read_elements("c4_32")] == []
    await fake.commit(Transaction((DeleteSet("c4_32"),), "test"))
    assert (await fake.read_table()).sets == ()


async def test_a_set_of_no_name_of_ours_is_not_regular() -> None:
    fake = FakeTables()
    await fake.commit(Transaction((CreateTable(), CreateSet("guests", HOSTS, 0)), "test"))
    assert (await fake.read_table()).sets == (ObservedSet("guests", 4, 0, False, 0),)


async def test_rules_use_sets_and_are_tagged() -> None:
    fake = await made()
    await fake.replace_rules(ruleset("c4_32"))
    reading = await fake.read_table()
    assert reading.tag is not None
    assert (reading.tag.epoch, reading.rules) == (1, ruleset("c4_32").text)
    assert set(await fake.read_counters()) == set(COUNTERS)
    with pytest.raises(OperationRefused) as caught:
        await fake.commit(Transaction((DeleteSet("c4_32"),), "test"))
    assert caught.value.errno == errno.EBUSY


async def test_rules_make_the_table_and_their_own_sets() -> None:
    fake = FakeTables()
    await fake.replace_rules(ruleset(mode="limit"))
    await fake.replace_rules(ruleset(mode="limit"))
    assert [(item.name, item.key_length) for item in (await fake.read_table()).sets] == [
        ("followed4", 4), ("followed6", 16), ("interface_flows", 16), ("limiter4", 4), ("limiter6", 16),
        ("nearby4", 4), ("nearby6", 16), ("noted4", 4), ("noted6", 16), ("prefix_flows4", 12),
        ("prefix_flows6", 24), ("recent4", 20), ("recent6", 44), ("service_flows", 12),
        ("unfollowed", 4),
    ]  # fmt: skip


async def test_rules_that_look_into_no_set_are_refused() -> None:
    fake = await made()
    with pytest.raises(RulesetRefused, match="c4_9"):
        await fake.replace_rules(ruleset("c4_9"))
    assert (await fake.read_table()).rules == ""
    assert (await fake.read_table()).tag is None


async def test_the_generation_rises_with_what_changes() -> None:
    fake = await made()
    assert fake.generation == 2
    await fake.commit(Transaction((AddElements("c4_32", [bytes(4)]), CreateTable()), "test"))
    assert fake.generation == 2
    await fake.replace_rules(ruleset())
    await fake.replace_rules(ruleset())
    assert fake.generation == 4
    assert await fake.delete_table() is True
    assert fake.generation == 5


async def test_a_write_can_be_cut_short() -> None:
    fake = await made()
    seen: list[object] = []

    def cut(write: Transaction | Ruleset) -> None:
        seen.append(write)
        raise InterruptedError

    fake.before_write = cut
    transaction = Transaction((DeleteSet("c4_32"),), "test")
    with pytest.raises(InterruptedError):
        await fake.commit(transaction)
    with pytest.raises(InterruptedError):
        await fake.replace_rules(ruleset())
    assert seen == [transaction, ruleset()]
    assert fake.generation == 2


async def test_another_programs_commit_is_told_to_who_watches() -> None:
    fake, calls = await made(), []
    keys = fake.table.sets["c4_32"].keys  # type: ignore[union-attr]
    fake.tamper(keys.clear)
    assert fake.take_changes() == ExternalChanges()
    fake.watch(lambda: calls.append(fake.generation))
    fake.tamper(lambda: keys.add(bytes((1, 2, 3, 4))), program="crowdsec", pid=7)
    fake.tamper(lambda: setattr(fake, "table", None))
    fake.tamper(lambda: None)
    change = ElementChange("c4_32", bytes((1, 2, 3, 4)), True)
    first = fake.generation - 2
    assert fake.take_changes() == ExternalChanges(
        (
            ExternalCommit(first, 7, "crowdsec", (change,)),
            ExternalCommit(first + 1, 99, "nft", (), True),
            ExternalCommit(first + 2, 99, "nft"),
        )
    )
    assert calls == [first, first + 1, first + 2]


async def test_a_commit_that_was_not_received_is_a_loss() -> None:
    fake, calls = await made(), []
    fake.watch(lambda: calls.append(fake.generation))
    fake.tamper(lambda: setattr(fake, "table", None), received=False)
    assert fake.take_changes() == ExternalChanges((), True)
    assert fake.take_changes() == ExternalChanges()
    fake.tamper(lambda: None)
    fake.unwatch()
    assert fake.take_changes() == ExternalChanges()
    assert len(calls) == 2


BOUND = Mask(4, 32, source_bits=0)


async def test_elements_with_a_timeout_go_by_the_monotonic_clock_and_in_no_other_way() -> None:
    now = 10.0
    fake = FakeTables(monotonic=lambda: now)
    await fake.commit(
        Transaction((*MADE, CreateSet("b4_32", BOUND, 0, 60), AddElements("b4_32", [b"aaaa", b"bbbb"])), "test")
    )
    now = 40.0
    await fake.commit(Transaction((AddElements("b4_32", [b"aaaa"]), RefreshElements("b4_32", [b"bbbb"])), "test"))
    now = 69.9
    assert [sorted(piece) async for piece in fake.read_elements("b4_32")] == [[b"aaaa", b"bbbb"]]
    now = 70.0
    before = fake.generation
    assert [piece async for piece in fake.read_elements("b4_32")] == [[b"bbbb"]]
    assert {item.name: item.count for item in (await fake.read_table()).sets} == {"c4_32": 1, "b4_32": 1}
    assert fake.generation == before
    now = 100.0
    assert [piece async for piece in fake.read_elements("b4_32")] == []
    assert [piece async for piece in fake.read_elements("c4_32")] == [[bytes(4)]]


async def test_what_went_by_itself_comes_back_with_its_whole_time() -> None:
    now = 10.0
    fake = FakeTables(monotonic=lambda: now)
    made = (CreateTable(), CreateSet("b4_32", BOUND, 0, 60), AddElements("b4_32", [b"aaaa"]))
    await fake.commit(Transaction(made, "test"))
    now = 70.0
    await fake.commit(Transaction((AddElements("b4_32", [b"aaaa"]),), "test"))
    now = 129.9
    assert [piece async for piece in fake.read_elements("b4_32")] == [[b"aaaa"]]


async def test_what_changes_nothing_is_no_change_but_a_refreshment_is_one() -> None:
    fake = await made()
    await fake.commit(Transaction((CreateSet("b4_32", Mask(4, 32, source_bits=0), 0, 60),), "test"))
    before = fake.generation
    for operation, begins_anew in (
        (RefreshElements("b4_32", []), 0),
        (AddElements("c4_32", [bytes(4)]), 0),
        (RefreshElements("b4_32", [bytes(4)]), 1),
        (RemoveElements("b4_32", []), 1),
    ):
        await fake.commit(Transaction((operation,), "test"))
        assert fake.generation == before + begins_anew, operation


async def test_what_lets_a_flow_pass_is_asked_of_it_as_of_the_kernel() -> None:
    fake = FakeTables()
    assert await fake.read_rules() == RulesReading()
    assert await fake.find_elements([("c4_32", bytes(4))]) == frozenset()
    fake = await made()
    rules = compile_ruleset("gatewayd", OBSERVE, {HOSTS: "c4_32"}, 1)
    await fake.replace_rules(rules)
    assert await fake.read_rules() == RulesReading(parse_tag(rules.tag), frozenset({"c4_32"}))
    there = ("c4_32", bytes(4))
    assert await fake.find_elements([there, ("c4_32", b"other"[:4]), ("c4_31", bytes(4))]) == {there}
    with pytest.raises(OperationRefused):
        await fake.find_elements([("c4_32", bytes(8))])


# -- the rules count


async def counts(fake: FakeTables, set_name: str) -> list[Counted]:
    return [each async for piece in fake.read_counts(set_name) for each in piece]


async def test_a_table_that_is_made_again_has_another_handle() -> None:
    fake = FakeTables()
    assert await fake.read_handle() == 0
    fake = await made()
    first = await fake.read_handle()
    await fake.replace_rules(ruleset("c4_32"))
    assert await fake.read_handle() == first > 0
    await fake.delete_table()
    assert await fake.read_handle() == 0
    await fake.commit(Transaction(MADE, "test"))
    assert await fake.read_handle() > first


async def test_flows_are_counted_by_element_and_every_flow_gives_it_its_whole_time_again() -> None:
    now = 10.0
    fake = FakeTables(monotonic=lambda: now)
    assert await counts(fake, "c4_32") == []
    await fake.commit(Transaction(MADE, "test"))
    assert await counts(fake, "c4_9") == await counts(fake, "c4_32") == []
    assert fake.count("c4_32", b"aaaa")
    now += 60
    assert fake.count("c4_32", b"bbbb", 5)
    assert await counts(fake, "c4_32") == [
        Counted(b"aaaa", 1, COUNTED_TIMEOUT_S - 60),
        Counted(b"bbbb", 5, COUNTED_TIMEOUT_S),
    ]
    assert fake.count("c4_32", b"aaaa", 2)
    assert (await counts(fake, "c4_32"))[0] == Counted(b"aaaa", 3, COUNTED_TIMEOUT_S)
    assert [piece async for piece in fake.read_elements("c4_32")] == [[bytes(4)]], "they are no keys"


async def test_a_full_set_counts_what_it_has_and_nothing_new_until_a_place_is_free() -> None:
    now = 10.0
    fake = FakeTables(monotonic=lambda: now)
    await fake.commit(Transaction((CreateTable(), CreateSet("c4_32", HOSTS, 2)), "test"))
    assert fake.count("c4_32", b"aaaa")
    now += 1
    assert fake.count("c4_32", b"bbbb")
    assert not fake.count("c4_32", b"cccc")
    assert fake.count("c4_32", b"bbbb")
    now = 10.0 + COUNTED_TIMEOUT_S
    assert await counts(fake, "c4_32") == [Counted(b"bbbb", 2, 1)], "the other is gone at its last second"
    assert fake.count("c4_32", b"cccc")
    assert {each.key for each in await counts(fake, "c4_32")} == {b"bbbb", b"cccc"}


async def test_counts_come_in_pieces() -> None:
    fake = FakeTables()
    await fake.commit(Transaction((CreateTable(), CreateSet("c4_32", HOSTS, 2000)), "test"))
    for number in range(1100):
        fake.count("c4_32", number.to_bytes(4, "big"))
    assert [len(piece) async for piece in fake.read_counts("c4_32")] == [500, 500, 100]
