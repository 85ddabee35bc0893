"""One file of local overrides: pins and filters, or every fault of it."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest

from gatewayd.errors import OverridesInvalid
from gatewayd.model import Registration, parse_prefix, parse_services
from gatewayd.sources.override_file import Filter, OverrideFile, Pin, parse_overrides


def parse(text: str) -> OverrideFile:
    return parse_overrides(text, "a.yaml", "a.yaml")


def faults_of(text: str) -> list[str]:
    with pytest.raises(OverridesInvalid) as error:
        parse(text)
    return list(error.value.faults)


def test_a_file_has_pins_and_filters() -> None:
    file = parse(
        """
pins:
  - {id: LOCAL-1, category: bank, clients: [203.0.113.0/28], services: [ipsec],
     comment: "agreed by phone 2024-11-03, ticket 4711", until: 2025-01-01T00:00:00Z}
  - id: LOCAL-2
    category: freelancer
    status: suspended
    subscriber: hmac-sha256:abababababababababababababababababababababababababababababababab
    peers: [198.51.100.7/32]
    valid_from: 2024-11-01T00:00:00Z
    valid_until: null
    comment: waits for papers
filters:
  - {id: PK-2024-000123, comment: "compromised", until: null}
  - {prefix: 198.51.100.0/24, comment: "hijacked"}
"""
    )
    assert file == OverrideFile(
        "a.yaml",
        (
            Pin(
                Registration(
                    "LOCAL-1",
                    "bank",
                    "active",
                    (parse_prefix("203.0.113.0/28"),),
                    services=parse_services(("ipsec",)),
                ),
                "agreed by phone 2024-11-03, ticket 4711",
                1735689600.0,
                3,
                "a.yaml",
            ),
            Pin(
                Registration(
                    "LOCAL-2",
                    "freelancer",
                    "suspended",
                    (),
                    bytes.fromhex("ab" * 32),
                    (parse_prefix("198.51.100.7"),),
                    valid_from_s=1730419200.0,
                ),
                "waits for papers",
                inf,
                5,
                "a.yaml",
            ),
        ),
        (
            Filter("PK-2024-000123", None, "compromised", inf, 14, "a.yaml"),
            Filter(None, parse_prefix("198.51.100.0/24"), "hijacked", inf, 15, "a.yaml"),
        ),
    )


def test_a_pin_may_be_of_a_company_provisional_or_a_providers() -> None:
    first, second = parse(
        """pins:
  - {id: A, category: bank, clients: [203.0.113.0/28], registrant: co-17, provisional: true, comment: c,
     valid_until: 2025-01-01T00:00:00Z}
  - {id: P, category: provider, services: [ipsec], endpoints: [198.51.100.0/24], comment: c}
"""
    ).pins
    assert (first.registration.registrant, first.registration.is_provisional) == ("co-17", True)
    assert second.registration.endpoints == (parse_prefix("198.51.100.0/24"),)
    faults = faults_of(
        """pins:
  - {id: A, category: bank, clients: [203.0.113.0/28], registrant: 35202-1234567-1, comment: c}
  - {id: P, category: provider, services: [ipsec], endpoints: [198.51.0.0/16], comment: c}
  - {id: Q, category: bank, clients: [203.0.113.0/28], provisional: true, comment: c}
"""
    )
    codes = ("national_id", "endpoint_too_short", "provisional_open")
    assert [code in fault for code, fault in zip(codes, faults, strict=True)] == [True] * 3
    assert "1234567" not in faults[0]


@pytest.mark.parametrize("text", ["", "# nothing\n", "pins:\nfilters:\n", "pins: []\n", "{}\n"])
def test_a_file_may_say_nothing(text: str) -> None:
    assert parse(text) == OverrideFile("a.yaml")


def test_every_fault_of_a_file_is_told_in_one_go() -> None:
    assert faults_of(
        """pins:
  - {id: a b, category: Bank, clients: [203.0.113.1/28, x], services: [vpn], comment: ""}
  - {id: B, category: bank, clients: [203.0.113.0/28]}
  - {id: C, category: bank, comment: c, until: 2025-01-01}
  - {id: D, category: bank, comment: d}
  - {id: D, category: bank, clients: [203.0.113.0/28], comment: d, valid_from: 2025-01-01T00:00:00Z,
     valid_until: 2024-01-01T00:00:00Z, phone: "+923001234567"}
  - {id: E, category: bank, clients: [203.0.113.0/28], comment: e, valid_from: 2025-01-01T00:00:00Z,
     valid_until: 2024-01-01T00:00:00Z}
