from __future__ import annotations

import ipaddress
import json
import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from gatewayd.errors import PrefixInvalid
from gatewayd.lab.world import (
    CATEGORIES,
    DEFAULT_COUNT,
    DEMO_PEPPER,
    announced_prefixes,
    encode_ndjson,
    generate_records,
    mobile_number,
    parse_prefix_lines,
    subscriber_of,
)
from gatewayd.model import parse_prefix, parse_services

IPV4 = (parse_prefix("39.32.0.0/11"), parse_prefix("14.1.104.0/22"), parse_prefix("27.0.184.0/32"))
IPV6 = (parse_prefix("2400:adc0::/36"), parse_prefix("2001:dd8:1c::/48"), parse_prefix("2404:0:0:1::/64"))


def made(count: int = 3000, seed: int = 1) -> list[dict[str, Any]]:
    records = generate_records(IPV4, IPV6, random.Random(seed), count)
    return [json.loads(msgspec.json.encode(record)) for record in records]


def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    assert made(seed=7) == made(seed=7)
    assert made(seed=7) != made(seed=8)


def test_a_longer_world_has_unique_ids_in_order_across_batches() -> None:
    identities = [registration["id"] for registration in made(10_000)]
    assert identities[0] == "PK-2024-000001"
    assert identities[-1] == "PK-2024-010000"
    assert identities == sorted(set(identities))


def test_the_world_has_as_many_registrations_as_were_asked_for() -> None:
    assert made(0) == []
    assert len(made(1)) == 1
    assert sum(1 for _ in generate_records(IPV4, IPV6, random.Random(1))) == DEFAULT_COUNT


def test_every_prefix_is_canonical_and_every_client_lies_in_the_prefixes_given() -> None:
    bases = (*IPV4, *IPV6)
    for registration in made():
        for text in (*registration["clients"], *registration["peers"]):
            assert str(ipaddress.ip_network(text)) == text
            assert str(parse_prefix(text)) == text
        for text in registration["clients"]:
            client = parse_prefix(text)
            assert any(base.covers(client.packed) and base.length <= client.length for base in bases)


def test_every_registration_has_a_client_or_a_subscriber_and_services_that_are_known() -> None:
    for registration in made():
        assert bool(registration["clients"]) != bool(registration["subscriber"])
        assert len(set(registration["clients"])) == len(registration["clients"])
        assert registration["category"] in CATEGORIES
        parse_services(registration["services"])


def test_the_fields_are_those_of_the_feed() -> None:
    assert set(made(1)[0]) == {
        "id", "category", "status", "clients", "subscriber", "peers", "services", "valid_from", "valid_until",
    }  # fmt: skip


def test_the_mix_is_of_every_category_status_and_family_with_a_minor_share_of_ipv6() -> None:
    registrations = made(20_000)
    assert {registration["category"] for registration in registrations} == set(CATEGORIES)
    assert {registration["status"] for registration in registrations} == {"active", "suspended", "revoked"}
    families = Counter(":" in client for registration in registrations for client in registration["clients"])
    assert 0.1 < families[True] / families.total() < 0.2
    lengths = {client.partition("/")[2] for registration in registrations for client in registration["clients"]}
    assert {"24", "29", "30", "32", "48", "56", "64", "128"} <= lengths
    profiles = {tuple(registration["services"]) for registration in registrations}
    assert () in profiles
    assert len(profiles) < 50


def test_a_registration_by_mobile_number_is_that_of_its_own_number() -> None:
    mobiles = [registration for registration in made() if registration["subscriber"]]
    assert mobiles
    for registration in mobiles:
        number = int(registration["id"].rpartition("-")[2])
        assert registration["subscriber"] == subscriber_of(number, DEMO_PEPPER)
        assert registration["category"] == "freelancer"


def test_a_subscriber_is_the_keyed_digest_of_an_e164_number_and_shows_none_of_it() -> None:
    assert mobile_number(42) == "923000000042"
    assert subscriber_of(42).startswith("hmac-sha256:")
    assert len(subscriber_of(42)) == len("hmac-sha256:") + 64
    assert subscriber_of(42) != subscriber_of(42, b"another pepper")


def test_ndjson_is_one_json_object_a_line_from_records_or_from_objects() -> None:
    lines = encode_ndjson(generate_records(IPV4, IPV6, random.Random(3), 50)).splitlines()
    assert [json.loads(line) for line in lines] == made(50, seed=3)
    assert encode_ndjson(made(50, seed=3)).splitlines() == lines


def test_prefix_lines_skip_comments_and_empty_lines_and_refuse_the_rest() -> None:
    assert parse_prefix_lines("# origin\n\n10.0.0.0/8\n") == (parse_prefix("10.0.0.0/8"),)
    with pytest.raises(PrefixInvalid):
        parse_prefix_lines("not a prefix\n")


def test_the_shipped_prefixes_are_all_there_and_each_file_says_where_it_is_from() -> None:
    assert len(announced_prefixes(4)) == 5382
    assert len(announced_prefixes(6)) == 1373
    assert {prefix.family for prefix in announced_prefixes(6)} == {6}
