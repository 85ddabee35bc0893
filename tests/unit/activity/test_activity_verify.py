"""What an ISP signs: each finding, both of two that overlap, and what cannot be said."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.activity.days import DAY_S
from gatewayd.activity.verify import (
    FINDINGS,
    MAX_NAMED,
    Overlaps,
    PrefixSet,
    Verdict,
    Verifier,
    notes_of,
)
from gatewayd.allowlist import Allowlist
from gatewayd.model import Prefix, Registration, parse_prefix, parse_services
from gatewayd.model.prefix import mask_address
from gatewayd.model.registration import Extension

NOW = 20_000.0 * DAY_S
OURS = (parse_prefix("203.0.113.0/24"), parse_prefix("2001:db8::/32"))
POOLS = (parse_prefix("203.0.113.128/25"),)


def registration(id: str, *clients: str, registrant: str | None = None, **fields: object) -> Registration:
    extension = Extension(registrant) if registrant else None
    made = Registration(id, "bank", "active", tuple(map(parse_prefix, clients)), extension=extension)
    return msgspec.structs.replace(made, **fields)


def verdicts(
    registrations: Sequence[Registration],
    seen: dict[str, float] | None = None,
    ours: Sequence[Prefix] = OURS,
    pools: Sequence[Prefix] = POOLS,
) -> dict[str, Verdict]:
    allowlist = Allowlist()
    for each in registrations:
        allowlist.upsert(each)
    overlaps = Overlaps(allowlist.covering)
    for each in registrations:
        overlaps.take(each)
    verifier = Verifier(ours, pools, overlaps, NOW - 30 * DAY_S)
    known = dict.fromkeys((each.id for each in registrations), NOW) if seen is None else seen
    return {each.id: verifier.judge(each, known.get(each.id), NOW) for each in registrations}


def test_one_that_is_as_it_should_be() -> None:
    found = verdicts([registration("a", "203.0.113.0/28", "2001:db8:1::/48", registrant="hbl")])["a"]
    assert found == Verdict(
        "a", "hbl", "bank", "active", True, False, "addresses", ("203.0.113.0/28", "2001:db8:1::/48"), "yes",
        last_seen_at="2024-10-04T00:00:00Z",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("clients", "ours", "foreign"),
    [
        (("198.51.100.0/28",), "no", ("198.51.100.0/28",)),
        (("198.51.100.0/28", "203.0.113.0/28"), "part", ("198.51.100.0/28",)),
        (("203.0.112.0/20",), "part", ("203.0.112.0/20",)),
        (("2001:db9::/48",), "no", ("2001:db9::/48",)),
        (("203.0.113.0/24",), "yes", ()),
    ],
)
def test_addresses_of_others_are_named(clients: tuple[str, ...], ours: str, foreign: tuple[str, ...]) -> None:
    found = verdicts([registration("a", *clients)], pools=())["a"]
    assert (found.ours, found.foreign) == (ours, foreign)
    assert found.findings == (("not_ours",) if foreign else ())


@pytest.mark.parametrize("client", ["203.0.113.130/32", "203.0.113.128/25", "203.0.113.0/24"])
def test_an_address_of_a_pool_is_found_also_where_it_is_only_a_part(client: str) -> None:
    found = verdicts([registration("a", client)])["a"]
    assert (found.pools, found.findings) == (("203.0.113.128/25",), ("in_pool",))


def test_both_of_two_companies_that_overlap_are_told() -> None:
    found = verdicts(
        [
            registration("wide", "203.0.113.0/25", registrant="pool"),
            registration("narrow", "203.0.113.8/29", registrant="hbl"),
            registration("same", "203.0.113.8/29", registrant="hbl"),
            registration("unknown", "203.0.113.9/32"),
            registration("also unknown", "203.0.113.9/32"),
            registration("apart", "203.0.113.64/29", registrant="hbl", status="revoked"),
        ]
    )
    assert {id: set(each.overlaps) for id, each in found.items()} == {
        "wide": {"narrow", "same", "unknown", "also unknown"},
        "narrow": {"wide", "unknown", "also unknown"},
        "same": {"wide", "unknown", "also unknown"},
        "unknown": {"wide", "narrow", "same", "also unknown"},
        "also unknown": {"wide", "narrow", "same", "unknown"},
        "apart": set(),
    }
    assert found["apart"].findings == ()
    assert found["wide"].findings == ("overlap",)


def test_of_many_overlaps_the_first_are_named() -> None:
    many = [registration(f"r{number}", "203.0.113.8/29") for number in range(MAX_NAMED + 20)]
    within = [registration(f"w{number}", f"203.0.113.{number}/32", registrant=f"c{number}") for number in range(64)]
    found = verdicts([*many, *within, registration("wide", "203.0.113.0/25", registrant="wide")])
    assert len(found["wide"].overlaps) == MAX_NAMED
    assert found["wide"].more_overlaps
    assert all(each.overlaps for each in found.values() if each.id != "wide")
    assert not found["w0"].more_overlaps


def test_one_that_was_not_used_is_found_if_it_could_have_been() -> None:
    found = verdicts(
        [
            registration("never", "203.0.113.1/32"),
            registration("long ago", "203.0.113.2/32"),
            registration("suspended", "203.0.113.3/32", status="suspended"),
            registration("subscriber", subscriber=b"\xd1" * 32),
        ],
        {"long ago": NOW - 31 * DAY_S},
    )
    assert {id: each.findings for id, each in found.items()} == {
        "never": ("not_seen",), "long ago": ("not_seen",), "suspended": (), "subscriber": ("not_seen",),
    }  # fmt: skip
    assert found["long ago"].last_seen_at == "2024-09-03T00:00:00Z"


def test_without_addresses_nothing_is_said_of_any() -> None:
    endpoints = Extension(endpoints=(parse_prefix("198.51.100.0/24"),))
    found = verdicts(
        [
            registration("subscriber", subscriber=b"\xd1" * 32),
            registration("both", "203.0.113.1/32", subscriber=b"\xd2" * 32),
            registration("provider", services=parse_services(["esp"]), extension=endpoints),
        ]
    )
    assert {id: (each.by, each.ours) for id, each in found.items()} == {
        "subscriber": ("subscriber", None), "both": ("both", "yes"), "provider": ("provider", None),
    }  # fmt: skip
    assert "d1d1" not in msgspec.json.encode(found).decode()


def test_without_prefixes_of_ours_nothing_is_said_of_them() -> None:
    found = verdicts([registration("a", "198.51.100.0/28")], ours=(), pools=())["a"]
    assert (found.ours, found.findings) == (None, ())


def test_every_finding_has_a_meaning_and_every_limit_is_said() -> None:
    assert set(FINDINGS) == {"not_ours", "in_pool", "overlap", "not_seen"}
    assert list(notes_of(OURS, POOLS, 19_000, NOW - 30 * DAY_S)) == []
    assert [each.split(":")[0] for each in notes_of((), (), None, NOW)] == [
        "isp.prefixes is empty", "isp.pools is empty", "activity is not known",
    ]  # fmt: skip
    assert list(notes_of(OURS, POOLS, 19_990, NOW - 30 * DAY_S)) == [
        "activity is known since 2024-09-24 only: not seen means since then"
    ]


prefixes = st.builds(
    lambda address, length: Prefix(mask_address(address, length), length),
    st.sampled_from([b"\x0a\0\0", b"\x0a\0\1"]).flatmap(
        lambda head: st.integers(0, 255).map(lambda last: head + bytes([last]))
    ),
    st.integers(20, 32),
)


@given(st.lists(prefixes, max_size=8), prefixes)
def test_prefixes_are_found_as_a_walk_over_all_finds_them(known: list[Prefix], prefix: Prefix) -> None:
    found = PrefixSet(known)
    covering = [each for each in known if each.length <= prefix.length and each.covers(prefix.packed)]
    assert found.covering(prefix) == min(covering, key=lambda each: each.length, default=None)
    assert set(found.within(prefix)) == {
        each for each in known if each.length >= prefix.length and prefix.covers(each.packed)
    }
    assert bool(found.overlapping(prefix)) == bool(covering or found.within(prefix))
    assert bool(found) == bool(known)
