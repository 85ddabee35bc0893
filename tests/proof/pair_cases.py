"""What may happen to a pair of gateways while registered traffic goes on."""

from __future__ import annotations

import re
import signal
from math import inf
from typing import Final

from gatewayd.lab.traffic import flow_of
from tests.proof.pair import (
    EARLIER,
    HOUSE,
    LANES,
    LATE_LANES,
    LAYOUT,
    NEAR_MISS,
    NEW_OF_SUBSCRIBER,
    RECORDS,
    STRANGERS,
    SUBSCRIBER,
    PairCase,
    PairWorld,
)
from tests.support.carrying import carry
from tests.support.lab_daemon import holds
from tests.support.pair import Member

MANY: Final = 20_000
REGISTERED: Final = tuple(lane for lane in LANES if lane.is_registered)


def _stop_and_back(world: PairWorld) -> None:
    world.fail_over()
    world.see_marks()
    world.fail_back()
    world.see_marks()


def _box_gone(world: PairWorld) -> None:
    world.lose_box()
    world.see_marks()


def _box_gone_and_back(world: PairWorld) -> None:
    world.lose_box()
    world.fail_back()
    world.see_marks()


def _daemon_restarted(world: PairWorld) -> None:
    daemon = world.backup.daemon
    if world.has_daemons:
        daemon.end(signal.SIGKILL)
        daemon.start()
    world.fail_over()
    world.see("daemon.ready", lambda: daemon.log_text().count("daemon.ready") == 2)
    # They came before it was ready or after that, as the processes had their turns.
    world.see_marks(is_counted=False)


def _one_daemon(world: PairWorld) -> None:
    for each in world.both:
        world.configure(each)
    world.start_daemon(world.master)


def _daemon_late(world: PairWorld) -> None:
    world.fail_over()
    if world.has_daemons:
        world.start_daemon(world.master)
        world.through()
    world.see("status: watch.flows_tracked", lambda: world.master.daemon.status()["watch"]["flows_tracked"] > 5)
    world.enforced()
    world.see("a stranger is refused", world.is_stranger_refused)


def _older_backup(world: PairWorld) -> None:
    for each in world.both:
        world.configure(each, records=EARLIER if each is world.backup else RECORDS)
        world.start_daemon(each)


def _older_serial(world: PairWorld) -> None:
    world.fail_over()
    if world.has_daemons:
        world.configure(world.master)
        world.master.daemon.sync()
    world.passes(*LATE_LANES)
    world.see_marks(LATE_LANES)
    world.see_marks()


def _observer_is_older(world: PairWorld) -> None:
    world.configure(world.master, "observe", records=EARLIER)
    world.configure(world.backup)
    for each in world.both:
        world.start_daemon(each)


def _judged_by_the_other(world: PairWorld) -> None:
    if world.has_daemons:
        first, second = (each.daemon.status()["epoch"] for each in world.both)
        assert first == second
    world.fail_over()
    world.enforced()
    world.see("status: marks.not_believed", lambda: world.master.daemon.status()["marks"]["not_believed"] > 0)
    world.see_marks(LATE_LANES)
    world.see("a stranger is refused", world.is_stranger_refused)


def _both_reload(world: PairWorld) -> None:
    if world.has_daemons:
        for each in world.both:
            world.configure(each, scope=["ipsec", "wireguard", "openvpn", "pptp", "l2tp", "udp/19007"])
        for each in world.both:
            each.daemon.reload()
    world.fail_over()

    def is_wider(member: Member) -> bool:
        return "udp/19007" in member.daemon.status()["policy"]["text"]

    world.see("status: policy", lambda: all(map(is_wider, world.both)))
    world.see_marks()


def _observers(world: PairWorld) -> None:
    world.start_daemons("observe")


def _modes(world: PairWorld) -> None:
    if world.has_daemons:
        for mode in ("mark", "limit", "reject"):
            world.configure(world.backup, mode)
            world.backup.daemon.reload()
            world.backup.daemon.wait_mode(mode)
        first, second = (each.daemon.status()["epoch"] for each in world.both)
        assert first != second
    world.fail_over()
    world.enforced()
    world.see_marks()
    world.see("a stranger is refused", world.is_stranger_refused)
    world.through()
    world.enforced(inf)
    world.fail_back()
    world.see_marks()


def _untold_backup(world: PairWorld) -> None:
    for each in world.both:
        world.configure(each)
        world.start_daemon(each, is_told=each is world.master)


def _start_late(world: PairWorld) -> None:
    world.fail_over()
    if world.has_daemons:
        world.account(world.master)
    world.passes(SUBSCRIBER, NEW_OF_SUBSCRIBER)
    world.see_marks([SUBSCRIBER])


def _trial(world: PairWorld) -> None:
    if world.has_daemons:
        world.ask(world.first, "mode", "reject", "--confirm", "10s")
        world.first.daemon.wait_mode("reject")
    world.fail_over()
    world.see("trial.reverting", lambda: "trial.reverting" in world.first.daemon.log_text())
    world.see("status: mode", lambda: world.first.daemon.status()["mode"] == "observe")
    world.see("status: mode", lambda: world.second.daemon.status()["mode"] == "observe")
    world.fail_back()
    world.see_marks()


