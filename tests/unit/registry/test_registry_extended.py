"""What is said of providers, and of provisional registrations before they end."""

from __future__ import annotations

from math import inf

from gatewayd.model import Extension, Registration, Status, parse_prefix, parse_services
from gatewayd.registry.extended import MAX_NAMED, MAX_SAID, WARN_BEFORE_S, EndingView, Extended

NOW = 1_750_000_000.0
DAY_S, HOUR_S = 86_400.0, 3_600.0


def provider(id: str = "VPN-1", *endpoints: str) -> Registration:
    extension = Extension("co-9", endpoints=tuple(map(parse_prefix, endpoints)))
    return Registration(id, "provider", "active", (), services=parse_services(["ipsec"]), extension=extension)


def provisional(id: str, in_s: float, status: Status = "active") -> Registration:
    extension = Extension(is_provisional=True)
    return Registration(id, "bank", status, (), valid_until_s=NOW + in_s, extension=extension)


def said(extended: Extended) -> list[tuple[str, str, str]]:
    changes, more = extended.take_changes()
    assert more == 0
    return [(each.kind, each.registration.id, " ".join(map(str, each.prefixes))) for each in changes]


def test_each_endpoint_that_comes_or_goes_is_said_once() -> None:
    extended = Extended()
    extended.put(provider("VPN-1", "198.51.100.0/24"), NOW)
    assert said(extended) == [("added", "VPN-1", "198.51.100.0/24")]
    assert said(extended) == []
    extended.put(provider("VPN-1", "198.51.100.0/24", "192.0.2.0/24"), NOW)
    assert said(extended) == [("added", "VPN-1", "192.0.2.0/24")]
    extended.put(provider("VPN-1", "192.0.2.0/24"), NOW)
    assert said(extended) == [("removed", "VPN-1", "198.51.100.0/24")]
    assert extended.knows("VPN-1")
    extended.put(Registration("VPN-1", "bank", "active", (), valid_until_s=inf), NOW)
    assert said(extended) == [("removed", "VPN-1", "192.0.2.0/24")]
    assert not extended.knows("VPN-1")
    extended.drop("VPN-1")
    assert said(extended) == []
    extended.put(provider("VPN-2", "198.51.100.0/24"), NOW)
    extended.drop("VPN-2")
    assert [each[0] for each in said(extended)] == ["added", "removed"]
    view = extended.providers(held=3)
    assert (view.registrations, view.endpoints, view.added, view.removed, view.held) == (0, 0, 3, 3, 3)


def test_many_at_once_are_counted() -> None:
    extended = Extended()
    for number in range(MAX_SAID + 5):
        extended.put(provider(f"VPN-{number}", f"198.51.{number}.0/24"), NOW)
    changes, more = extended.take_changes()
    assert (len(changes), more) == (MAX_SAID, 5)
    assert extended.take_changes() == ([], 0)
    assert extended.providers(0).endpoints == MAX_SAID + 5


def ending(extended: Extended, in_s: float) -> list[str]:
    found, more = extended.take_ending(NOW + in_s)
    assert more == 0
    return [each.registration.id for each in found]


def test_an_end_is_said_days_before_and_hours_before() -> None:
    extended = Extended()
    extended.put(provisional("PK-1", 5 * DAY_S), NOW)
    assert extended.next_end() == NOW + 2 * DAY_S
    assert ending(extended, 1 * DAY_S) == []
    assert ending(extended, 2 * DAY_S) == ["PK-1"]
    assert ending(extended, 3 * DAY_S) == []
    assert ending(extended, 5 * DAY_S - 6 * HOUR_S) == ["PK-1"]
    assert ending(extended, 5 * DAY_S) == []
    assert extended.next_end() is None


def test_what_begins_late_is_said_once_and_at_once() -> None:
    extended = Extended()
    extended.put(provisional("PK-1", 1 * DAY_S), NOW)
    extended.put(provisional("PK-2", 1 * HOUR_S), NOW)
    assert ending(extended, 1.0) == ["PK-2"]
    assert ending(extended, 1 * DAY_S - 6 * HOUR_S) == ["PK-1"]


def test_a_moved_a_withdrawn_and_an_ended_one_are_not_said() -> None:
    extended = Extended()
    for id in ("MOVED", "GONE", "PLAIN"):
        extended.put(provisional(id, 5 * DAY_S), NOW)
    extended.put(provisional("MOVED", 9 * DAY_S), NOW)
    extended.drop("GONE")
    extended.put(Registration("PLAIN", "bank", "active", ()), NOW)
    extended.put(provisional("IDLE", 1 * DAY_S, "suspended"), NOW)
    assert ending(extended, 2 * DAY_S) == []
    assert ending(extended, 6 * DAY_S) == ["MOVED"]
    assert ending(extended, 20 * DAY_S) == []


def test_many_ends_at_once_are_counted_and_the_soonest_are_named() -> None:
    extended = Extended()
    for number in range(MAX_SAID + 2):
        extended.put(provisional(f"PK-{number:03}", 2 * DAY_S + number), NOW)
    view = extended.provisional(NOW)
    assert (view.total, view.ending, len(view.soonest)) == (MAX_SAID + 2, MAX_SAID + 2, MAX_NAMED)
    assert view.soonest[0] == EndingView("PK-000", "2025-06-17T15:06:40Z")
    found, more = extended.take_ending(NOW + 2 * DAY_S - WARN_BEFORE_S[-1] + 200)
    assert (len(found), more) == (MAX_SAID, 2)
    assert extended.provisional(NOW + 3 * DAY_S).total == 0
