"""Elements of bindings through the whole reconciler: they stay while it lives, and go when it does not."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from gatewayd.compile.desired import elements_of
from gatewayd.errors import ReplyMissing
from gatewayd.model.mask import Mask
from gatewayd.model.registration import BoundRegistration, Registration
from gatewayd.model.transaction import CreateSet, RefreshElements, Transaction
from gatewayd.reconcile import Reconciler, loop, steps, verify
from tests.support.manual_clock import Time, until
from tests.support.planes import TABLE
from tests.support.reconciling import (
    MonotonicClock,
    Rig,
    Wanted,
    WatchedTables,
    bound_at,
    bound_hosts,
    hosts,
    oracle,
    policy,
    probes,
    subscribed,
)

ELEMENT_TIMEOUT_S = 7200
BOUND = Mask(4, 32, source_bits=0)
DAY_S = 86400
POLL_S = 30.0
CLIENTS = hosts(5)
BOUND_REGISTRATIONS: list[BoundRegistration] = [
    *bound_hosts(40),
    *(
        bound_at(subscribed(f"cgn-{number}", services=["ipsec"]), "100.127.0.1", (number << 8, (number << 8) + 255))
        for number in range(1, 20)
    ),
    bound_at(subscribed("mobile"), "2001:db8:64::/64"),
]


def wanted_keys() -> set[tuple[str, bytes]]:
    return {(str(mask), key) for each in BOUND_REGISTRATIONS for mask, key in elements_of(each)}


def present(fake: WatchedTables) -> set[tuple[str, bytes]]:
    """Elements with a timeout that have not gone."""
    return set(fake.ages_s())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some pieces to a round, and a poll that lets days go by."""
    monkeypatch.setattr(steps, "PIECE", 8)
    monkeypatch.setattr(loop, "GENERATION_POLL_S", POLL_S)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """For rigs with a monotonic clock of their own: no waiting."""
    for name in ("FIRST_RETRY_S", "MAX_RETRY_S", "HURRIED_RETRY_S"):
        monkeypatch.setattr(loop, name, 0.0)
    monkeypatch.setattr(loop, "GENERATION_POLL_S", 0.001)
    monkeypatch.setattr(verify, "COMPARE_AT_MOST_S", 0.0)
    monkeypatch.setattr(steps, "PIECE", 8)


async def start(time: Time, fake: WatchedTables, random: Random) -> tuple[Reconciler, asyncio.Task[None]]:
    reconciler = Reconciler(
        fake,
        TABLE,
        clock=time.clock,
        monotonic=time.clock.monotonic,
        element_timeout_s=ELEMENT_TIMEOUT_S,
        spread=random.random,
    )
    wanted: list[Registration | BoundRegistration] = [*CLIENTS, *BOUND_REGISTRATIONS]
    for each in wanted:
        reconciler.add(each)
    reconciler.want_policy(policy("reject"))
    task = asyncio.create_task(reconciler.run())
    await until(lambda: reconciler.unready() is None, step_s=1.0, within_s=120.0)
    return reconciler, task


async def cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def is_whole(fake: WatchedTables) -> bool:
    """Every element of a binding is there, looked into, and by the rules not older than two thirds of its time."""
    ages = fake.ages_s()
    return (
        ages.keys() == wanted_keys()
        and max(ages.values()) <= ELEMENT_TIMEOUT_S * 2 / 3 + 3 * POLL_S
        and fake.looked_into() == oracle([*CLIENTS, *BOUND_REGISTRATIONS])
    )


@pytest.mark.usefixtures("small")
def test_in_three_days_no_element_of_a_binding_ever_goes() -> None:
    async def scenario() -> None:
        fake = WatchedTables(time.clock.monotonic)
        reconciler, task = await start(time, fake, Random(1))
        while time.clock.elapsed_s < 3 * DAY_S:
            await asyncio.sleep(600.0)
            fake.writes.clear()
            assert is_whole(fake)
        assert reconciler.stats.failures == reconciler.stats.repairs == 0
        rounds = reconciler.refreshed / len(wanted_keys())
        assert 3 * DAY_S / ELEMENT_TIMEOUT_S * 3 <= rounds <= 3 * DAY_S / ELEMENT_TIMEOUT_S * 4 + 2
        await cancel(task)

    with Time() as time:
        time.run(scenario())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", [1, 2])
