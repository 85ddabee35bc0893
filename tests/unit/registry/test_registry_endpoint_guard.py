"""How many endpoints the registry may open before an operator is asked."""

from __future__ import annotations

from math import inf
from typing import Any

from gatewayd.model import Extension, Registration, parse_prefix, parse_services
from gatewayd.model.registration import Changes, run_slices
from gatewayd.registry.endpoint_guard import SLICE, EndpointGuard
from gatewayd.registry.limits import WINDOW_S

NOW = 1_000_000.0


def provider(
    id: str = "VPN-1", *endpoints: str, services: str = "ipsec", closes: float = inf, **fields: Any
) -> Registration:
    extension = Extension(endpoints=tuple(sorted(map(parse_prefix, endpoints or ("198.51.100.0/24",)))))
    return Registration(
        id, "provider", fields.pop("status", "active"), (), services=parse_services(services.split()),
        valid_until_s=closes, extension=extension, **fields,
    )  # fmt: skip


def take(
    guard: EndpointGuard,
    *upserts: Registration,
    before: dict[str, Registration] | None = None,
    withdrawals: tuple[str, ...] = (),
    serial: int = 7,
    limit: int = 2,
    now: float = NOW,
    asked: str = "",
) -> Changes:
    return run_slices(
        guard.take_in_slices(
            before or {}, Changes(upserts, withdrawals), serial,
            cause="national", limit=limit, now=now, is_asked=lambda id: id == asked,
        )
    )  # fmt: skip


def many(count: int, start: int = 0) -> list[Registration]:
    return [provider(f"VPN-{number}", f"198.51.{number}.0/24") for number in range(start, start + count)]


BANK = Registration("PK-1", "bank", "active", (parse_prefix("203.0.113.0/28"),))


def test_within_the_limit_of_a_day_all_of_it_applies() -> None:
    guard = EndpointGuard()
    first = many(2)
    assert take(guard, BANK, *first) == Changes((BANK, *first), ())
    assert guard.held() is None
    assert take(guard, *many(1, 2)) == Changes((), ())
    held = guard.held()
    assert held is not None
    assert (held.prefixes, held.recent, held.limit, held.serial, held.since_s) == (1, 2, 2, 7, NOW)
    assert str(held) == "1 endpoint prefixes added beside 2 of the last 24 h, more than 2, by VPN-2"


def test_beyond_it_none_applies_and_everything_else_does() -> None:
    guard = EndpointGuard()
    assert take(guard, BANK, *many(5), withdrawals=("PK-9",)) == Changes((BANK,), ("PK-9",))
    held = guard.held()
    assert held is not None
    assert str(held) == "5 endpoint prefixes added, more than 2, by VPN-0, VPN-1, VPN-2 and 2 more"
    assert guard.in_force() == {f"VPN-{number}": None for number in range(5)}


def test_what_is_held_waits_for_a_word_and_what_opens_more_joins_it() -> None:
    guard = EndpointGuard()
    take(guard, *many(3))
    assert take(guard, *many(1, 3), serial=8) == Changes((), ())
    assert len(guard.pending) == 4
    assert guard.serial == 8
    # Of the same second: nobody accepts more than was shown.
    take(guard, *many(1, 4), serial=8)
    assert guard.serial == 9
    take(guard, *many(1, 4), serial=12)
    assert guard.serial == 9, "nothing new"
    # A day later it still waits.
    assert take(guard, BANK, now=NOW + 3 * WINDOW_S) == Changes((BANK,), ())
    assert len(guard.pending) == 5
    assert {each.id for each in guard.accept(NOW).upserts} == {f"VPN-{number}" for number in range(5)}
    assert guard.held() is None


def test_after_a_word_the_day_begins_anew() -> None:
    guard = EndpointGuard()
    take(guard, *many(2))
    take(guard, *many(1, 2))
    guard.accept(NOW)
    more = many(2, 5)
    assert take(guard, *more).upserts == tuple(more)


