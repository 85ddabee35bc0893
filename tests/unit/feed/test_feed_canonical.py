from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.feed import canonical
from gatewayd.feed.canonical import Canonicaliser, LineWriter, upsert_line, withdraw_line, write_time
from gatewayd.feed.record import parse_record, registration_of


def canonical_of(**fields: Any) -> str:
    record = {"id": "a", "category": "bank", "status": "active", "clients": ["203.0.113.0/28"], **fields}
    return Canonicaliser().line(registration_of(record))


def test_what_says_nothing_is_left_out() -> None:
    assert canonical_of(peers=[], services=[], subscriber=None, valid_from=None, valid_until=None) == (
        '{"id":"a","category":"bank","status":"active","clients":["203.0.113.0/28"]}'
    )


def test_every_field_has_its_place_and_its_form() -> None:
    assert canonical_of(
        clients=["2001:DB8:0::/48", "203.0.113.0/28", "203.0.113.9", "203.0.113.0/28"],
        subscriber="hmac-sha256:" + "ab" * 32,
        peers=["198.51.100.8", "198.51.100.7/32"],
        services=["udp/51820", "tcp/443-443", "esp", "ah", "udp/500", "udp/4500", "udp/1-65535"],
        valid_from="2024-11-01T05:00:00.250+05:00",
        valid_until="2025-12-31T23:59:60Z",
    ) == (
        '{"id":"a","category":"bank","status":"active",'
        '"clients":["2001:db8::/48","203.0.113.0/28","203.0.113.9/32"],'
        f'"subscriber":"hmac-sha256:{"ab" * 32}",'
        '"peers":["198.51.100.7/32","198.51.100.8/32"],'
        '"services":["ipsec","tcp/443","udp/1-65535","udp/51820"],'
        '"valid_from":"2024-11-01T00:00:00.25Z","valid_until":"2026-01-01T00:00:00Z"}'
    )


def test_what_few_records_have_comes_last() -> None:
    assert canonical_of(registrant="co-17", provisional=True, valid_until="2030-01-01T00:00:00Z").endswith(
        ',"valid_until":"2030-01-01T00:00:00Z","registrant":"co-17","provisional":true}'
    )
    assert canonical_of(clients=[], services=["esp"], endpoints=["198.51.100.0/24", "2001:db8:7::/48"]).endswith(
        '"services":["esp"],"endpoints":["2001:db8:7::/48","198.51.100.0/24"]}'
    )


def test_a_bundle_of_one_service_is_that_service() -> None:
    assert json.loads(canonical_of(services=["wireguard", "l2tp"]))["services"] == ["udp/1701", "udp/51820"]


def test_the_first_and_the_last_time_are_those_that_can_be_written() -> None:
    assert write_time(canonical.FIRST_TIME_S) == "0001-01-01T00:00:00Z"
    assert write_time(canonical.LAST_TIME_S) == "9999-12-31T23:59:59Z"
    for beyond in (canonical.FIRST_TIME_S - 1, canonical.LAST_TIME_S + 1):
        with pytest.raises(OverflowError):
            write_time(beyond)


def test_caches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "MAX_SHARED", 2)
    writer = Canonicaliser()
    for number in range(6):
        record: dict[str, object] = {
            "id": "a", "category": "bank", "status": "active", "clients": ["203.0.113.0/28"],
            "peers": [f"198.51.100.{number}"], "services": [f"tcp/{number + 1}"],
            "valid_from": f"202{number}-01-01T00:00:00Z",
        }  # fmt: skip
        fields = json.loads(writer.line(registration_of(record)))
        assert fields["peers"] == [f"198.51.100.{number}/32"]
        assert fields["valid_from"] == record["valid_from"]
    assert len(writer._peers) <= 2
    assert len(writer._services) <= 2
    assert len(writer._times) <= 2


IPV4 = st.integers(1, 223).filter(lambda n: n not in (127, 169)).map(lambda n: f"{n}.0.0.0/8")
IPV6 = st.tuples(
    st.integers(0x2000, 0x3FFF),
    st.lists(st.sampled_from([0, 0, 1, 0xDB8, 0xFFFF]), min_size=7, max_size=7),
).map(lambda parts: ":".join(f"{part:x}" for part in (parts[0], *parts[1])))
SERVICES = st.sampled_from(["ipsec", "wireguard", "openvpn", "pptp", "l2tp", "esp", "udp/500", "tcp/1-9", "gre"])
TIMES = st.one_of(
    st.none(),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
)


@given(
    st.lists(st.one_of(IPV4, IPV6), min_size=1, max_size=6),
    st.lists(IPV4, max_size=3),
    st.lists(SERVICES, max_size=6),
    TIMES,
)
def test_the_canonical_form_means_the_same_and_is_its_own_canonical_form(
    clients: list[str], peers: list[str], services: list[str], valid_from: str | None
) -> None:
    registration = registration_of(
        {
            "id": "a", "category": "bank", "status": "active", "clients": clients, "peers": peers,
            "services": services, "valid_from": valid_from,
        }
    )  # fmt: skip
    line = Canonicaliser().line(registration)
    assert parse_record(line.encode()) == registration
    assert Canonicaliser().line(parse_record(line.encode())) == line


def test_what_repeats_is_written_alike() -> None:
    writer = Canonicaliser()
    record = parse_record(canonical_of(peers=["198.51.100.7"], valid_from="2024-11-01T00:00:00Z").encode())
    assert writer.line(record) == writer.line(record)


def test_times_are_written_in_utc() -> None:
    assert write_time(0.0) == "1970-01-01T00:00:00Z"
    assert write_time(-0.5) == "1969-12-31T23:59:59.5Z"


def test_the_lines_of_a_delta_are_json() -> None:
    record = canonical_of()
    assert msgspec.json.decode(upsert_line(record)) == {"op": "upsert", "registration": json.loads(record)}
    assert msgspec.json.decode(withdraw_line("PK-1:a.b_c")) == {"op": "withdraw", "id": "PK-1:a.b_c"}


@pytest.mark.parametrize("text", ["2001:db8::7/128", "2001:db8:1::/48", "2a00::/16", "64:ff9b::c000:201/128"])
def test_a_prefix_is_written_as_its_text(text: str) -> None:
    assert json.loads(canonical_of(clients=[text]))["clients"] == [text]


def test_a_registration_whose_window_cannot_be_written_has_no_line() -> None:
    good = registration_of({"id": "a", "category": "bank", "status": "active", "clients": ["203.0.113.0/28"]})
    far = msgspec.structs.replace(good, valid_from_s=1e15)
    assert list(LineWriter().lines([far, good])) == [Canonicaliser().line(good)]