filters:
  - {comment: f}
  - {id: F, prefix: 198.51.100.0/24, comment: f}
  - {prefix: 198.51.100.1/24, comment: f}
  - F
filter: []
"""
    ) == [
        "a.yaml:2:10: pins[0].id: 'a b' is refused (bad_id): must be 1 to 64 of A-Z a-z 0-9 . _ : -, "
        "expected 1 to 64 of A-Z a-z 0-9 . _ : -",
        "a.yaml:2:25: pins[0].category: 'Bank' is refused (bad_category): must be a lower-case word of at "
        "most 32 characters, expected a lower-case word such as bank",
        "a.yaml:2:41: pins[0].clients[0]: '203.0.113.1/28' is refused (prefix_host_bits): host bits are set; "
        "meant 203.0.113.0/28?, expected a prefix such as 203.0.113.0/28",
        "a.yaml:2:57: pins[0].clients[1]: this value is refused (prefix_syntax): a prefix: not an IPv4 or "
        "IPv6 address, expected a prefix such as 203.0.113.0/28",
        "a.yaml:2:72: pins[0].services[0]: 'vpn' is refused (bad_service): unknown protocol or bundle; known: "
        "tcp, udp, gre, esp, ah, ipip, ipv6, sctp, udplite, l2tpv3, ipsec, wireguard, openvpn, pptp, l2tp, "
        "expected a service such as ipsec or udp/51820",
        "a.yaml:2:87: pins[0].comment: '' says nothing, expected why it is here, who agreed, when",
        "a.yaml:3:5: pins[1].comment: is missing, expected why it is here, who agreed, when",
        "a.yaml:4:48: pins[2].until: '2025-01-01' is not a date and time, expected a time with its offset such "
        "as 2025-01-01T00:00:00Z, or null",
        "a.yaml:5:5: pins[3]: is refused (no_client_or_subscriber): needs `clients`, `subscriber` or `endpoints`",
        "a.yaml:6:5: pins[4]: id 'D' is given twice, expected it once (first at line 5)",
        "a.yaml:7:41: pins[4].phone: unknown key, expected one of id, category, status, clients, subscriber, "
        "peers, services, valid_from, valid_until, registrant, provisional, endpoints, comment, until",
        "a.yaml:9:19: pins[5].valid_until: is refused (window_empty): must be after `valid_from`",
        "a.yaml:11:5: filters[0]: has neither id nor prefix, expected one of them",
        "a.yaml:12:5: filters[1]: has both id and prefix, expected one of them",
        "a.yaml:13:14: filters[2].prefix: '198.51.100.1/24' is not a prefix: host bits are set; meant "
        "198.51.100.0/24?, expected a prefix such as 203.0.113.0/28",
        "a.yaml:14:5: filters[3]: is a single value, expected a mapping of id, prefix, comment, until",
        "a.yaml:15:1: filter: unknown key, expected filters",
    ]


def test_a_text_that_is_no_yaml_is_a_fault() -> None:
    (fault,) = faults_of("pins: [\n")
    assert fault.startswith("a.yaml:2:1: (file): is not valid YAML")


@pytest.mark.parametrize("field", ["id: 0300-7654321", 'id: "0300 7654321"', "id: a, category: 0300-7654321"])
def test_a_phone_number_as_id_or_category_is_refused_and_not_repeated(field: str) -> None:
    faults = faults_of(f"pins: [{{{field}, clients: [192.0.2.1], comment: c}}]\nfilters: [{{{field}, comment: c}}]")
    assert faults
    assert "7654321" not in "".join(faults)


def test_a_comment_has_an_end() -> None:
    (fault,) = faults_of(f"filters: [{{id: a, comment: {'x' * 1001}}}]\n")
    assert "is longer than 1000 characters" in fault


@pytest.mark.parametrize(
    "pin",
    [
        "{id: a, category: bank, comment: c, subscriber: '+923001234567'}",
        "{id: a, category: bank, comment: c, clients: ['+923001234567']}",
        "{id: a, category: bank, comment: c, clients: [923001234567]}",
        "{id: a, category: bank, comment: c, clients: [203.0.113.0/28], peers: [923001234567]}",
    ],
)
def test_a_number_in_the_wrong_place_is_not_repeated(pin: str) -> None:
    (fault,) = faults_of(f"pins: [{pin}]\n")
    assert "3001234567" not in fault


@pytest.mark.parametrize(
    "comment", ["asked by 0300 7654321", "of 35202-1234567-1", "call 923007654321", "a@b.example"]
)
def test_a_comment_with_the_number_of_a_person_is_refused_and_not_repeated(comment: str) -> None:
    (fault,) = faults_of(f'pins: [{{id: a, category: bank, clients: [203.0.113.0/28], comment: "{comment}"}}]\n')
    assert "has a number of a person" in fault
    assert comment not in fault


def test_the_example_file_is_read_without_a_fault() -> None:
    path = Path(__file__).parents[3] / "config" / "local.example.yaml"
    file = parse_overrides(path.read_text(), path.name, str(path))
    assert [each.registration.category for each in file.pins] == ["bank", "provider"]
    assert [each.id for each in file.filters] == ["PK-2024-000123", None]
    assert [(each.kind, each.name) for each in file.assertions] == [
        ("must_pass", "hbl-swift"), ("must_not_pass", "line-of-fraud"),
    ]  # fmt: skip


# -- assertions ------------------------------------------------------------------------------------------------

ASSERTIONS = """
must_pass:
  - {name: hbl-swift, source: 203.0.113.5, destination: 198.51.100.7, service: ipsec, comment: "ticket 4712"}
  - {name: office, source: "2001:db8::5/128", destination: "2001:db8:1::7", service: gre, comment: "ours",
     until: 2025-01-01T00:00:00Z}