def test_a_day_ends_and_a_clock_that_was_set_back_does_not_make_it_longer() -> None:
    for later in (NOW + WINDOW_S + 3600, NOW - 10 * WINDOW_S):
        guard = EndpointGuard()
        take(guard, *many(2))
        more = many(2, 5)
        assert take(guard, *more, now=later).upserts == tuple(more)


def test_what_opens_no_more_is_not_asked_for() -> None:
    guard, old = EndpointGuard(), provider("VPN-1", "198.51.100.0/24", "2001:db8:7::/48", services="ipsec esp")
    for new in (
        provider("VPN-1", "198.51.100.0/25"),
        provider("VPN-1", "198.51.100.0/24", closes=NOW + 10),
        provider("VPN-1", "203.0.113.0/24", status="suspended"),
        provider("VPN-1", "203.0.113.0/24", closes=NOW),
    ):
        assert take(guard, new, before={"VPN-1": old}, limit=0) == Changes((new,), ())
    longer = provider("VPN-1", closes=NOW + 20)
    assert take(guard, longer, before={"VPN-1": provider("VPN-1", closes=NOW + 10)}, limit=0).upserts == (longer,)


def test_a_wider_door_is_held_and_the_former_one_stays() -> None:
    guard, old = EndpointGuard(), provider("VPN-1", "198.51.100.0/25")
    for new in (
        provider("VPN-1", "198.51.100.0/24"),
        provider("VPN-1", "198.51.100.0/25", services="ipsec wireguard"),
        provider("VPN-1", "198.51.101.0/24"),
    ):
        assert take(guard, new, before={"VPN-1": old}, limit=0) == Changes((), ())
        assert guard.in_force() == {"VPN-1": old}
    ended = provider("VPN-2", closes=NOW)
    take(guard, provider("VPN-2"), provider("VPN-3"), before={"VPN-2": ended, "VPN-3": BANK}, limit=0)
    assert guard.in_force() == {"VPN-1": old, "VPN-2": ended, "VPN-3": BANK}
    early = provider("VPN-4", valid_from_s=NOW + 5)
    take(guard, provider("VPN-4"), before={"VPN-4": early}, limit=0)
    assert guard.in_force()["VPN-4"] == early


def test_what_is_held_and_withdrawn_was_never_there() -> None:
    guard, old = EndpointGuard(), provider("VPN-1", "198.51.100.0/25")
    take(guard, provider("VPN-1"), provider("VPN-2"), before={"VPN-1": old}, limit=0)
    assert take(guard, withdrawals=("VPN-1", "VPN-2"), before={"VPN-1": old}) == Changes((), ("VPN-1",))
    assert guard.held() is None
    take(guard, provider("VPN-2"), limit=0)
    gone = provider("VPN-2", status="revoked")
    assert take(guard, gone) == Changes((gone,), ())
    assert guard.held() is None


def test_what_an_operator_names_is_his_word() -> None:
    guard = EndpointGuard()
    pin = provider("VPN-1")
    assert take(guard, pin, limit=0, asked="VPN-1") == Changes((pin,), ())


def test_a_start_goes_on_with_what_was_held() -> None:
    guard = EndpointGuard()
    take(guard, *many(3))
    again = EndpointGuard(guard.serial, guard.since_s, guard.recent)
    again.pending = dict(guard.pending)
    changes = again.changes
    wanted = {each.id: each for each in (provider("VPN-0", "198.51.0.0/24"), provider("VPN-1", status="revoked"))}
    again.begin(wanted, NOW)
    assert list(again.pending) == ["VPN-0"]
    assert take(again, serial=7) == Changes((), ())
    assert again.changes == changes


def test_many_changes_are_looked_at_in_slices() -> None:
    guard = EndpointGuard()
    upserts = tuple(Registration(f"PK-{number}", "bank", "active", ()) for number in range(2 * SLICE + 1))
    slices = guard.take_in_slices({}, Changes(upserts, ()), 7, cause="national", limit=0, now=NOW)
    assert sum(1 for _ in slices) == 2