def test_failures_and_outages_shorter_than_a_third_of_the_time_cost_no_element(seed: int) -> None:
    async def scenario() -> None:
        random = Random(seed)
        fake = WatchedTables(time.clock.monotonic)
        reconciler, task = await start(time, fake, random)

        def fail(_: object) -> None:
            is_out = time.clock.elapsed_s % 20_000 > 20_000 - 1800
            if is_out or random.random() < 0.1:
                raise ReplyMissing("a write", "lost")

        fake.before_write = fail
        while time.clock.elapsed_s < DAY_S:
            await asyncio.sleep(600.0)
            fake.writes.clear()
            assert present(fake) == wanted_keys()
        assert reconciler.stats.failures > 100
        fake.before_write = lambda _: None
        await asyncio.sleep(60.0)
        assert is_whole(fake)
        await cancel(task)

    with Time() as time:
        time.run(scenario())


@pytest.mark.usefixtures("small")
def test_without_the_reconciler_all_are_gone_after_the_element_timeout_and_clients_stay() -> None:
    async def scenario() -> None:
        fake = WatchedTables(time.clock.monotonic)
        _, task = await start(time, fake, Random(1))
        await asyncio.sleep(5000.0)
        await cancel(task)
        await fake.read_table()
        assert present(fake) == wanted_keys()
        time.clock.advance(ELEMENT_TIMEOUT_S / 3 - 3 * POLL_S)
        await fake.read_table()
        assert present(fake) == wanted_keys(), "two thirds at most had passed"
        time.clock.advance(ELEMENT_TIMEOUT_S * 2 / 3 + 3 * POLL_S)
        await fake.read_table()
        assert present(fake) == set()
        assert {mask: keys for mask, keys in fake.looked_into().items() if keys} == oracle(CLIENTS)
        _, task = await start(time, fake, Random(1))
        assert is_whole(fake), "another one puts them back"
        await cancel(task)

    with Time() as time:
        time.run(scenario())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("downtime_s", [1.0, 2000.0, 2 * ELEMENT_TIMEOUT_S])
def test_a_restart_asserts_at_once_what_it_finds(downtime_s: float) -> None:
    async def scenario() -> None:
        fake = WatchedTables(time.clock.monotonic)
        _, task = await start(time, fake, Random(1))
        await asyncio.sleep(5000.0)
        await cancel(task)
        time.clock.advance(downtime_s)
        before = time.clock.elapsed_s
        _, task = await start(time, fake, Random(1))
        assert is_whole(fake)
        assert max(fake.ages_s().values()) <= time.clock.elapsed_s - before
        await cancel(task)

    with Time() as time:
        time.run(scenario())


def spent(rig: Rig) -> dict[tuple[str, bytes], float]:
    assert isinstance(rig.fake, WatchedTables)
    return rig.fake.ages_s()