must_not_pass:
  - name: stolen-line
    source: 203.0.113.9
    destination: 198.51.100.7
    service: udp/51820
    comment: fraud
"""


def test_a_file_has_assertions_of_both_kinds() -> None:
    first, second, third = parse(ASSERTIONS).assertions
    assert (first.kind, first.name, first.comment, first.until_s) == ("must_pass", "hbl-swift", "ticket 4712", inf)
    assert (first.source, first.destination) == (bytes([203, 0, 113, 5]), bytes([198, 51, 100, 7]))
    assert [str(each) for each in first.services] == ["udp/500", "udp/4500", "esp", "ah"]
    assert (second.source, second.until_s) == (parse_prefix("2001:db8::5").packed, 1735689600.0)
    assert (third.kind, third.name, third.place) == ("must_not_pass", "stolen-line", "a.yaml:7")


def assertion(field: str, text: str) -> str:
    fields = {
        "name": "one",
        "source": "203.0.113.5",
        "destination": "198.51.100.7",
        "service": "gre",
        "comment": "why",
        field: text,
    }
    lines = "\n    ".join(f'{name}: "{each}"' for name, each in fields.items())
    return f"must_pass:\n  - {lines}\n"


@pytest.mark.parametrize(
    ("field", "text", "what"),
    [
        ("source", "203.0.113.0/24", "'203.0.113.0/24' is a prefix, expected an address such as 203.0.113.5"),
        ("source", "0.0.0.0", "is not a prefix"),
        ("source", "03001234567", "this value is not a prefix"),
        ("destination", "2001:db8::1", "has an IPv4 and an IPv6 address, expected two of one family"),
        (
            "service",
            "tcp",
            "'tcp' is more than one port, expected a bundle, a port such as udp/51820 or a protocol",
        ),
        ("service", "tcp/80-90", "is more than one port"),
        ("service", "skinny", "is not a service: unknown protocol or bundle"),
        ("comment", " ", "says nothing"),
        ("name", "a b", "is refused (bad_id)"),
        ("until", "tomorrow", "is not a date and time"),
    ],
)
def test_a_fault_of_an_assertion_says_where_and_what_is_expected(field: str, text: str, what: str) -> None:
    (fault,) = faults_of(assertion(field, text))
    assert fault.startswith("a.yaml:")
    assert "must_pass[0]" in fault
    assert what in fault


def test_a_name_is_given_once() -> None:
    one = "{name: one, source: 203.0.113.5, destination: 198.51.100.7, service: gre, comment: why}"
    (fault,) = faults_of(f"must_pass:\n  - {one}\n  - {one}\n")
    assert "name 'one' is given twice" in fault
    (fault,) = faults_of(f"must_pass:\n  - {one}\nmust_not_pass:\n  - {one}\n")
    assert "must_not_pass: 'one' is in must_pass too, expected it in one of them" in fault


@pytest.mark.parametrize(("first", "second", "place"), [(201, 0, "must_pass"), (100, 101, "must_not_pass")])
def test_assertions_have_a_bound(first: int, second: int, place: str) -> None:
    def listed(kind: str, count: int) -> str:
        rest = "source: 203.0.113.5, destination: 198.51.100.7, service: gre, comment: why"
        return f"{kind}:\n" + "".join(f"  - {{name: {kind}-{number}, {rest}}}\n" for number in range(count))

    text = listed("must_pass", first) + (listed("must_not_pass", second) if second else "")
    (fault,) = faults_of(text)
    assert f" {place}: 201 assertions" in fault
    assert "expected at most 200" in fault
