from __future__ import annotations

from dataclasses import replace as put
from typing import Any

import pytest
from msgspec.structs import replace

from gatewayd.api.near_misses import NearMissList
from gatewayd.api.standing import HeldList, HeldRemovalView, RejectedList, RejectedView
from gatewayd.api.status import ClockView, HoldView, SourceView, StatusView, UnprogrammedView
from gatewayd.assertions.states import AssertionsView, FailingView
from gatewayd.doctor.findings import Finding, HostView
from gatewayd.model.policy import Stage
from gatewayd.model.transaction import ConntrackSize
from gatewayd.page.problems import MAX_OF_KIND, Findings, Problem, problems_of
from gatewayd.registry.extended import EndingView, ProvisionalView
from gatewayd.registry.layers import OverrideCounts
from gatewayd.state_file.view import StateFileView
from gatewayd.trial.views import ArmingView, NoticeView, OrderView, TripView
from gatewayd.watch.interfaces import InterfacesView
from tests.support.fake_queries import DEAF, GUARDED, PEACE, TROUBLE
from tests.support.pages import NOTHING, findings_of, near_miss


def found(view: StatusView, findings: Findings = NOTHING) -> list[tuple[str, str, str]]:
    return [(each.kind, each.subject, each.mend) for each in problems_of(view, findings)]


def arming(**fields: Any) -> StatusView:
    return replace(PEACE, arming=ArmingView(**fields))


def source(**fields: Any) -> StatusView:
    return replace(PEACE, sources=(replace(PEACE.sources[0], **fields),))


OBSERVE, REJECT = Stage("observe"), Stage("reject")
NOTICE = NoticeView("reverted", "1", "2024-11-04T02:00:00Z", REJECT, OBSERVE, "uid 0", "")
FAILING = FailingView("hq", "must_pass", "no registration has it", "Head office", "50.yaml:3", None)
CASES: list[tuple[StatusView, tuple[str, str, str]]] = [
    (
        replace(PEACE, assertions=AssertionsView(total=1, failing=1, examples=(FAILING,))),
        ("assertion fails", "hq", "gatewayd changes"),
    ),
    (
        replace(PEACE, armed=True, assertions=AssertionsView(total=1, failing=1, examples=(FAILING,))),
        ("assertion fails", "hq", "gatewayd mode observe"),
    ),
    (
        arming(trip=TripView("late_admissions", "2024-11-04T02:00:00Z", 9, 5, (), "9 late admissions in a minute")),
        ("tripped", "", "gatewayd rearm"),
    ),
    (arming(reverting=OBSERVE), ("reverting", "", "gatewayd trial")),
    (
        arming(notices=(NOTICE,)),
        ("reverted", "", "gatewayd trial --ack"),
    ),
    (arming(not_saved="disk is full"), ("mode not saved", "", "df -h /var/lib/gatewayd")),
    (
        arming(differs=True, order=OrderView(REJECT, "2024-11-04T02:00:00Z", "uid 0", "", False)),
        ("mode differs", "", "gatewayd mode --write"),
    ),
    (replace(PEACE, ready=False, reasons=("source lab is being read",)), ("not ready", "", "gatewayd status")),
    (
        replace(PEACE, kernel=put(PEACE.kernel, not_in_kernel=3)),
        ("not in kernel", "", "journalctl -u gatewayd -n 50"),
    ),
    (replace(PEACE, reload_error="policy.mode: no"), ("reload refused", "", "gatewayd check")),
    (
        replace(
            PEACE,
            registrations=replace(
                PEACE.registrations, unprogrammed=1, unprogrammed_examples=(UnprogrammedView("PK-9", "too many"),)
            ),
        ),
        ("not programmed", "PK-9", "gatewayd registrations PK-9"),
    ),
    (source(freshness="stale"), ("source stale", "national", "gatewayd sync")),
    (source(state="failing", freshness="overdue"), ("source failing", "national", "gatewayd sync")),
    (source(freshness="overdue"), ("source overdue", "national", "gatewayd sync")),
    (source(store_error="disk is full"), ("not saved", "national", "df -h /var/lib/gatewayd")),
    (source(kept=2), ("records kept", "national", "gatewayd registrations --rejected")),
    (
        replace(PEACE, overrides=OverrideCounts(faults=("10.yaml:3:5: pins[0].id: missing",))),
        ("local file", "10.yaml:3:5", "gatewayd check"),
    ),
    (
        replace(PEACE, provisional=ProvisionalView(1, 1, (EndingView("PK-7", "2024-11-05T03:00:00Z"),))),
        ("ending", "PK-7", "registry: register PK-7 for good"),
    ),
    (replace(PEACE, warnings=("no interface has the name eth9",)), ("warning", "", "gatewayd doctor")),
    (
        replace(PEACE, warnings=("none inside",), interfaces=InterfacesView(reason="none inside")),
        ("interfaces", "", "ip -br link"),
    ),
    (
        replace(PEACE, clock=ClockView("2024-11-05T03:00:00Z", None, None, "ahead", "NTP", 9.0)),
        ("clock", "", "timedatectl timesync-status"),
    ),
    (DEAF, ("journal suspended", "", "df -h /var/lib/gatewayd")),
    (
        replace(PEACE, state_files=(StateFileView("near-misses", "failing", "disk is full"), StateFileView("a"))),
        ("not written", "near-misses.sqlite", "df -h /var/lib/gatewayd"),
    ),
]


