"""The report: each registration once, companies together, and what the numbers do not say."""

from __future__ import annotations

import msgspec
import pytest

from gatewayd.activity.days import DAY_S, Note
from gatewayd.activity.rows import Activity, DayTotal, Run
from gatewayd.api import report
from gatewayd.api.near_misses import NearMissLineView
from gatewayd.api.report import (
    ActivityView,
    ChangeCountsView,
    CountsView,
    EventView,
    GroupView,
    Kept,
    MissView,
    ProvisionalView,
    RejectedCountView,
    ReportBuilder,
    ReportView,
    UnseenView,
    UnwatchedView,
    UseView,
    activity_view,
    find_unwatched,
)
from gatewayd.api.standing import RejectedView, StepView
from gatewayd.log.ring import FollowedEvent
from gatewayd.model import Registration, parse_prefix
from gatewayd.model.registration import Extension

TODAY = 20_000  # 2024-10-04
NOW = TODAY * DAY_S + 3600.0
SINCE = NOW - 30 * DAY_S
STEP = StepView("2024-10-03T00:00:00Z", "national", 7, "", ("a", "b"), ("c",), (), 4)


RECORD = RejectedView("national", 7, 12, "PK-1", "unknown_field", "colour", False)


def registration(id: str, registrant: str | None = None, **fields: object) -> Registration:
    extension = Extension(registrant, bool(fields.pop("provisional", False)))
    made = Registration(id, "bank", "active", (parse_prefix("10.0.0.0/24"),), extension=extension)
    return msgspec.structs.replace(made, **fields)


def event(name: str, **fields: object) -> Note:
    return Note(NOW, name, msgspec.json.encode(FollowedEvent("7-1", "2024-10-04T00:00:00Z", "info", name, fields)))


def built(
    kept: Kept,
    *registrations: Registration,
    notes: tuple[str, ...] = (),
    misses: tuple[NearMissLineView, ...] = (),
) -> ReportView:
    builder = ReportBuilder(kept, SINCE, NOW)
    for each in registrations:
        builder.take(each, NOW)
    return builder.build([RejectedCountView("national", 2, {"bad_json": 2})], [RECORD], misses, notes)


def test_every_registration_is_counted_once_and_with_its_company() -> None:
    kept = Kept(
        used={
            "a": Activity(3, 300, 2, int(NOW)),
            "b": Activity(1, 50, 1, int(NOW) - 9),
            "gone": Activity(1, 1, 1, 1),
        },
        seen={"a": TODAY, "b": TODAY, "old": TODAY - 100},
        first_day=TODAY - 300,
        days=[DayTotal(TODAY, 2, 4, 350)],
    )
    found = built(
        kept,
        registration("a", "hbl"),
        registration("b"),
        registration("old", "hbl"),
        registration("new", "hbl", provisional=True, valid_until_s=NOW + 1),
        registration("ended", "hbl", valid_until_s=NOW),
        registration("off", "hbl", status="suspended"),
    )
    assert found.counts == CountsView(registered=6, effective=4, provisional=1, active=2, unseen=2, never_seen=1)
    assert found.groups == (
        GroupView("hbl", 5, 1, 1, 3, 300, "2024-10-04T01:00:00Z"),
        GroupView(None, 1, 1, 0, 1, 50, "2024-10-04T00:59:51Z"),
    )
    assert found.groups_total == 2
    assert found.unseen == (
        UnseenView("old", "hbl", "bank", "2024-06-26"), UnseenView("new", "hbl", "bank", None),
    )  # fmt: skip
    assert found.provisional == (ProvisionalView("new", "hbl", "bank", "2024-10-04T01:00:01Z", False),)
    assert found.days == (UseView("2024-10-04", 2, 4, 350),)
    assert (found.since, found.until, found.known_since) == (
        "2024-09-04T01:00:00Z", "2024-10-04T01:00:00Z", "2023-12-09",
    )  # fmt: skip
    assert found.rejected_records == (RECORD,)
    assert found.rejected == (RejectedCountView("national", 2, {"bad_json": 2}),)
    assert found.notes == ()


def test_a_company_that_was_never_seen_has_no_time() -> None:
    (group,) = built(Kept(first_day=TODAY - 300), registration("a", "hbl")).groups
    assert group == GroupView("hbl", 1, 0, 1, 0, 0, None)


def test_changes_holds_and_drains_come_from_the_file() -> None:
    notes = [
        Note(NOW, "registry.step", msgspec.json.encode(STEP)),
        event("guard.held", removals=412),
        event("connections.drained", flows=3),
        event("connections.drained", flows=4),
        event("connections.drained"),
        event("policy.in_force", mode="reject"),
    ]
    found = built(Kept(notes=notes, first_day=TODAY - 300))
    assert found.changes == (STEP,)
    assert found.change_counts == ChangeCountsView(1, 2, 1, 0, 4)
    assert found.holds == (EventView("2024-10-04T00:00:00Z", "guard.held", {"removals": 412}),)
    assert [each.event for each in found.events] == ["connections.drained"] * 3 + ["policy.in_force"]
    assert found.flows_drained == 7


