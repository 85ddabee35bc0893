"""One scalar at a time: what is understood, and the words of each refusal."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.model import parse_prefix
from gatewayd.settings import ListenAddress, RateLimit, RemovalLimit, values


def duration(text: str) -> float:
    return values.parse_duration(text, 0, 604800)


def duration_or_never(text: str) -> float:
    return values.parse_duration_or_never(text, 60, 604800)


def size(text: str) -> int:
    return values.parse_size(text, 1, 1 << 40)


def number(text: str) -> int:
    return values.parse_number(text, -400, 400)


UNDERSTOOD: list[tuple[Callable[[str], object], str, object]] = [
    (number, "0", 0),
    (number, "-400", -400),
    (values.parse_switch, "true", True),
    (values.parse_switch, "off", False),
    (duration, "60s", 60.0),
    (duration, "10m", 600.0),
    (duration, "7d", 604800.0),
    (duration, "1w", 604800.0),
    (duration, "1.5h", 5400.0),
    (duration, "250ms", 0.25),
    (duration, "0", 0.0),
    (duration_or_never, "1d", 86400.0),
    (duration_or_never, "never", inf),
    (size, "512MiB", 512 << 20),
    (size, "1GB", 10**9),
    (size, "4096", 4096),
    (size, "1.5KiB", 1536),
    (values.parse_rate, "64kbyte/s", RateLimit(65536)),
    (values.parse_rate, "64 kbytes/second", RateLimit(65536)),
    (values.parse_rate, "2mbit/s", RateLimit(250_000)),
    (values.parse_rate, "1byte/s", RateLimit(1)),
    (values.parse_host_name, "GW-1.example", "gw-1.example"),
    (values.parse_host_name, "gateway", "gateway"),
    (values.parse_percent, "100%", 100),
    (values.parse_percent, "5 %", 5),
    (values.parse_removal_limit, "5%", RemovalLimit(fraction=0.05)),
    (values.parse_removal_limit, "0.5%", RemovalLimit(fraction=0.005)),
    (values.parse_removal_limit, "250", RemovalLimit(count=250)),
    (values.parse_time, "1970-01-01T05:00:01+05:00", 1.0),
    (values.parse_time, "1970-01-01 00:00:02.5 z", 2.5),
    (values.parse_hex_or_number, "0xFF", 255),
    (values.parse_hex_or_number, "16", 16),
    (values.parse_ct_mark_mask, "0xff000000", 0xFF000000),
    (values.parse_ct_mark_mask, "240", 0xF0),
    (values.parse_ct_mark_mask, "0xffffffff", 0xFFFFFFFF),
    (values.parse_dscp, "EF", 46),
    (values.parse_dscp, "cs1", 8),
    (values.parse_dscp, "af21", 18),
    (values.parse_dscp, "af43", 38),
    (values.parse_dscp, "63", 63),
    (values.parse_listen_address, "127.0.0.1:9480", ListenAddress("127.0.0.1", 9480)),
    (values.parse_listen_address, "[0::1]:0", ListenAddress("::1", 0)),
    (values.parse_client_prefix, "10.0.0.0/24", parse_prefix("10.0.0.0/24")),
    (values.parse_client_prefix, "2001:db8::/32", parse_prefix("2001:db8::/32")),
    (values.parse_nas_name, "bng-1.lhr Süd", "bng-1.lhr Süd"),
    (values.parse_nas_name, "10.0.0.1", "10.0.0.1"),
    (values.parse_nas_name, "2001:db8::1", "2001:db8::1"),
    (values.parse_nas_name, "a" * 253, "a" * 253),
    (values.parse_country_code, "92", "92"),
    (values.parse_country_code, "1", "1"),
    (values.parse_service_word, "udp/51820", "udp/51820"),
    (values.parse_interface, "eth0.100", "eth0.100"),
    (values.parse_interface, "ppp*", "ppp*"),
    (values.parse_interface, "a" * 15, "a" * 15),
    (values.parse_table_name, "gatewayd_2", "gatewayd_2"),
    (values.parse_name, "national", "national"),
    (values.parse_category, "software_house", "software_house"),
    (values.parse_path, "/run/a b.sock", "/run/a b.sock"),
    (values.parse_source_url, "file:/etc/lab.csv", "file:/etc/lab.csv"),
    (values.parse_source_url, "file:///etc/my list.csv", "file:///etc/my list.csv"),
    (values.parse_source_url, "https://registry.example:8443/a.csv?x=1", "https://registry.example:8443/a.csv?x=1"),
    (values.parse_source_url, "http://[2001:db8::1]/feed", "http://[2001:db8::1]/feed"),
    (values.parse_proxy_url, "http://proxy.example:3128", "http://proxy.example:3128"),
    (values.parse_proxy_url, "https://[2001:db8::1]/", "https://[2001:db8::1]/"),
]  # fmt: skip

REFUSED: list[tuple[Callable[[str], object], str, str]] = [
    (values.parse_host_name, "gw_1", "is no host name"),
    (values.parse_host_name, "-gw", "is no host name"),
    (values.parse_host_name, "a." * 130 + "a", "is no host name"),
    (number, "010", "is not a whole number"),
    (number, "1_000", "is not a whole number"),
    (number, "٣", "is not a whole number"),
    (number, "401", "is out of range"),
    (values.parse_switch, "maybe", "is neither true nor false"),
    (lambda text: values.parse_word(text, ("keep", "observe")), "drop", "is not known"),
    (duration, "60", "has no unit"),
    (duration, "60 sec", "has the unknown unit sec"),
    (duration, "1:30", "is not a number with a unit"),
    (duration, "-1s", "is not a number with a unit"),
    (duration, "8d", "is out of range"),
    (duration_or_never, "0", "is out of range"),
    (duration_or_never, "inf", "is not a number with a unit"),
    (size, "1TiB", "has the unknown unit TiB"),
    (size, "0", "is out of range"),
    (values.parse_rate, "64kbyte", "is not a rate per second"),
    (values.parse_rate, "64kbyte/minute", "is not a rate per second"),
    (values.parse_rate, "64/s", "has no unit"),
    (values.parse_rate, "0byte/s", "is out of range"),
    (values.parse_rate, "4096gbyte/s", "is out of range"),
    (values.parse_proxy_url, "proxy:3128", "is not an http: or https: URL"),
    (values.parse_proxy_url, "http://joe:secret@proxy:3128", "carries credentials, which would end up in logs"),
    (values.parse_proxy_url, "http://proxy:3128/x", "has more than a host and a port"),
    (values.parse_percent, "10", "has no % sign"),
    (values.parse_percent, "12.5%", "is not a whole number"),
    (values.parse_percent, "101%", "is out of range"),
    (values.parse_removal_limit, "0.05", "is not a whole number"),
    (values.parse_removal_limit, "x%", "is not a percentage"),
    (values.parse_removal_limit, "5s%", "is not a percentage"),
    (values.parse_removal_limit, "100.1%", "is out of range"),
    (values.parse_time, "2025-07-01", "is not a date and time"),
    (values.parse_time, "2025-07-01T00:00:00", "has no offset from UTC"),
    (values.parse_time, "2025-02-30T00:00:00Z", "is not a date and time of the calendar"),
    (values.parse_hex_or_number, "0x100000000", "is not a whole number"),
    (values.parse_hex_or_number, "4294967296", "is out of range"),
    (values.parse_ct_mark_mask, "0", "has fewer than 4 bits"),
    (values.parse_ct_mark_mask, "0xe0", "has fewer than 4 bits"),
    (values.parse_ct_mark_mask, "0xf0f0", "has a gap between its bits"),
    (values.parse_dscp, "af44", "is not a whole number"),
    (values.parse_dscp, "64", "is out of range"),
    (values.parse_listen_address, "9480", "has no port"),
    (values.parse_listen_address, "localhost:9480", "does not begin with an IP address"),
    (values.parse_listen_address, "::1:9480", "does not begin with an IP address; IPv6 goes in brackets"),
    (values.parse_listen_address, "[127.0.0.1]:9480", "does not begin with an IP address"),
    (values.parse_listen_address, "127.0.0.1:65536", "does not end with a port"),
    (values.parse_client_prefix, "10.0.0.1/24", "is not a prefix: host bits are set; meant 10.0.0.0/24?"),
    (values.parse_client_prefix, "::ffff:10.0.0.0/120", "is IPv4, to be written 10.0.0.0/24"),
    (values.parse_nas_name, "", "is empty"),
    (values.parse_nas_name, "bng\n1", "has characters that cannot be printed"),
    (values.parse_nas_name, "é" * 127, "is longer than 253 bytes"),
    (values.parse_nas_name, "2001:DB8::0:1", "is an address that is written 2001:db8::1 here"),
    (values.parse_country_code, "092", "is not a country code: one to three digits, the first not 0"),
    (values.parse_country_code, "+92", "is not a country code: one to three digits, the first not 0"),
    (values.parse_service_word, "esp/1", "is not a service: esp has no ports"),
    (values.parse_interface, "eth 0", "is not a name of a network interface"),
    (values.parse_interface, "eth/0", "is not a name of a network interface"),
    (values.parse_interface, "..", "is not a name of a network interface"),
    (values.parse_interface, "", "is not a name of a network interface"),
    (values.parse_interface, "*", "means every interface"),
    (values.parse_interface, "ppp+", "is iptables' way to say ppp*; nft takes it for a whole name"),
    (values.parse_interface, "pp*p", "is not a name of a network interface"),
    (values.parse_interface, "a" * 16, "is longer than 15 bytes"),
    (values.parse_table_name, "9x", "is not an nft identifier"),
    (values.parse_table_name, "a b", "is not an nft identifier"),
    (values.parse_table_name, "chain", "is a keyword of nft"),
    (values.parse_name, "-lab", "is not a name"),
    (values.parse_category, "Bank", "is not a lower-case word of at most 32 characters"),
    (values.parse_path, "run/x", "is not an absolute path"),
    (values.parse_path, "/run/\ud800", "has characters that cannot be printed"),
    (values.parse_path, "/" + "é" * 2048, "is longer than 4095 bytes"),
    (values.parse_source_url, "http://[::1", "is not a URL"),
    (values.parse_source_url, "http://registry.example:99999/", "is not a URL"),
    (values.parse_source_url, "/etc/lab.csv", "has no scheme"),
    (values.parse_source_url, "ftp://registry.example/", "has the unknown scheme ftp:"),
    (values.parse_source_url, "ftp:registry", "has the unknown scheme ftp:"),
    (values.parse_source_url, "joe:secret@registry.example", "has no scheme"),
    (values.parse_source_url, "file:lab.csv", "does not have an absolute path"),
    (values.parse_source_url, "file://etc/lab.csv", "names a host"),
    (values.parse_source_url, "file:/etc/", "names a directory"),
    (values.parse_source_url, "file:/etc/a#1.csv", "has a ? or #, which in a path are %3F and %23"),
    (values.parse_source_url, "file:/etc/\x7f", "has characters that cannot be printed"),
    (values.parse_source_url, "https:///a.csv", "has no host"),
    (values.parse_source_url, "https://registry.example:0/a.csv", "has the port 0"),
    (values.parse_source_url, "https://registry.example/a b.csv",
     "has spaces or characters outside ASCII, which in a URL are percent-encoded"),
    (values.parse_source_url, "https://joe:pw@registry.example/",
     "carries credentials, which would end up in logs"),
]  # fmt: skip


@pytest.mark.parametrize(("parse", "text", "value"), UNDERSTOOD)
def test_a_value_is_understood(parse: Callable[[str], object], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(("parse", "text", "why"), REFUSED)
def test_a_refusal_says_what_is_wrong(parse: Callable[[str], object], text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(why)}$"):
        parse(text)


def test_every_parser_has_a_value_it_understands_and_one_it_refuses() -> None:
    parsers = {name for name in vars(values) if name.startswith("parse_")} - {
        "parse_address", "parse_prefix", "parse_service",
    }  # fmt: skip
    wrapped = {
        "parse_duration",
        "parse_duration_or_never",
        "parse_size",
        "parse_number",
        "parse_word",
    }  # called here with their ranges
    assert {parse.__name__ for parse, _, _ in UNDERSTOOD} >= parsers - wrapped
    assert {parse.__name__ for parse, _, _ in REFUSED} >= parsers - wrapped


@given(st.integers(4, 32), st.integers(0, 28))
def test_every_run_of_at_least_four_bits_is_a_mask(width: int, shift: int) -> None:
    mask = (((1 << width) - 1) << shift) & 0xFFFFFFFF
    assert values.parse_ct_mark_mask(hex(mask)) == mask


@given(st.integers(1, 0xFFFFFFFF))
def test_a_mask_is_refused_exactly_when_its_bits_are_no_run_of_four(mask: int) -> None:
    is_run = "0" not in bin(mask)[2:].strip("0") and bin(mask).count("1") >= 4
    try:
        assert values.parse_ct_mark_mask(str(mask)) == mask
    except ValueError:
        assert not is_run
    else:
        assert is_run


@given(st.datetimes(timezones=st.timezones().map(lambda _: datetime.UTC)))
def test_a_time_is_the_moment_that_datetime_says(moment: datetime.datetime) -> None:
    assert values.parse_time(moment.isoformat()) == moment.timestamp()


def test_an_address_to_listen_on_is_shown_as_it_is_written() -> None:
    assert [str(ListenAddress("127.0.0.1", 9480)), str(ListenAddress("::1", 9480))] == [
        "127.0.0.1:9480",
        "[::1]:9480",
    ]


@pytest.mark.parametrize(
    ("limit", "total", "allowed"),
    [
        (RemovalLimit(count=3), 100, 3),
        (RemovalLimit(fraction=0.29), 100, 29),
        (RemovalLimit(fraction=0.05), 199, 9),
        (RemovalLimit(), 100, 0),
    ],
)
def test_a_limit_of_removals_allows_a_count_or_a_part_rounded_down(
    limit: RemovalLimit, total: int, allowed: int
) -> None:
    assert limit.allowed_of(total) == allowed
