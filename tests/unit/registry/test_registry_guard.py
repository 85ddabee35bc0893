"""The shrink guard: what is a loss, what is held, and what an operator's word does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from math import inf
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import SerialNotHeld
from gatewayd.feed.canonical import Damaged
from gatewayd.model import Flow, Registration, parse_prefix, parse_services
from gatewayd.model.registration import Changes, run_slices
from gatewayd.registry import guard as guard_module
from gatewayd.registry.guard import RemovalGuard, held_id
from gatewayd.registry.guard_record import GuardRecord, decode_record, encode_record
from gatewayd.registry.limits import (
    BUCKET_S,
    WINDOW_S,
    GuardDecision,
    is_loss,
    judge_remainder,
    judge_removals,
)
from gatewayd.settings import ProtectedCategory, RemovalLimit, ShrinkGuardSettings
from gatewayd.sources.override_file import parse_overrides
from tests.support.changes import construct_changes
from tests.support.strategies import flows, registrations

NOW = 1_700_000_000.0
BANKS_AT_ALL = ShrinkGuardSettings(
    max_removed=RemovalLimit(fraction=0.05),
    min_removed=2,
    protected=(ProtectedCategory("bank", RemovalLimit(count=0)),),
)


def registration(
    id: str = "a",
    category: str = "bpo",
    *clients: str,
    peers: tuple[str, ...] = (),
    services: tuple[str, ...] = (),
    **fields: Any,
) -> Registration:
    made = Registration(
        id,
        category,
        "active",
        tuple(sorted(parse_prefix(text) for text in clients or ("203.0.113.0/28",))),
        peers=tuple(sorted(parse_prefix(text) for text in peers)),
        services=parse_services(services),
    )
    return msgspec.structs.replace(made, **fields)


def registry(*all: Registration) -> dict[str, Registration]:
    return {each.id: each for each in all}


# -- loss --------------------------------------------------------------------------------------------------

WHOLE = registration("a", "bpo", "203.0.113.0/24", peers=("198.51.100.0/24",), services=("udp/500-600", "esp"))


def changed(**fields: Any) -> Registration:
    return msgspec.structs.replace(WHOLE, **fields)


def prefixes(*texts: str) -> tuple[object, ...]:
    return tuple(sorted(parse_prefix(text) for text in texts))


@pytest.mark.parametrize(
    "new",
    [
        WHOLE,
        changed(clients=prefixes("203.0.112.0/23")),
        changed(clients=prefixes("203.0.113.0/24", "2001:db8::/48")),
        changed(clients=prefixes("203.0.113.0/25", "203.0.113.128/25")),
        changed(peers=()),
        changed(peers=prefixes("198.51.0.0/16")),
        changed(services=()),
        changed(services=parse_services(("udp", "esp", "tcp/443"))),
        changed(services=parse_services(("udp/500-550", "udp/551-600", "udp/520", "esp"))),
        changed(category="bank"),
        changed(valid_from_s=NOW - 1),
        changed(valid_until_s=inf),
        changed(subscriber=bytes(32)),
    ],
)
def test_what_covers_as_much_is_no_loss(new: Registration) -> None:
    assert not is_loss(WHOLE, new, NOW)


@pytest.mark.parametrize(
    "new",
    [
        None,
        changed(status="suspended"),
        changed(status="revoked"),
        changed(clients=prefixes("203.0.113.0/25")),
        changed(clients=prefixes("203.0.113.0/25", "203.0.113.128/26")),
        changed(clients=prefixes("203.0.114.0/24")),
        changed(clients=prefixes("100.0.0.0/24")),
        changed(clients=prefixes("2001:db8::/48")),
        changed(clients=()),
        changed(peers=prefixes("198.51.100.7")),
        changed(services=parse_services(("udp/500-599", "esp"))),
        changed(services=parse_services(("udp/500-550", "udp/552-600", "esp"))),
        changed(services=parse_services(("udp",))),
        changed(valid_from_s=NOW + 1),
        changed(valid_until_s=NOW + 1),
    ],
)
def test_what_covers_less_is_a_loss(new: Registration | None) -> None:
    assert is_loss(WHOLE, new, NOW)


def test_to_name_peers_or_services_where_any_would_do_is_a_loss() -> None:
    old = registration()
    assert is_loss(old, registration(peers=("198.51.100.7",)), NOW)
    assert is_loss(old, registration(services=("ipsec",)), NOW)


def test_another_subscriber_is_a_loss() -> None:
    old = registration(subscriber=bytes(32))
    assert is_loss(old, registration(subscriber=bytes([1] * 32)), NOW)
    assert is_loss(old, registration(), NOW)
    assert not is_loss(old, old, NOW)


def test_to_leave_a_protected_category_is_a_loss() -> None:
    old, new = registration(category="bank"), registration(category="bpo")
    assert is_loss(old, new, NOW, {"bank"})
    assert not is_loss(old, new, NOW, {"embassy"})


@pytest.mark.parametrize(
    "old",
    [changed(status="suspended"), changed(status="revoked"), changed(valid_until_s=NOW)],
)
def test_nothing_is_lost_of_what_passes_nothing_any_more(old: Registration) -> None:
    assert not is_loss(old, None, NOW)


def test_a_window_that_opens_later_is_lost_and_one_that_stays_shut_is_not() -> None:
    old = changed(valid_from_s=NOW + 10)
    assert is_loss(old, None, NOW)
    assert is_loss(old, changed(valid_from_s=NOW + 11), NOW)
    assert not is_loss(old, changed(valid_from_s=NOW + 9), NOW)


def passes(registration: Registration, flow: Flow, now: float) -> bool:
    """The rule of docs/feed.md, the slow way."""

    def lies_in(address: bytes, prefixes: tuple[object, ...]) -> bool:
        return any(prefix.covers(address) for prefix in prefixes)  # type: ignore[attr-defined]

    def meets(client: bytes, peer: bytes) -> bool:
        return lies_in(client, registration.clients) and (
            not registration.peers or lies_in(peer, registration.peers)
        )

    service_fits = not registration.services or any(
        service.matches(flow.protocol, flow.destination_port) for service in registration.services
    )
    is_met = meets(flow.source, flow.destination) or meets(flow.destination, flow.source)
    return registration.is_effective(now) and service_fits and is_met


@given(registrations(), registrations(), flows(), st.integers(0, 10).map(float))
def test_where_there_is_no_loss_every_flow_passes_as_before(
    old: Registration, new: Registration, flow: Flow, later: float
) -> None:
    now = 3.0
    if not is_loss(old, new, now) and passes(old, flow, now + later):
        assert passes(new, flow, now + later)


# -- decision ----------------------------------------------------------------------------------------------


def guard_changes(
    total: int,
    by_category: Mapping[str, int],
    removals: Iterable[Registration],
    settings: ShrinkGuardSettings,
    recent: Mapping[str, int] | None = None,
) -> GuardDecision:
    removed = Counter(registration.category for registration in removals)
    return judge_removals({**by_category, "": total}, removed, settings, recent or {})


def many(count: int, category: str = "bpo") -> list[Registration]:
    return [registration(f"{category}-{number}", category) for number in range(count)]


@pytest.mark.parametrize(
    ("total", "banks", "removals", "expected"),
    [
        (1000, 10, many(50), GuardDecision(False, "", 50, 50)),
        (1000, 10, many(51), GuardDecision(True, "too_many", 51, 50)),
        (10, 10, many(2), GuardDecision(False, "", 2, 2)),
        (10, 10, many(3), GuardDecision(True, "too_many", 3, 2)),
        (1000, 10, many(1, "bank"), GuardDecision(True, "protected", 1, 0, "bank")),
        (1000, 10, [], GuardDecision(False, "", 0, 50)),
    ],
)
def test_removals_are_held_beyond_a_limit(
    total: int, banks: int, removals: list[Registration], expected: GuardDecision
) -> None:
    by_category = {"bank": banks, "bpo": 1000}
    assert guard_changes(total, by_category, removals, BANKS_AT_ALL) == expected


def test_a_protected_category_may_have_a_share() -> None:
    settings = ShrinkGuardSettings(protected=(ProtectedCategory("bank", RemovalLimit(fraction=0.1)),))
    assert not guard_changes(1000, {"bank": 20}, many(2, "bank"), settings).is_held
    assert guard_changes(1000, {"bank": 20}, many(3, "bank"), settings).is_held


def test_small_removals_sum_up() -> None:
    recent, sizes = {"bpo": 149}, {"bpo": 2000}
    assert not guard_changes(1000, sizes, many(1), BANKS_AT_ALL, recent).is_held
    decision = guard_changes(1000, sizes, many(2), BANKS_AT_ALL, recent)
    assert decision == GuardDecision(True, "trickle", 151, 150)
    assert not guard_changes(1000, sizes, [], BANKS_AT_ALL, {"bpo": 1000}).is_held


@pytest.mark.parametrize(
    ("total", "limit"), [(0, 0), (1, 0), (2, 1), (3, 1), (7, 3), (199, 99), (200, 100), (201, 100)]
)
def test_the_floor_never_lets_go_of_more_than_half(total: int, limit: int) -> None:
    settings = ShrinkGuardSettings(protected=())
    sizes = {"bpo": 100_000}
    assert not guard_changes(total, sizes, many(limit), settings).is_held
    decision = guard_changes(total, sizes, many(limit + 1), settings)
    assert decision == GuardDecision(True, "too_many", limit + 1, limit)


def test_no_day_takes_more_than_half_away() -> None:
    settings = ShrinkGuardSettings(protected=())
    assert guard_changes(40, {"bpo": 1000}, many(10), settings, {"bpo": 40}).reason == "trickle"
    assert not guard_changes(90, {"bpo": 1000}, many(10), settings, {"bpo": 40}).is_held


def test_what_an_operator_lets_go_of_goes_though_it_is_more_than_half() -> None:
    everything = ShrinkGuardSettings(RemovalLimit(fraction=1.0), protected=())
    assert not guard_changes(10, {"bpo": 10}, many(10), everything).is_held
    assert not guard_changes(10, {"bpo": 10}, many(10), ShrinkGuardSettings(RemovalLimit(count=50), 0, ())).is_held


@pytest.mark.parametrize(
    ("size", "removed", "is_held"), [(1, 1, False), (2, 1, False), (2, 2, True), (30, 15, False), (30, 16, True)]
)
def test_a_category_loses_no_more_than_half_but_the_only_one_of_it_may_go(
    size: int, removed: int, is_held: bool
) -> None:
    decision = guard_changes(1_000_000, {"ngo": size}, many(removed, "ngo"), ShrinkGuardSettings())
    assert decision.is_held == is_held
    assert decision.reason == ("category" if is_held else "")


def test_what_the_kernel_was_found_with_goes_within_the_same_limits() -> None:
    default = ShrinkGuardSettings()
    assert not judge_remainder(3021, 151, default, lost_files=False).is_held
    assert judge_remainder(3021, 152, default, lost_files=False) == GuardDecision(True, "too_many", 152, 151)
    assert judge_remainder(3, 2, default, lost_files=False).is_held
    assert not judge_remainder(3, 0, default, lost_files=False).is_held


def test_where_nobody_knows_whose_it_is_it_may_all_be_of_a_protected_category() -> None:
    default = ShrinkGuardSettings()
    assert judge_remainder(3021, 1, default, lost_files=True) == GuardDecision(True, "protected", 1, 0)
    assert not judge_remainder(3021, 0, default, lost_files=True).is_held
    of_bank = replace(default, protected=(ProtectedCategory("bank", RemovalLimit(fraction=0.5)),))
    assert judge_remainder(3021, 1, of_bank, lost_files=True).is_held
    assert judge_remainder(3021, 40, replace(default, protected=()), lost_files=True).is_held is False
    any_bank = replace(default, protected=(ProtectedCategory("bank", RemovalLimit(fraction=1.0)),))
    assert not judge_remainder(3021, 151, any_bank, lost_files=True).is_held
    assert judge_remainder(3021, 152, any_bank, lost_files=True).reason == "too_many"


def test_a_decision_says_itself_in_words() -> None:
    assert str(GuardDecision(False, "", 1, 5)) == "1 registration removed, within the limit of 5"
    assert str(GuardDecision(True, "too_many", 9, 5)) == "9 registrations removed at once, more than 5"
    assert str(GuardDecision(True, "too_many", 9, 5, base=100)).endswith(" at once, more than 5 of 100")
    words = "1 registration of category bank removed in 24 h, more than 0"
    assert str(GuardDecision(True, "trickle", 1, 0, "bank")) == words


@given(
    st.integers(0, 3000),
    st.lists(st.sampled_from(["bank", "bpo", "freelancer"]), max_size=200),
    st.integers(0, 100),
    st.integers(0, 10),
    st.integers(0, 50),
)
def test_never_more_than_a_limit_goes(
    total: int, categories: list[str], percent: int, banks_allowed: int, least: int
) -> None:
    settings = ShrinkGuardSettings(
        RemovalLimit(fraction=percent / 100),
        least,
        (ProtectedCategory("bank", RemovalLimit(count=banks_allowed)),),
    )
    removals = [registration(str(number), category) for number, category in enumerate(categories)]
    decision = guard_changes(total, Counter(categories), removals, settings)
    sizes = Counter(categories)

    def allowed_of(size: int) -> int:
        return max(size * percent // 100, min(least, size // 2))

    fits = (
        len(removals) <= allowed_of(total)
        and sizes["bank"] <= banks_allowed
        and all(sizes[each] <= max(1, allowed_of(sizes[each])) for each in sizes if each != "bank")
    )
    assert decision.is_held == (not fits)


# -- the guard of a source ---------------------------------------------------------------------------------


class Guarding:
    """A source under guard, and beside it what is in force when every change it gives is applied."""

    def __init__(self, settings: ShrinkGuardSettings = BANKS_AT_ALL) -> None:
        self.guard = RemovalGuard()
        self.settings = settings
        self.reading: dict[str, Registration] = {}
        self.in_force: dict[str, Registration] = {}
        self.serial = 0
        self.now = NOW

    def read(self, *all: Registration) -> Changes | None:
        return self.take(registry(*all))

    def judge(self, *all: Registration) -> GuardDecision:
        self.read(*all)
        return self.guard.decision

    def take(self, new: dict[str, Registration]) -> Changes | None:
        self.serial += 1
        changes = construct_changes(self.reading, new) or Changes((), ())
        result = run_slices(
            self.guard.take_in_slices(
                self.reading,
                changes,
                self.serial,
                cause="national",
                settings=self.settings,
                now=self.now,
            )
        )
        self.reading = new
        self.apply(result)
        return result

    def accept(self, serial: int) -> None:
        self.apply(run_slices(self.guard.accept_in_slices(serial, self.reading)))

    def apply(self, changes: Changes | None) -> None:
        if changes is not None:
            assert not {each.id for each in changes.upserts} & set(changes.withdrawals)
            self.in_force.update({each.id: each for each in changes.upserts})
            for id in changes.withdrawals:
                del self.in_force[id]
        assert self.in_force == {**self.reading, **self.guard.in_force(self.reading)}

    def versions(self) -> Mapping[str, tuple[Registration, ...]]:
        held = self.guard.held()
        return held.versions if held else {}


BANK = registration("b", "bank")
OTHERS = [registration(str(number)) for number in range(10)]


def test_additions_apply_at_once_while_removals_are_held() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    new = registration("new")
    changes = source.read(new, *OTHERS)
    assert source.guard.decision == GuardDecision(True, "protected", 1, 0, "bank")
    assert changes == Changes((new,), ())
    assert source.in_force == registry(BANK, new, *OTHERS)
    assert source.versions() == {"b": (BANK,)}
    assert len(source.guard) == 1


def test_removals_within_the_limits_apply_at_once() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    changes = source.read(BANK, *OTHERS[2:])
    assert changes == Changes((), ("0", "1"))
    assert source.guard.held() is None


def test_all_removals_of_a_change_are_held_together() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    assert source.read(*OTHERS[1:]) is None
    assert source.versions().keys() == {"b", "0"}


def test_an_operators_word_lets_go_of_everything_held() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    source.read(*OTHERS[1:])
    with pytest.raises(SerialNotHeld) as error:
        source.accept(1)
    assert (error.value.serial, error.value.held_serial) == (1, 2)
    source.accept(2)
    assert source.in_force == registry(*OTHERS[1:])
    with pytest.raises(SerialNotHeld, match="nothing is"):
        source.accept(2)
    assert not source.guard.memory.removed


def test_what_the_source_has_again_is_held_no_longer() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    source.read()
    assert len(source.guard) == 11
    assert source.read(BANK) is None
    assert source.versions().keys() == {each.id for each in OTHERS}
    assert source.read(BANK, *OTHERS) is None
    assert source.guard.held() is None


def test_when_the_rest_is_within_the_limits_it_applies() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    source.read()
    changes = source.read(BANK, *OTHERS[1:])
    assert changes == Changes((), ("0",))
    assert source.guard.held() is None


def test_further_removals_join_what_is_held_under_the_latest_serial() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    source.read(*OTHERS)
    source.now += 60
    source.read(*OTHERS[1:])
    held = source.guard.held()
    assert held is not None
    assert held.versions.keys() == {"b", "0"}
    assert (held.serial, held.since_s) == (3, NOW)


def test_a_new_hold_begins_when_it_begins() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    source.now += 60
    source.read(*OTHERS)
    held = source.guard.held()
    assert held is not None
    assert held.since_s == NOW + 60


def test_a_replacement_that_covers_less_applies_and_the_old_stays_beside_it() -> None:
    source = Guarding()
    source.read(BANK)
    moved = registration("b", "bank", "203.0.113.16/28")
    changes = source.read(moved)
    beside = msgspec.structs.replace(BANK, id="b#held")
    assert changes == Changes((beside, moved), ())
    assert source.in_force == {"b": moved, "b#held": beside}
    again = registration("b", "bank", "203.0.113.32/28")
    source.read(again)
    assert source.in_force.keys() == {"b", "b#held", "b#held-2"}
    source.accept(3)
    assert source.in_force == {"b": again}


def test_a_registration_withdrawn_after_it_was_replaced_stays_under_its_id() -> None:
    source = Guarding()
    source.read(BANK)
    moved = registration("b", "bank", "203.0.113.16/28")
    source.read(moved)
    assert source.read() is None
    assert source.in_force["b"] == moved
    source.read(registration("b", "bank", "203.0.113.0/27"))
    assert source.in_force.keys() == {"b"}
    assert source.guard.held() is None


def test_a_version_that_another_covers_is_not_held_twice() -> None:
    source = Guarding()
    source.read(registration("b", "bank", "203.0.113.0/24"))
    source.read(BANK)
    source.read()
    assert len(source.versions()["b"]) == 1
    assert source.in_force.keys() == {"b"}


def test_settings_may_let_go_of_what_is_held() -> None:
    source = Guarding()
    source.read(BANK)
    source.read()
    source.settings = ShrinkGuardSettings(RemovalLimit(fraction=1.0), protected=())
    assert source.take({}) == Changes((), ("b",))


def test_a_registry_that_shrinks_little_by_little_is_noticed() -> None:
    source = Guarding()
    source.read(*OTHERS)
    for left in (8, 6):
        assert not source.judge(*OTHERS[:left]).is_held
    assert source.judge(*OTHERS[:4]).reason == "trickle"


def test_removals_of_another_day_are_forgotten_and_so_are_those_ahead_of_a_clock_set_back() -> None:
    source = Guarding()
    source.read(*OTHERS)
    for left in (8, 6):
        source.read(*OTHERS[:left])
    source.now += WINDOW_S + BUCKET_S
    assert not source.judge(*OTHERS[:4]).is_held
    source.now -= WINDOW_S
    source.read(*OTHERS[:3])
    assert list(source.guard.memory.removed) == [int(source.now // BUCKET_S)]


def test_what_came_less_than_a_day_ago_does_not_make_a_removal_small() -> None:
    source, junk = Guarding(), [registration(f"j{number}", "junk") for number in range(200)]
    source.read(*OTHERS)
    source.read(*OTHERS, *junk)
    assert source.judge(*junk) == GuardDecision(True, "too_many", 10, 2)
    source.read(*OTHERS, *junk)
    assert not source.judge(*OTHERS[:8], *junk).is_held
    source.read(*OTHERS, *junk)
    source.now += WINDOW_S + BUCKET_S
    assert not source.judge(*OTHERS, *junk[:190]).is_held
    assert source.judge(*OTHERS, *junk[:150]) == GuardDecision(True, "too_many", 40, 10)


def test_what_came_less_than_a_day_ago_is_known_after_a_restart() -> None:
    source, junk = Guarding(), [registration(f"j{number}", "junk") for number in range(200)]
    source.read(*OTHERS)
    source.read(*OTHERS, *junk)
    source.guard = decode_record(encode_record(GuardRecord(source.guard))).guard
    run_slices(source.guard.count_in_slices(source.reading.values()))
    assert source.judge(*junk) == GuardDecision(True, "too_many", 10, 2)


def test_what_is_held_ends_with_its_window() -> None:
    source = Guarding()
    ends = registration("e", "bank", valid_until_s=NOW + 100)
    source.read(BANK, ends, *OTHERS)
    source.read(*OTHERS)
    assert source.guard.next_end() == NOW + 100
    source.guard = decode_record(encode_record(GuardRecord(source.guard))).guard
    run_slices(source.guard.count_in_slices(source.reading.values()))
    assert run_slices(source.guard.end_in_slices(source.reading, NOW + 99)) is None
    source.apply(run_slices(source.guard.end_in_slices(source.reading, NOW + 100)))
    assert source.versions().keys() == {"b"}
    assert source.guard.next_end() == inf


def test_what_an_operator_names_goes_and_is_no_removal() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    source.read(*OTHERS)
    slices = source.guard.take_in_slices(
        source.reading, Changes((), ("0",)), 9, cause="local", settings=BANKS_AT_ALL, now=NOW,
        is_asked=lambda id: id in ("b", "0"), looks_at_all=True,
    )  # fmt: skip
    changes = run_slices(slices)
    assert changes is not None
    assert (changes.upserts, sorted(changes.withdrawals)) == ((), ["0", "b"])
    assert source.guard.held() is None
    assert source.guard.memory.removed == {}


def test_what_joins_what_is_held_has_another_number_and_its_own_cause() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    source.read(*OTHERS)
    source.serial -= 1  # of the same second
    source.read(*OTHERS[1:])
    held = source.guard.held()
    assert held is not None
    assert held.serial == 3
    taken = source.guard.take_in_slices(
        source.reading, Changes((), ("1",)), 9, cause="config/local", settings=BANKS_AT_ALL, now=NOW
    )
    run_slices(taken)
    assert source.guard.decision.is_held
    held = source.guard.held()
    assert held is not None
    assert held.by_cause == {"national": 2, "config/local": 1}
    restored = decode_record(encode_record(GuardRecord(source.guard))).guard
    assert restored.held() == held
    run_slices(restored.accept_in_slices(9, {}))
    assert restored.held() is None


def test_what_is_held_and_what_went_lately_survive_a_restart() -> None:
    source = Guarding()
    source.read(BANK, *OTHERS)
    source.read(BANK, *OTHERS[1:])
    source.read(registration("b", "bank", "203.0.113.16/28"), *OTHERS[2:])
    content = encode_record(GuardRecord(source.guard))
    assert content is not None
    restored = decode_record(content).guard
    assert restored.held() == source.guard.held()
    assert restored.memory.removed == source.guard.memory.removed == {int(NOW // BUCKET_S): {"bpo": 1}}
    assert restored.in_force(source.reading) == source.guard.in_force(source.reading)
    run_slices(restored.accept_in_slices(3, source.reading))
    assert restored.held() is None


def test_a_guard_with_nothing_to_tell_is_no_bytes() -> None:
    assert decode_record(None).guard.held() is None
    assert decode_record(encode_record(GuardRecord(RemovalGuard()))).guard.held() is None
    source = Guarding()
    source.read(*OTHERS)
    source.read(*OTHERS[1:])
    assert (
        decode_record(encode_record(GuardRecord(source.guard))).guard.memory.removed == source.guard.memory.removed
    )


def test_a_held_registration_that_is_none_any_more_is_left_out() -> None:
    source = Guarding()
    source.read(BANK, registration("c", "bank"))
    source.read()
    content = encode_record(GuardRecord(source.guard))
    assert content is not None
    kept = content.partition(b"\n")[2].replace(b'"id":"b"', b'"id":"?"')
    content = sha256(kept).hexdigest().encode() + b"\n" + kept
    assert decode_record(content).guard.in_force({}).keys() == {"c"}


@pytest.mark.parametrize("lost_files", [False, True])
def test_that_files_were_lost_survives_a_restart(lost_files: bool) -> None:
    record = GuardRecord(RemovalGuard(), ("national",), lost_files=lost_files)
    assert decode_record(encode_record(record)).lost_files is lost_files


def test_a_record_that_is_damaged_or_of_another_format_says_so() -> None:
    content = encode_record(GuardRecord(RemovalGuard(), ("national",)))
    for damaged in (b"", content[:-3], content.replace(b"national", b"nationaL")):
        with pytest.raises(Damaged):
            decode_record(damaged)
    strange = b'{"serial": "x"}\n'
    with pytest.raises(Damaged, match="another format"):
        decode_record(sha256(strange).hexdigest().encode() + b"\n" + strange)


def test_of_what_the_registry_was_made_survives_too() -> None:
    text = 'pins:\n  - {id: A, category: bpo, clients: [39.61.0.0/28], services: [ipsec], comment: "x"}\n'
    text += 'filters:\n  - {prefix: 10.0.0.0/8, comment: "y", until: 2030-01-01T00:00:00Z}\n'
    files = (parse_overrides(text, "desk.yaml", "desk.yaml"),)
    record = decode_record(encode_record(GuardRecord(RemovalGuard(), ("a", "b"), files)))
    assert (record.sources, record.overrides) == (("a", "b"), files)


def test_older_versions_have_ids_that_no_registry_can_have() -> None:
    assert [held_id("a", place) for place in range(3)] == ["a#held", "a#held-2", "a#held-3"]


def test_long_work_yields_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "SLICE", 2)
    all = {each.id: each for each in (BANK, *OTHERS[:5])}
    changes = Changes(tuple(OTHERS[5:]), tuple(all))
    guard = RemovalGuard()
    slices = guard.take_in_slices(all, changes, 1, cause="national", settings=BANKS_AT_ALL, now=NOW)
    assert len(list(slices)) == 5 + 3 + 2
    assert len(list(guard.accept_in_slices(1, {}))) == 3 + 3


readings = st.lists(
    st.one_of(
        st.dictionaries(st.sampled_from("abcd"), st.integers(0, 5), max_size=4),
        st.just("accept"),
    ),
    max_size=8,
)
SHAPES = [
    registration("x", "bank", "203.0.113.0/24"),
    registration("x", "bank", "203.0.113.0/28"),
    registration("x", "bpo", "203.0.113.16/28"),
    registration("x", "bpo", "203.0.113.16/28", services=("ipsec",)),
    registration("x", "freelancer", "203.0.113.0/24", status="revoked"),
    registration("x", "bpo", "203.0.113.0/28", "203.0.113.16/28"),
]


@given(readings, st.booleans())
def test_nothing_new_waits_and_nothing_held_is_lost(steps: list[dict[str, int] | str], is_restarted: bool) -> None:
    source = Guarding()
    for step in steps:
        if isinstance(step, str):
            held = source.guard.held()
            if held is not None:
                source.accept(held.serial)
                assert source.in_force == source.reading
            continue
        before = dict(source.in_force)
        new = {id: msgspec.structs.replace(SHAPES[shape], id=id) for id, shape in step.items()}
        source.take(new)
        assert new.items() <= source.in_force.items()
        if source.guard.decision.is_held:
            for each in before.values():
                kept = source.in_force.values()
                assert not is_loss(each, None, NOW) or any(
                    other.id.partition("#")[0] == each.id.partition("#")[0]
                    and not is_loss(each, other, NOW, {"bank"})
                    for other in kept
                )
        else:
            assert source.in_force == new
        if is_restarted:
            source.guard = decode_record(encode_record(GuardRecord(source.guard))).guard
            run_slices(source.guard.count_in_slices(source.reading.values()))