def test_near_misses_of_the_time_are_listed() -> None:
    def line(id: str, last_seen: str | None) -> NearMissLineView:
        return NearMissLineView(
            id, "bank", "peer_not_listed", "no peer", "add it", "esp", "198.51.100.0/24", 3, None, last_seen
        )

    found = built(
        Kept(), misses=(line("a", "2024-10-01T00:00:00Z"), line("b", "2024-08-01T00:00:00Z"), line("c", None))
    )
    assert found.near_misses == (
        MissView("a", "peer_not_listed", "no peer", "esp", "198.51.100.0/24", 3, None, "2024-10-01T00:00:00Z"),
    )


def test_lists_are_bounded_and_the_newest_of_what_happened_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_ITEMS", 2)
    notes = [event("guard.held", serial=number) for number in range(5)]
    registrations = [registration(f"r{number}", f"company-{number}") for number in range(5)]
    found = built(Kept(notes=notes, first_day=0), *registrations)
    assert [each.fields["serial"] for each in found.holds] == [3, 4]
    assert (len(found.unseen), found.counts.unseen) == (2, 5)
    assert (len(found.groups), found.groups_total) == (2, 5)


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (Kept(), "has no day yet"),
        (Kept(first_day=TODAY - 3), "known since 2024-10-01 only"),
        (Kept(first_day=TODAY - 30), ""),
        (Kept(first_day=0, days=[DayTotal(TODAY, 1, 4, 0)]), "nf_conntrack_acct is 0"),
        (Kept(first_day=0, days=[DayTotal(TODAY, 1, 0, 0)]), ""),
        (Kept(first_day=0, days=[DayTotal(TODAY, 1, 4, 9)]), ""),
        (
            Kept(
                first_day=0, notes=[Note(NOW, "registry.step", b"["), Note(NOW, "guard.held", b"\xff"), event("a")]
            ),
            "2 events of activity.sqlite are damaged and left out",
        ),
    ],
)
def test_what_the_numbers_do_not_say_is_said(kept: Kept, said: str) -> None:
    found = built(kept, notes=("the caller's",)).notes
    assert found[0] == "the caller's"
    assert said in " ".join(found[1:])
    assert bool(found[1:]) is bool(said)


def test_times_without_a_daemon_are_found() -> None:
    runs = [Run(5000, 6000), Run(0, 1000), Run(1050, 3000), Run(3091, 4000), Run(9000, 9500)]
    assert list(find_unwatched(runs, 3500, 7000)) == [
        UnwatchedView("1970-01-01T01:06:40Z", "1970-01-01T01:23:20Z"),
        UnwatchedView("1970-01-01T01:40:00Z", "1970-01-01T01:56:40Z"),
    ]  # fmt: skip
    assert len(list(find_unwatched(runs, 0, 10_000))) == 3
    assert list(find_unwatched([], 0, 9)) == []


def test_the_use_of_one_registration() -> None:
    assert activity_view(registration("a", "hbl"), Activity(3, 300, 2, int(NOW)), NOW, NOW) == ActivityView(
        "a", "hbl", "bank", "active", False, True, 3, 300, 2, "2024-10-04T01:00:00Z"
    )
    assert activity_view(registration("a", status="revoked"), None, NOW - 90 * DAY_S, NOW) == ActivityView(
        "a", None, "bank", "revoked", False, False, 0, 0, 0, "2024-07-06T01:00:00Z"
    )
    assert activity_view(registration("a"), None, None, NOW).last_seen_at is None


def test_provisional_registrations_stand_apart_the_next_to_end_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_ITEMS", 2)
    ends = [registration(f"r{day}", provisional=True, valid_until_s=NOW + day * DAY_S) for day in (9, 2, 5)]
    found = built(Kept(used={"r9": Activity(1, 1, 1, int(NOW))}), *ends)
    assert [(each.id, each.used) for each in found.provisional] == [("r2", False), ("r9", True)]
    assert found.counts.provisional == 3


def test_an_identity_has_no_place() -> None:
    """Neither a subscriber nor an address is in any field of it."""
    subscriber = b"\xd1" * 32
    found = built(Kept(), registration("a", subscriber=subscriber))
    body = msgspec.json.encode(found) + msgspec.json.encode(activity_view(registration("a"), None, None, NOW))
    assert subscriber.hex().encode() not in body
    assert b"10.0.0" not in body