@pytest.mark.usefixtures("hurried")
async def test_what_a_restart_found_and_did_not_list_has_its_whole_time_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To add an element that is there leaves it the time that it had."""
    monkeypatch.setattr(verify, "SMALL_SET", 3)
    rig = Rig(wanted=[*CLIENTS, *BOUND_REGISTRATIONS])
    await rig.settle()
    await rig.stop()
    rig.monotonic.now += 6000
    await rig.restart()
    await rig.settle()
    await rig.stop()
    assert spent(rig).keys() == wanted_keys()
    assert set(spent(rig).values()) == {0.0}


@pytest.mark.usefixtures("hurried")
async def test_what_was_to_go_and_is_wanted_again_has_its_whole_time() -> None:
    bound = bound_at(subscribed("mobile"), "100.64.0.9")
    rig = Rig(wanted=[bound])
    await rig.settle()
    tracker = rig.reconciler.tracker
    rig.monotonic.now += 2000
    tracker.remove(bound)
    assert tracker.count_surplus() == 1
    tracker.add(bound)
    assert (tracker.count_surplus(), tracker.count_missing()) == (0, 1)
    await rig.until(rig.is_in_sync)
    await rig.stop()
    assert set(spent(rig).values()) == {0.0}


@pytest.mark.usefixtures("hurried")
async def test_elements_of_bindings_are_asserted_however_much_else_there_is_to_do() -> None:
    """Something is wanted or not wanted any more after each write, for four times the element timeout."""
    rig = Rig(wanted=BOUND_REGISTRATIONS)
    await rig.settle()
    restless = hosts(1, 900)[0]
    is_held, ended = False, asyncio.Event()

    def change(_: object) -> None:
        nonlocal is_held
        rig.monotonic.now += 3
        assert {key for key, age_s in spent(rig).items() if age_s < ELEMENT_TIMEOUT_S} == wanted_keys()
        (rig.reconciler.remove if is_held else rig.reconciler.add)(restless)
        is_held = not is_held
        if rig.monotonic.now > 4 * ELEMENT_TIMEOUT_S:
            ended.set()

    rig.fake.after_write = change
    rig.reconciler.add(restless)
    is_held = True
    async with asyncio.timeout(60):
        await ended.wait()
    await rig.stop()


@pytest.mark.usefixtures("hurried")
async def test_a_late_admission_of_a_binding_is_put_with_its_whole_time() -> None:
    rig = Rig(wanted=BOUND_REGISTRATIONS)
    await rig.settle()
    rig.monotonic.now += 1000
    rig.fake.writes.clear()
    rig.reconciler.prioritise([BOUND_REGISTRATIONS[0]])
    await rig.until(lambda: "late admission" in rig.fake.causes())
    await rig.stop()
    ((mask, key),) = elements_of(BOUND_REGISTRATIONS[0])
    (write,) = [
        each for each in rig.fake.writes if isinstance(each, Transaction) and each.cause == "late admission"
    ]
    assert write.operations == (RefreshElements(str(mask), [key]),)
    assert spent(rig)[str(mask), key] == 0.0


@pytest.mark.usefixtures("hurried")
async def test_a_set_with_another_timeout_gives_way_to_one_with_ours_and_nobody_loses_his_place() -> None:
    monotonic = MonotonicClock()
    wanted: list[Wanted] = [*CLIENTS, *BOUND_REGISTRATIONS]
    old = Rig(monotonic=monotonic, element_timeout_s=3600, wanted=wanted)
    await old.settle()
    await old.stop()
    kernel = old.copy_kernel()
    rig = Rig(kernel, monotonic=monotonic, element_timeout_s=ELEMENT_TIMEOUT_S, wanted=wanted)
    flows = [flow for flow in probes(wanted) if kernel.passes(flow)]
    assert len(flows) > len(wanted)

    def look(write: object) -> None:
        assert all(kernel.passes(flow) for flow in flows), f"lost by {write}"

    kernel.after_write = look
    await rig.settle()
    await rig.stop()
    assert kernel.table is not None
    timeouts = {name: each.timeout_s for name, each in kernel.table.sets.items()}
    assert {name for name, timeout_s in timeouts.items() if timeout_s} == {
        f"{mask}_g1" for mask in oracle(BOUND_REGISTRATIONS)
    }, "those of other names are gone"
    assert {timeout_s for name, timeout_s in timeouts.items() if name.startswith("b")} == {ELEMENT_TIMEOUT_S}
    assert timeouts["c4_32"] == 0
    assert rig.reconciler.stats.failures == rig.reconciler.stats.repairs == 0


@pytest.mark.usefixtures("hurried")
async def test_a_prepared_mask_is_looked_into_before_there_is_a_binding_and_the_first_waits_for_no_rules() -> None:
    rig = Rig(wanted=CLIENTS)
    rig.reconciler.prepare([BOUND])
    rig.reconciler.want_policy(rig.policy)
    await rig.settle()
    assert BOUND in rig.fake.hooked_masks()
    rig.fake.writes.clear()
    rig.want([*CLIENTS, *bound_hosts(1)])
    await rig.until(rig.is_in_sync)
    await rig.stop()
    assert rig.fake.causes() == ["add elements"]


@pytest.mark.usefixtures("hurried")
async def test_sets_of_bindings_have_a_timeout_and_no_bound_and_those_of_clients_the_opposite() -> None:
    rig = Rig(wanted=[*CLIENTS, *BOUND_REGISTRATIONS])
    await rig.settle()
    await rig.stop()
    made = [
        operation
        for write in rig.fake.writes
        if isinstance(write, Transaction)
        for operation in write.operations
        if isinstance(operation, CreateSet)
    ]
    for each in made:
        assert each.timeout_s == (ELEMENT_TIMEOUT_S if each.mask.is_bound else 0)
        assert (each.capacity == 0) == each.mask.is_bound
    assert {each.mask for each in made} == set(oracle([*CLIENTS, *BOUND_REGISTRATIONS]))


@pytest.mark.usefixtures("hurried")
async def test_an_element_of_a_binding_that_somebody_removed_is_put_back() -> None:
    rig = Rig(wanted=BOUND_REGISTRATIONS)
    await rig.settle()
    ((_, key),) = elements_of(BOUND_REGISTRATIONS[0])

    def remove() -> None:
        assert rig.fake.table is not None
        rig.fake.table.sets["b4_32"].drop(key)

    rig.fake.tamper(remove)
    await rig.until(rig.is_in_sync)
    await rig.stop()
    assert rig.reconciler.stats.repairs == 1