@pytest.mark.parametrize(("view", "problem"), CASES, ids=[problem[0] for _, problem in CASES])
def test_each_trouble_has_its_command(view: StatusView, problem: tuple[str, str, str]) -> None:
    assert found(view) == [problem]


def test_what_the_daemon_sees_of_its_host_has_the_command_of_the_doctor() -> None:
    found = (
        Finding("rp-filter", "warning", "rp_filter is 1", "answers are dropped", setting="kernel.x: 1"),
        Finding("forwarding", "fault", "forwarding is off", "nothing passes", "sysctl -w net.ipv4.ip_forward=1"),
        Finding("versions", "note", "Linux 6.1", "worth knowing"),
        Finding("bridge", "warning", "br0", "not judged"),
    )
    assert problems_of(replace(PEACE, host=HostView(PEACE.now, found)), NOTHING) == (
        Problem("host warning", "rp-filter", "rp_filter is 1: answers are dropped", "kernel.x: 1", "doubtful"),
        Problem(
            "host fault",
            "forwarding",
            "forwarding is off: nothing passes",
            "sysctl -w net.ipv4.ip_forward=1",
            "bad",
        ),
        Problem("host warning", "bridge", "br0: not judged", "gatewayd doctor", "doubtful"),
    )  # fmt: skip


def test_in_peace_nothing_is_wrong() -> None:
    quiet = replace(
        PEACE,
        conntrack=ConntrackSize(1, 1_000, dropped=7),  # of the past: the counter never goes back
        sources=(*PEACE.sources, SourceView("lab", "file:/lab.csv", "waiting")),
        arming=ArmingView(
            notices=(NoticeView("ended", "1", "2024-11-04T02:00:00Z", REJECT, OBSERVE, "uid 0", ""),)
        ),
    )
    assert found(quiet) == []


def test_not_in_the_kernel_is_said_once() -> None:
    kinds = [each.kind for each in problems_of(TROUBLE, NOTHING)]
    assert kinds.count("not ready") == 2
    assert "not in kernel" not in kinds


def test_what_the_guard_holds_names_whose_it_is_and_what_accepts_it() -> None:
    hold = HoldView(17, "2024-11-04T01:00:00Z", 1205, "too many", {"national": 1204, "registry/endpoints": 1})
    view = replace(PEACE, held=(hold,))
    removal = HeldRemovalView("PK-1", "bank", (), "nothing", "national", None, 0)
    held = HeldList(17, None, "", 1204, 0, (removal,))
    problems = problems_of(view, findings_of(held=held))
    assert [(each.subject, each.reason, each.mend) for each in problems] == [
        ("national", "1,204 removals (PK-1) for 2h: too many", "gatewayd held; gatewayd accept 17"),
        ("registry/endpoints", "1 addition for 2h: too many", "gatewayd held; gatewayd accept 17"),
    ]
    assert problems_of(view, NOTHING)[0].reason == "1,204 removals for 2h: too many"


def near_misses(number: int, total: int) -> NearMissList:
    return NearMissList(total, 0, 0, tuple(near_miss(f"PK-{each}") for each in range(number)))


def test_near_misses_and_rejected_records_come_with_the_change_that_mends_them() -> None:
    rejected = RejectedList(
        2, 2, 0,
        (
            RejectedView("national", 17, 4, "PK-3", "prefix_host_bits", "clients", False),
            RejectedView("national", 18, 9, None, "bad_json", "", True),
        ),
    )  # fmt: skip
    problems = problems_of(PEACE, findings_of(near_misses=near_misses(1, 1), rejected=rejected))
    assert problems == (
        Problem(
            "near miss", "PK-0", "Khyber Bank: gre is not among its services; 3 flows, the last 40s ago",
            "registry: add gre", "doubtful", "PK-0",
        ),
        Problem(
            "rejected", "PK-3", "national, line 4 of serial 17: prefix_host_bits (clients)",
            "registry: mend line 4", "doubtful",
        ),
        Problem(
            "rejected", "no id", "national, line 9 of a delta to serial 18: bad_json", "registry: mend line 9",
            "doubtful",
        ),
    )  # fmt: skip


@pytest.mark.parametrize(("number", "total", "more"), [(6, 6, None), (7, 7, 1), (7, 400, 394), (6, 400, 394)])
def test_of_a_kind_a_few_are_listed_and_the_rest_is_counted(number: int, total: int, more: int | None) -> None:
    problems = problems_of(PEACE, findings_of(near_misses=near_misses(number, total)))
    assert [each.subject for each in problems[:MAX_OF_KIND]] == [f"PK-{each}" for each in range(MAX_OF_KIND)]
    rest = [(each.reason, each.mend) for each in problems[MAX_OF_KIND:]]
    assert rest == ([] if more is None else [(f"and {more} more", "gatewayd impact near-misses")])
    assert sum(each.count for each in problems) == max(number, total)


def test_a_near_miss_that_comes_again_does_not_change_its_place() -> None:
    found = near_misses(3, 3)
    again = replace(found, items=(found.items[2], found.items[0], found.items[1]))
    assert problems_of(PEACE, findings_of(near_misses=again)) == problems_of(PEACE, findings_of(near_misses=found))


def test_the_order_is_that_of_danger() -> None:
    kinds = [each.kind for each in problems_of(GUARDED, findings_of(near_misses=near_misses(1, 1)))]
    assert kinds == [
        "not saved", "records kept", "source failing", "source stale", "source stale", "near miss",
        *["local file"] * 7,
    ]  # fmt: skip
