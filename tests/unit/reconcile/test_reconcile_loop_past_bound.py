"""No bound takes away what is in force: not when something new comes first, nor after a restart or an upgrade."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gatewayd.compile import DesiredSets
from gatewayd.compile.desired import MAX_MASKS
from gatewayd.kernel.fake import FakeSet
from gatewayd.model.mask import parse_set_name
from gatewayd.model.registration import Registration
from gatewayd.reconcile.steps import forecast
from gatewayd.reconcile.tracker import SetTracker
from tests.support.planes import TABLE
from tests.support.reconciling import (
    Rig,
    WatchedTables,
    allowlist_sets,
    bound_at,
    hosts,
    oracle,
    policy,
    registered,
    subscribed,
)

REJECT = policy("reject")


async def restart(rig: Rig, order: Sequence[Registration]) -> None:
    """As the daemon does: it sees what is in the kernel before it knows the registry, which comes in any order."""
    await rig.stop()
    rig.wanted = {}
    rig.reconciler = rig._make()
    rig.reconciler.found(await rig.fake.read_table())
    for each in order:
        rig.reconciler.add(each)
        rig.wanted[each.id] = each


def in_kernel(rig: Rig, wanted: Registration) -> bool:
    found = rig.fake.looked_into()
    return all(keys <= found.get(mask, set()) for mask, keys in oracle([wanted]).items())


async def test_after_304_new_lengths_and_a_restart_whoever_was_there_is_there() -> None:
    rig = Rig(policy=REJECT)
    banks = [registered(f"bank-{number}", f"203.0.{number}.0/28", services=["ipsec"]) for number in range(9)]
    banks += [registered(f"far-{length}", "198.51.100.7", peers=[f"10.0.0.0/{length}"]) for length in range(8, 30)]
    rig.want(banks)
    await rig.settle()
    added = [
        registered(f"new-{length}-{far}", f"100.0.0.0/{length}", peers=[f"192.0.0.0/{far}"])
        for length in range(10, 29)
        for far in range(10, 26)
    ]
    assert len(added) == 304
    for order in ([*added, *banks], [*banks, *added]):
        await restart(rig, order)
        rig.reconciler.want_policy(REJECT)
        task = rig.settle()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Rig, "is_in_sync", lambda rig: rig.reconciler.unready() is None)
            await task
        assert all(in_kernel(rig, each) for each in banks)
        unprogrammed = rig.reconciler.unprogrammed()
        assert unprogrammed.keys() <= {each.id for each in added}
        assert len(rig.reconciler.tracker.masks) == MAX_MASKS
    await rig.stop()


async def test_a_form_past_a_bound_is_not_ready_by_name_and_the_former_one_stays_through_a_restart(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig(policy=REJECT)
    old, new = registered("PK-1", "203.0.113.0/28"), registered("PK-1", "203.0.113.0/29", "203.0.113.8/29")

    def crowd() -> None:
        rig.reconciler.tracker.desired._most = {"client": 2, "bound": 2, "endpoint": 2}

    crowd()
    rig.want([old, *hosts(2)])
    await rig.settle()
    rig.want([new, *hosts(2)])
    reason = "1 registrations are in the kernel in their former form alone, past a bound: PK-1"
    await rig.until(lambda: rig.reconciler.tracker.is_complete() and rig.reconciler.unready() == reason)
    assert in_kernel(rig, old)
    await restart(rig, [])
    crowd()
    for each in (new, *hosts(2)):
        rig.reconciler.add(each)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rig, "is_in_sync", lambda rig: rig.reconciler.unready() == reason)
        await rig.settle()
    assert in_kernel(rig, old)
    assert "reconcile.past_bound" in caplog.text
    rig.reconciler.remove(new)
    await rig.until(lambda: not in_kernel(rig, old))
    assert rig.reconciler.unready() is None
    await rig.stop()


async def test_sets_of_an_earlier_versions_bindings_are_left_once_what_takes_over_is_there() -> None:
    bound = bound_at(subscribed("bea"), "100.64.0.9", (1024, 2047))
    rig = Rig(wanted=[bound])
    rig.policy = REJECT
    await rig.settle()
    await rig.stop()
    assert rig.fake.table is not None
    former = parse_set_name("b4_32_s6")
    assert former is not None
    held = FakeSet(former[0], 8, 0, timeout_s=7200)
    held.put([bytes((100, 64, 0, 9, 4, 0, 0, 0))], rig.monotonic.now)
    rig.fake.table.sets = {"b4_32_s6": held}
    rig.fake.table.used = frozenset({"b4_32_s6"})
    rig.fake.table.rules = rig.fake.table.rules.replace("b4_32_s8", "b4_32_s6")
    rig.fake.after_write = lambda write: _passes(rig.fake)
    await rig.restart()
    rig.reconciler.found(await rig.fake.read_table())
    await rig.settle()
    assert set(allowlist_sets(rig.fake.table)) == {"b4_32_s8"}
    await rig.stop()


def _passes(fake: WatchedTables) -> None:
    found = fake.looked_into()
    assert any(keys for keys in found.values())


def test_a_forecast_names_whoever_would_not_be_in_the_kernel() -> None:
    desired = DesiredSets(1, protected_masks=0)
    for each in (registered("in", "10.0.0.1"), registered("out", "10.0.0.0/24")):
        desired.add(each)
    result = forecast(SetTracker(desired), REJECT, TABLE)
    assert result.unprogrammed == {"out": "needs 1 new masks for IPv4, 1 of at most 1 are in use"}
    assert result.in_former_form == []
