"""Changes of the mode on a kernel in memory: what the rules are at each moment, and what is left after a fault."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gatewayd.api.arming import ModeRequest
from gatewayd.control.arming_queries import Arming, check_nothing
from gatewayd.control.trial_keeper import APPLY_PATIENCE_S, TrialKeeper
from gatewayd.control.trial_store import TrialStore
from gatewayd.errors import InputRejected
from gatewayd.model.flow import Mode
from gatewayd.model.policy import Stage
from gatewayd.settings.model import TripSettings
from gatewayd.trial.state import ChangeRefused, Trip
from tests.support.manual_clock import START_S, Time, until
from tests.support.owning import Owning, flow, owning, registration, settings_of
from tests.support.refusing_disk import RefusingDisk

BANK = registration("BANK", "39.32.0.0/28")
LARGE = registration("LARGE", "39.33.0.0/28", peers=[f"198.18.{n >> 8}.{n & 255}" for n in range(5000)])
"""Past the bound of one registration."""
OBSERVE, REJECT = Stage("observe"), Stage("reject")
BY = "uid 0"


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    async def in_this_thread(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", in_this_thread)
    with Time() as made:
        yield made


class Gateway:
    """`restart`: another daemon on the same kernel and disk."""

    def __init__(self, it: Owning) -> None:
        self.it = it
        self.arming = Arming(it.trials, check_nothing)

    @property
    def mode(self) -> Mode:
        return self.it.reconciler.mode_in_force

    @property
    def kernel_mode(self) -> str:
        """As the rules say that were written last."""
        return self.it.rulesets()[-1].tag.partition("mode=")[2].partition(" ")[0]

    async def order(self, mode: Mode, **asked: Any) -> None:
        wanted: dict[str, Any] = {
            "canary_percent": None, "confirm_s": None, "for_s": None, "comment": "", "is_forced": False,
        }  # fmt: skip
        await self.arming.set_mode(ModeRequest(mode, **{**wanted, **asked}, by=BY))

    @property
    def pending(self) -> bool:
        return self.it.trials.state.trial is not None

    def notices(self) -> list[str]:
        return [each.kind for each in self.it.trials.state.notices]


@asynccontextmanager
async def gateway(time: Time, **policy: Any) -> AsyncIterator[Gateway]:
    """Observe by its file, unless `policy` says otherwise; in force."""
    async with owning(time.clock, settings_of("national", **{"mode": "observe", **policy})) as it:
        await it.read("national", BANK)
        await it.in_sync()
        yield Gateway(it)


def refused(sentence: str) -> Any:
    return pytest.raises(ChangeRefused, match=sentence)


# -- a trial ---------------------------------------------------------------------------------------------------


def test_a_trial_is_in_the_kernel_when_its_command_returns_and_back_in_time(time: Time) -> None:
    async def scenario() -> None:
        async with gateway(time) as it:
            await it.order("reject", confirm_s=600, canary_percent=10)
            assert (it.mode, it.kernel_mode, it.it.reconciler.unready()) == ("reject", "reject", None)
            policy = it.it.reconciler.policy_in_force
            assert policy is not None
            assert policy.canary_percent == 10
            await asyncio.sleep(590)
            assert it.mode == "reject"
            await asyncio.sleep(10.5)
            assert (it.mode, it.kernel_mode, it.pending) == ("observe", "observe", False)
            assert it.notices() == ["reverted"]
            in_force = it.it.controller.policy_in_force
            assert in_force is not None
            assert in_force.by == "the end of trial t1"
            await it.arming.acknowledge(BY)
            assert it.notices() == []

    time.run(scenario())


def test_a_confirmed_mode_stays_until_the_file_says_another(time: Time) -> None:
    async def scenario() -> None:
        async with gateway(time) as it:
            await it.order("reject", confirm_s=60)
            await it.arming.confirm(BY)
            await asyncio.sleep(3600)
            assert (it.mode, it.pending) == ("reject", False)
            view = it.arming.view()
            assert (view.differs, view.file, view.wanted) == (True, OBSERVE, REJECT)
            it.it.trials.use_file(OBSERVE)  # read again, and as it was
            await asyncio.sleep(2)
            assert it.mode == "reject"
            it.it.trials.use_file(Stage("limit"))
            it.it.configure(mode="limit")
            await until(lambda: it.mode == "limit")

    time.run(scenario())


def test_revert_takes_it_back_at_once(time: Time) -> None:
    async def scenario() -> None:
        async with gateway(time) as it:
            await it.order("reject", confirm_s=600)
            began_s = time.clock()
            await it.arming.revert(BY)
            assert (it.mode, it.pending, it.notices()) == ("observe", False, [])
            assert time.clock() - began_s < 1.0

    time.run(scenario())


def test_the_canary_is_tried_and_taken_back_like_a_mode(time: Time) -> None:
    async def scenario() -> None:
        async with gateway(time, mode="reject", canary_percent=10) as it:
            await it.order("reject", canary_percent=50, confirm_s=60)
            assert it.arming.view().wanted == Stage("reject", 50)
            await asyncio.sleep(61)
            policy = it.it.reconciler.policy_in_force
            assert policy is not None
            assert (policy.mode, policy.canary_percent) == ("reject", 10)

    time.run(scenario())


def test_without_a_canary_it_stays_as_it_is(time: Time) -> None:
    async def scenario() -> None:
        async with gateway(time, canary_percent=10) as it:
            await it.order("limit")
            await it.order("reject", canary_percent=30)
            await it.order("limit")
            assert it.arming.view().wanted == Stage("limit", 30)
            assert it.mode == "limit"

    time.run(scenario())


def test_a_second_confirm_moves_the_end_and_needs_no_new_rules(time: Time) -> None:
    async def scenario() -> None:
        async with gateway(time) as it:
            await it.order("reject", confirm_s=60)
            rulesets = len(it.it.rulesets())
            await asyncio.sleep(50)
            await it.order("reject", confirm_s=60)
            await asyncio.sleep(50)
            assert it.mode == "reject"
            assert len(it.it.rulesets()) == rulesets
            await asyncio.sleep(11)
            assert it.mode == "observe"

    time.run(scenario())


def test_a_timed_trial_ends_by_itself(time: Time) -> None:
    async def scenario() -> None:
        async with gateway(time) as it:
            await it.order("reject", for_s=7200)
            await asyncio.sleep(7190)
            assert it.mode == "reject"
            await asyncio.sleep(11)
            assert (it.mode, it.notices(), it.it.trials.reverts) == ("observe", ["ended"], 0)

    time.run(scenario())


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_the_clock_is_set_by_an_hour_and_the_trial_lasts_as_long_as_it_was_to(time: Time, step_s: float) -> None:
    async def scenario() -> None:
        async with gateway(time) as it:
            await it.order("reject", confirm_s=600)
            time.clock.set_by(step_s)
            await asyncio.sleep(595)
            assert it.mode == "reject"
            await asyncio.sleep(6)
            assert it.mode == "observe"

    time.run(scenario())


def test_it_is_reminded_of_three_times(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        caplog.set_level(logging.INFO)
        async with gateway(time) as it:
            await it.order("reject", confirm_s=600)
            for seconds, times in ((298, 0), (4, 1), (175, 1), (5, 2), (56, 2), (4, 3)):
                await asyncio.sleep(seconds)
                assert caplog.text.count("trial.reminder") == times

    time.run(scenario())


# -- what cannot be done ---------------------------------------------------------------------------------------


def test_an_apply_that_the_kernel_refuses_leaves_no_timer_and_says_so(time: Time) -> None:
    async def scenario() -> None:
        async with gateway(time) as it:
            it.it.refuse_writes = True
            began_s = time.clock()
            with refused("reject, canary 100% is not in force, and no timer remains: the kernel did not take it"):
                await it.order("reject", confirm_s=600)
            assert APPLY_PATIENCE_S <= time.clock() - began_s < APPLY_PATIENCE_S + 2
            assert (it.pending, it.mode, it.arming.view().wanted) == (False, "observe", OBSERVE)
            it.it.refuse_writes = False
            await asyncio.sleep(700)
            assert (it.mode, it.notices()) == ("observe", [])

    time.run(scenario())


def test_observe_is_allowed_while_a_change_is_being_applied(time: Time) -> None:
    async def scenario() -> None:
        async with gateway(time) as it:
            it.it.refuse_writes = True
            order = asyncio.create_task(it.order("reject", confirm_s=600))
            await until(lambda: it.pending)
            await asyncio.sleep(1)
            with refused("is being applied"):
                await it.order("limit", confirm_s=600)
            await it.order("observe")
            with refused("came first"):
                await order
            it.it.refuse_writes = False
            await asyncio.sleep(60)
            assert (it.mode, it.pending) == ("observe", False)

    time.run(scenario())


def test_a_client_that_goes_does_not_cut_a_change_short(time: Time) -> None:
    async def scenario() -> None:
        async with gateway(time) as it:
            it.it.refuse_writes = True
            order = asyncio.create_task(it.order("reject", confirm_s=600))
            await until(lambda: it.pending)
            order.cancel()
            it.it.refuse_writes = False
            await until(lambda: it.mode == "reject", within_s=20)
            await until(lambda: it.it.trials.state.trial is not None and it.it.trials.state.trial.is_applied)

    time.run(scenario())


def test_a_kernel_that_does_not_take_the_way_back_is_asked_until_it_does(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with gateway(time) as it:
            await it.order("reject", confirm_s=60)
            it.it.refuse_writes = True
            await asyncio.sleep(100)
            assert (it.mode, it.pending) == ("reject", False)
            assert it.arming.view().reverting == OBSERVE
            assert caplog.text.count("mode.step_back_waits") in (3, 4)
            it.it.refuse_writes = False
            await until(lambda: it.mode == "observe", within_s=15)
            await until(lambda: it.arming.view().reverting is None)
            assert "mode.stepped_back" in caplog.text

    time.run(scenario())


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({"enforce_from": START_S + 7200}, "enforce_from and enforce_until of the file say observe now"),
        ({"enforce_until": START_S - 7200}, "enforce_from and enforce_until of the file say observe now"),
    ],
)
def test_what_the_schedule_keeps_at_observe_is_refused(time: Time, policy: Any, sentence: str) -> None:
    async def scenario() -> None:
        async with gateway(time, **policy) as it:
            with refused(sentence):
                await it.order("reject", confirm_s=600)

    time.run(scenario())


def test_nothing_is_armed_while_the_gateway_is_not_ready(time: Time) -> None:
    async def scenario() -> None:
        async with owning(time.clock, settings_of("national", mode="observe")) as it:
            with refused("while the gateway is not ready: source national is being read"):
                await Gateway(it).order("reject", confirm_s=600)

    time.run(scenario())


def test_limit_without_a_rate_is_refused(time: Time) -> None:
    async def scenario() -> None:
        async with gateway(time) as it:
            treatment = it.it.controller.settings.policy.on_unregistered
            it.it.configure(on_unregistered=type(treatment)(limit=None))
            with refused("on_unregistered.limit of the file is null"):
                await it.order("limit")

    time.run(scenario())


def test_what_breaks_an_assertion_is_refused(time: Time) -> None:
    async def scenario() -> None:
        async with gateway(time) as it:
            asked: list[object] = []

            async def check(stage: Stage, by: str, is_forced: bool) -> None:
                asked.append((stage, by))
                if not is_forced:
                    raise InputRejected("must_pass hbl: it would be refused")

            it.arming = Arming(it.it.trials, check)
            with pytest.raises(InputRejected, match="must_pass hbl"):
                await it.order("reject")
            assert asked == [(REJECT, BY)]
            await it.order("reject", is_forced=True)
            await it.order("observe")
            assert it.mode == "observe"

    time.run(scenario())


# -- the trip --------------------------------------------------------------------------------------------------


def test_a_trip_is_observe_at_once_until_it_is_rearmed(time: Time) -> None:
    async def scenario() -> None:
        async with gateway(time, mode="reject") as it:
            await it.it.trials.trip(Trip("late_admissions", time.clock(), 75, 60))
            await until(lambda: it.mode == "observe", within_s=1)
            with refused("has tripped"):
                await it.order("reject", confirm_s=60)
            await it.order("observe")
            await asyncio.sleep(3600)
            assert it.mode == "observe"
            await it.arming.rearm(BY)
            await asyncio.sleep(5)
            assert it.mode == "observe"  # an operator said so meanwhile
            await it.order("reject")
            assert it.mode == "reject"

    time.run(scenario())


def test_rearmed_the_mode_of_before_is_in_force(time: Time) -> None:
    async def scenario() -> None:
        async with gateway(time, mode="reject") as it:
            await it.order("reject", canary_percent=50, confirm_s=60)
            await it.it.trials.trip(Trip("late_admissions", time.clock(), 75, 60))
            await asyncio.sleep(5)
            assert (it.mode, it.pending) == ("observe", False)
            await it.arming.rearm(BY)
            await until(lambda: it.mode == "reject")
            assert it.arming.view().wanted == Stage("reject", 100)

    time.run(scenario())


def late_flows(number: int) -> list[Any]:
    """Of the bank, as the kernel logs them where their element was late."""
    return [flow(f"39.32.0.{number % 14 + 1}", port=40000 + number, destination=f"198.51.100.{number}")]


def test_late_admissions_past_the_threshold_trip_with_their_evidence(time: Time) -> None:
    async def scenario() -> None:
        trip = TripSettings(late_admissions=5)
        async with gateway(time, mode="reject", trip=trip) as it:
            await asyncio.sleep(2)
            for number in range(5):
                it.it.watch.on_packets(late_flows(number))
            await asyncio.sleep(2)
            assert it.mode == "reject"
            for number in range(50):  # a client that tries again is counted once
                it.it.watch.on_packets([flow("39.32.0.1", port=50000 + number, destination="198.51.100.0")])
            await asyncio.sleep(2)
            assert it.mode == "reject"
            it.it.watch.on_packets(late_flows(7))
            await until(lambda: it.mode == "observe", within_s=2)
            shown = it.arming.view().trip
            assert shown is not None
            assert (shown.cause, shown.count, shown.threshold, shown.names) == ("late_admissions", 6, 5, ("BANK",))
            await asyncio.sleep(600)
            assert it.mode == "observe"
            await it.arming.rearm(BY)
            await until(lambda: it.mode == "reject")
            await asyncio.sleep(600)
            assert it.mode == "reject"

    time.run(scenario())


def test_nothing_trips_into_enforcement_nor_while_nothing_is_enforced(time: Time) -> None:
    async def scenario() -> None:
        trip = TripSettings(late_admissions=0)
        async with gateway(time, trip=trip) as it:
            await asyncio.sleep(2)
            for number in range(5):
                it.it.watch.on_packets(late_flows(number))
            await asyncio.sleep(5)
            assert (it.mode, it.arming.view().trip) == ("observe", None)
            await it.order("reject")
            await asyncio.sleep(5)
            assert it.mode == "reject"  # what was there when it was armed is the ground

    time.run(scenario())


def test_near_misses_and_unprogrammed_registrations_trip_too(time: Time) -> None:
    async def scenario() -> None:
        trip = TripSettings(near_misses=2, unprogrammed=0)
        async with gateway(time, mode="reject", trip=trip) as it:
            await asyncio.sleep(2)
            for number in range(3):
                it.it.watch.on_near([flow("39.32.0.1", "tcp/1194", destination=f"198.51.100.{number}")])
            await until(lambda: it.mode == "observe", within_s=2)
            shown = it.arming.view().trip
            assert shown is not None
            assert (shown.cause, shown.names) == ("near_misses", ("BANK",))
        async with gateway(time, mode="reject", trip=trip) as it:
            await asyncio.sleep(2)
            await it.it.read("national", BANK, LARGE)
            await until(lambda: it.mode == "observe", within_s=5)
            shown = it.arming.view().trip
            assert shown is not None
            assert (shown.cause, shown.names) == ("unprogrammed", ("LARGE",))

    time.run(scenario())


def test_a_trip_outlives_a_restart_and_a_reboot(time: Time, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with restarted(time, tmp_path, None, mode="reject") as first:
            await first.it.trials.trip(Trip("late_admissions", time.clock(), 75, 60, ("BANK",)))
            await until(lambda: first.mode == "observe")
        async with restarted(time, tmp_path, None, mode="reject") as second:
            assert second.mode == "observe"
            await second.arming.rearm(BY)
            await until(lambda: second.mode == "reject")
        async with restarted(time, tmp_path, second, mode="reject") as third:
            assert third.mode == "reject"

    time.run(scenario())


# -- the disk, and a restart -----------------------------------------------------------------------------------


@asynccontextmanager
async def restarted(
    time: Time, directory: Path, before: Gateway | None, disk: RefusingDisk | None = None, **policy: Any
) -> AsyncIterator[Gateway]:
    """A daemon on a disk, and on the kernel of one before it."""
    tables = None if before is None else before.it.tables
    settings = settings_of("national", **{"mode": "observe", **policy})
    store = TrialStore(directory, replace_file=(disk or RefusingDisk()).replace)
    async with owning(time.clock, settings, tables=tables, trial_store=store) as it:
        found = None if before is None else before.mode
        it.reconciler.found(await it.tables.read_table())
        kept = store.recall(settings.policy.stage, it.host_time.instant(), found)
        it.trials.say_restored(kept)
        await it.read("national", BANK)
        await it.in_sync()
        yield Gateway(it)


def test_restarted_within_the_window_the_trial_goes_on_and_reverts_in_time(time: Time, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with restarted(time, tmp_path, None) as first:
            await first.order("reject", confirm_s=600)
            await asyncio.sleep(300)
        async with restarted(time, tmp_path, first) as second:
            assert (second.mode, second.pending) == ("reject", True)
            await asyncio.sleep(295)
            assert second.mode == "reject"
            await asyncio.sleep(6)
            assert (second.mode, second.notices()) == ("observe", ["reverted"])
        async with restarted(time, tmp_path, second) as third:
            assert (third.mode, third.notices()) == ("observe", ["reverted"])

    time.run(scenario())


def test_restarted_after_the_window_it_comes_back_reverted(time: Time, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with restarted(time, tmp_path, None) as first:
            await first.order("reject", confirm_s=600)
        await asyncio.sleep(700)
        async with restarted(time, tmp_path, first) as second:
            assert (second.mode, second.notices()) == ("observe", ["reverted"])

    time.run(scenario())


def test_confirmed_and_restarted_the_file_counts(time: Time, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with restarted(time, tmp_path, None) as first:
            await first.order("reject", confirm_s=600)
            await first.arming.confirm(BY)
            await asyncio.sleep(2)
        async with restarted(time, tmp_path, first) as second:
            assert (second.mode, second.notices()) == ("observe", [])
        async with restarted(time, tmp_path, second, mode="reject") as third:
            await third.order("observe")
        async with restarted(time, tmp_path, third, mode="reject") as fourth:
            assert fourth.mode == "observe"  # nothing is armed that a person took off

    time.run(scenario())


def test_a_full_disk_refuses_to_arm_and_not_to_disarm(time: Time, tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = RefusingDisk()
        async with restarted(time, tmp_path, None, disk) as it:
            await it.order("limit", confirm_s=600)
            disk.fill()
            with refused("the record of the change cannot be written .No space left on device.: nothing was"):
                await it.order("reject", confirm_s=600)
            assert it.arming.view().wanted == Stage("limit")
            await asyncio.sleep(601)
            assert (it.mode, it.arming.view().not_saved) == ("observe", "No space left on device")
            disk.mend()
            await asyncio.sleep(2)
            assert it.arming.view().not_saved is None

    time.run(scenario())


def test_a_disk_that_does_not_answer_holds_up_no_way_back(
    time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with restarted(time, tmp_path, None) as it:
            await it.order("reject", confirm_s=60)
            await it.order("reject", confirm_s=30)
            never = asyncio.Event()

            async def hang(*_: object) -> None:
                await never.wait()

            monkeypatch.setattr(asyncio, "to_thread", hang)
            await asyncio.sleep(20)
            await it.it.trials.trip(Trip("late_admissions", time.clock(), 75, 60))
            await until(lambda: it.mode == "observe", within_s=1)
            await asyncio.sleep(60)
            assert it.it.trials.state.trip is not None
            never.set()
            await asyncio.sleep(2)

    time.run(scenario())


def test_a_disk_that_fails_once_it_is_in_the_kernel_takes_it_back(time: Time, tmp_path: Path) -> None:
    async def scenario() -> None:
        disk = RefusingDisk()
        async with restarted(time, tmp_path, None, disk) as it:
            order = asyncio.create_task(it.order("reject", confirm_s=600))
            await until(lambda: it.pending, step_s=0)
            disk.fill()
            with refused("no timer remains: the record of the change cannot be written"):
                await order
            await asyncio.sleep(5)
            assert (it.mode, it.pending) == ("observe", False)
        async with restarted(time, tmp_path, it) as again:
            assert again.mode == "observe"

    time.run(scenario())


# -- the file --------------------------------------------------------------------------------------------------


def test_a_reload_while_a_trial_is_pending_is_refused_and_none_begins_meanwhile(time: Time) -> None:
    async def scenario() -> None:
        async with gateway(time) as it:
            keeper: TrialKeeper = it.it.trials
            assert keeper.refusal_of_reload() is None
            await it.order("reject", confirm_s=600)
            assert keeper.refusal_of_reload() == (
                "a trial of reject, canary 100% is pending: gatewayd confirm, gatewayd revert or gatewayd mode "
                "observe first"
            )
            await it.arming.confirm(BY)
            assert keeper.refusal_of_reload() is None
            keeper.note_reloading(is_reloading=True)
            with refused("a reload is under way"):
                await it.order("limit", confirm_s=600)

    time.run(scenario())