def _drainers(world: PairWorld) -> None:
    world.start_daemons(drain="1h")


def _draining(world: PairWorld) -> None:
    if world.has_daemons:
        for each in world.both:
            world.configure(each, records=EARLIER, drain="1h")
            each.daemon.sync()
    world.see("status: marks.draining", lambda: world.master.daemon.status()["marks"]["draining"] >= 2)
    world.fail_over()


def _counted(world: PairWorld) -> None:
    def counts() -> list[int]:
        found = [each.daemon.status() for each in world.both]
        return [each["counters"]["unregistered_flows"]["packets"] for each in found]

    def near_misses() -> list[int]:
        return [each.daemon.status()["near_misses"]["flows"] for each in world.both]

    world.see("counted once", lambda: counts() == [2, 0] and near_misses() == [1, 0])
    world.fail_over()
    world.fail_back()
    world.see(
        "counted at most once a takeover",
        lambda: counts()[0] <= 4 and counts()[1] <= 2 and near_misses()[0] <= 2 and near_misses()[1] <= 1,
    )


def _flapping(world: PairWorld) -> None:
    for _ in range(3):
        world.fail_over(is_synchronised=False)
        world.rejoin()
    world.see_marks()


def _many_carried(world: PairWorld) -> None:
    mark = LAYOUT.registered if world.has_daemons else 0
    for number in range(MANY):
        far = f"198.51.{number // 250}.{number % 250 + 1}"
        carry(world.first.gateway, flow_of(HOUSE, far, "udp/51820", 20_000), mark)

    def is_there() -> bool:
        listed = re.findall(r"current active connections:\s+(\d+)", world.second.conntrackd("-s"))
        return int(listed[1]) > MANY

    assert holds(is_there, 90.0), world.second.conntrackd("-s")
    world.fail_over(is_synchronised=False)
    world.see("status: watch.flows_tracked", lambda: world.master.daemon.status()["watch"]["flows_tracked"] > MANY)


def _daemon_dead(world: PairWorld) -> None:
    if world.has_daemons:
        world.backup.daemon.end(signal.SIGKILL)
    world.fail_over()
    world.through()


def _nothing_carried(world: PairWorld) -> None:
    world.first.stop("conntrackd")
    world.fail_over(is_synchronised=False)
    world.through()


CASES: Final = (
    PairCase("keepalived stopped, and back", "The master leaves in order; later the other does.", _stop_and_back),
    PairCase("box gone", "All processes of the master end by SIGKILL, and its interfaces are down.", _box_gone),
    PairCase("box gone, and back", "It starts from nothing, and takes over again.", _box_gone_and_back),
    PairCase("three failovers", "One after the other, as fast as keepalived can.", _flapping),
    PairCase("many carried", f"{MANY:,} connections, which the other takes over.", _many_carried),
    PairCase("nothing carried", "conntrackd of the master is down.", _nothing_carried),
    PairCase("backup's daemon dead", "Its rules are in the kernel, and it is not started again.", _daemon_dead),
    PairCase("backup's daemon restarted", "It is killed and starts again while it takes over.", _daemon_restarted),
    PairCase(
        "backup's daemon late",
        "It starts for the first time when its gateway is master already.",
        _daemon_late,
        _one_daemon,
        may_lose=(NEW_OF_SUBSCRIBER.name,),
        bounded="Until accounting or a list of sessions names the subscriber, no gateway can know the address.",
        observes=True,
    ),
    PairCase(
        "backup with an older registry",
        "A registration is not there yet.",
        _older_serial,
        _older_backup,
        may_lose=tuple(lane.name for lane in LATE_LANES),
        bounded="Until the registry is read, flows of that registration pass by their mark alone. conntrackd puts "
        "it in some milliseconds after the addresses have moved.",
    ),
    PairCase(
        "judged by the other",
        "The master observes with an older registry, and has marked flows as unregistered in the same epoch.",
        _judged_by_the_other,
        _observer_is_older,
        observes=True,
    ),
    PairCase("both reload", "Both get another scope in the moment of the failover.", _both_reload),
    PairCase(
        "other mode, other epoch",
        "Both observe; then the backup changes its mode three times, and rejects.",
        _modes,
        _observers,
        observes=True,
    ),
    PairCase(
        "Start heard late",
        "The backup hears of a subscriber only after it has taken over.",
        _start_late,
        _untold_backup,
        may_lose=(SUBSCRIBER.name, NEW_OF_SUBSCRIBER.name),
        bounded="Until accounting names the subscriber, the old flow passes by its mark, and new ones are refused.",
    ),
    PairCase("trial pending", "The master is on trial in `reject`.", _trial, _observers, observes=True),
    PairCase(
        "drain pending",
        "A registration has ended on both, and its flows drain.",
        _draining,
        _drainers,
        may_lose=tuple(lane.name for lane in LATE_LANES),
        bounded="These flows are not registered any more, and pass by their mark alone. conntrackd puts it in some "
        "milliseconds after the addresses have moved.",
    ),
    PairCase(
        "counts",
        "An unregistered flow and a near miss go on over a failover and back.",
        _counted,
        _observers,
        lanes=(*REGISTERED, STRANGERS, NEAR_MISS),
        observes=True,
    ),
)
