"""What docs/subscribers.md shows works: each gear's settings read a packet of that gear, each example is taken.

The packets have the attributes that the gear is documented to send, encoded by pyrad.
"""

from __future__ import annotations

import io
import json
import re
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pyrad.dictionary import Dictionary
from pyrad.packet import AcctPacket

from gatewayd.model.accounting import AccountingEvent
from gatewayd.model.msisdn import subscriber_digest
from gatewayd.model.prefix import Prefix
from gatewayd.settings import SubscriberSettings, load_settings
from gatewayd.subscribers.radius.accounting import read_event, read_nas
from gatewayd.subscribers.radius.clients import Client, profiles_of
from gatewayd.subscribers.radius.packet import AccountingRequest, open_request
from gatewayd.subscribers.session_list import end_events, entry_event, read_sessions

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "subscribers.md").read_text()
SCHEMA = Path("/etc/freeradius/3.0/mods-config/sql/main/sqlite/schema.sql")
SECRET = b"testing123"
PEPPER = b"sixteen bytes and more"
SOURCE = bytes([10, 0, 0, 5])
NOW = datetime(2026, 11, 4, 3, 0, tzinfo=UTC).timestamp()
SUBSCRIBER = subscriber_digest("923001234567", PEPPER)

DICTIONARY = Dictionary(
    io.StringIO(
        """
ATTRIBUTE User-Name 1 string
ATTRIBUTE NAS-IP-Address 4 ipaddr
ATTRIBUTE Framed-IP-Address 8 ipaddr
ATTRIBUTE Class 25 octets
ATTRIBUTE Called-Station-Id 30 string
ATTRIBUTE Calling-Station-Id 31 string
ATTRIBUTE NAS-Identifier 32 string
ATTRIBUTE Acct-Status-Type 40 integer
VALUE Acct-Status-Type Start 1
VALUE Acct-Status-Type Stop 2
VALUE Acct-Status-Type Interim-Update 3
VALUE Acct-Status-Type Accounting-On 7
ATTRIBUTE Acct-Delay-Time 41 integer
ATTRIBUTE Acct-Session-Id 44 string
ATTRIBUTE Acct-Session-Time 46 integer
ATTRIBUTE Acct-Terminate-Cause 49 integer
ATTRIBUTE Acct-Multi-Session-Id 50 string
ATTRIBUTE Event-Timestamp 55 integer
ATTRIBUTE NAS-Port-Id 87 string
ATTRIBUTE Framed-IPv6-Prefix 97 ipv6prefix
ATTRIBUTE Delegated-IPv6-Prefix 123 ipv6prefix
ATTRIBUTE Extended-Attribute-1 241 octets
VENDOR Alcatel-Lucent-Service-Router 6527
BEGIN-VENDOR Alcatel-Lucent-Service-Router
ATTRIBUTE Alc-Ipv6-Address 99 ipv6addr
ATTRIBUTE Alc-Nat-Port-Range 121 string
ATTRIBUTE Alc-MSISDN 147 string
END-VENDOR Alcatel-Lucent-Service-Router
VENDOR 3GPP 10415
BEGIN-VENDOR 3GPP
ATTRIBUTE 3GPP-IMSI 1 string
ATTRIBUTE 3GPP-NSAPI 10 string
ATTRIBUTE 3GPP-Session-Stop-Indicator 11 octets
END-VENDOR 3GPP
VENDOR Huawei 2011
BEGIN-VENDOR Huawei
ATTRIBUTE Huawei-NAT-Public-Address 161 string
ATTRIBUTE Huawei-NAT-Start-Port 162 string
ATTRIBUTE Huawei-NAT-End-Port 163 string
END-VENDOR Huawei
VENDOR MikroTik 14988
BEGIN-VENDOR MikroTik
ATTRIBUTE Mikrotik-Rate-Limit 8 string
END-VENDOR MikroTik
"""
    )
)


class Sample(NamedTuple):
    """`expected`: fields of the event; addresses as text, without order."""

    heading: str
    attributes: Mapping[str, Any]
    expected: Mapping[str, Any]


def sample(heading: str, attributes: Mapping[str, Any], *addresses: str, **expected: Any) -> Sample:
    return Sample(heading, attributes, {"subscriber": SUBSCRIBER, **expected, "addresses": set(addresses)})


SAMPLES = [
    sample(
        "Nokia SR OS",
        {
            "Acct-Status-Type": "Interim-Update", "NAS-Identifier": "bng-nokia", "Acct-Session-Id": "D896FF15",
            "Calling-Station-Id": "923001234567", "Framed-IP-Address": "100.64.3.9",
            "Framed-IPv6-Prefix": "2001:db8:1:2::/64", "Delegated-IPv6-Prefix": "2001:db8:ff01::/56",
            "Alc-Ipv6-Address": "2001:db8:9:2::1", "Event-Timestamp": int(NOW) - 5, "Acct-Session-Time": 600,
        },
        "100.64.3.9/32", "2001:db8:1:2::/64", "2001:db8:ff01::/56", "2001:db8:9:2::1/128",
        kind="interim", nas="bng-nokia", is_snapshot=True, at_s=NOW - 5,
    ),
    sample(
        "Nokia SR OS",
        {
            "Acct-Status-Type": "Start", "NAS-Identifier": "fwa-nokia", "Acct-Session-Id": "ABDEB2000001B67",
            "Calling-Station-Id": "00:03:00:14:00:05", "Alc-MSISDN": "923001234567",
            "Framed-IP-Address": "100.64.3.9",
        },
        "100.64.3.9/32",
        kind="start", nas="fwa-nokia", is_snapshot=True,
    ),
    sample(
        "Juniper MX",
        {
            "Acct-Status-Type": "Interim-Update", "NAS-Identifier": "mx-1", "Acct-Session-Id": "4711",
            "User-Name": "03001234567@isp.example", "Calling-Station-Id": "mx-1:ge-1/0/0.100",
            "Framed-IP-Address": "100.64.3.9", "Delegated-IPv6-Prefix": "2001:db8:ff01::/56",
        },
        "100.64.3.9/32", "2001:db8:ff01::/56",
        kind="interim", nas="mx-1", is_snapshot=False,
    ),
    sample(
        "Cisco IOS XE and IOS XR",
        {
            "Acct-Status-Type": "Start", "NAS-Identifier": "asr-1", "Acct-Session-Id": "0000A1B2",
            "User-Name": "923001234567@isp", "Calling-Station-Id": "0050.56b2.0001",
            "Framed-IP-Address": "100.64.3.9", "Event-Timestamp": int(NOW), "Acct-Delay-Time": 0,
        },
        "100.64.3.9/32",
        kind="start", nas="asr-1", at_s=NOW,
    ),
    sample(
        "MikroTik RouterOS",
        {
            "Acct-Status-Type": "Start", "NAS-Identifier": "ros-1", "Acct-Session-Id": "8140000058",
            "User-Name": "03001234567", "Calling-Station-Id": "D4:CA:6D:01:02:03",
            "Framed-IP-Address": "100.64.3.9", "Mikrotik-Rate-Limit": "10M/10M",
        },
        "100.64.3.9/32",
        kind="start", nas="ros-1",
    ),
    sample(
        "accel-ppp",
        {
            "Acct-Status-Type": "Interim-Update", "NAS-Identifier": "bras-1", "Acct-Session-Id": "5f3a90d1e27c0001",
            "User-Name": "923001234567", "Calling-Station-Id": "08:00:27:01:02:03", "Acct-Delay-Time": 8,
            "Framed-IP-Address": "100.64.3.9", "Delegated-IPv6-Prefix": "2001:db8:ff01::/56",
        },
        "100.64.3.9/32", "2001:db8:ff01::/56",
        kind="interim", nas="bras-1", is_snapshot=False, at_s=NOW - 8,
    ),
    sample(
        "accel-ppp",
        {"Acct-Status-Type": "Accounting-On", "NAS-Identifier": "bras-1"},
        kind="on", nas="bras-1", subscriber=None,
    ),
    sample(
        "3GPP PGW and GGSN",
        {
            "Acct-Status-Type": "Start", "NAS-Identifier": "pgw-1", "Acct-Session-Id": "CB00710700000A01",
            "Calling-Station-Id": "923001234567", "3GPP-IMSI": "410011234567890", "3GPP-NSAPI": "5",
            "Framed-IP-Address": "100.64.3.9", "Framed-IPv6-Prefix": "2001:db8:1:2::/64",
            "Called-Station-Id": "internet",
        },
        "100.64.3.9/32", "2001:db8:1:2::/64",
        kind="start", nas="pgw-1",
    ),
    sample(
        "3GPP PGW and GGSN",
        {
            "Acct-Status-Type": "Stop", "NAS-Identifier": "pgw-1", "Acct-Session-Id": "CB00710700000A02",
            "Calling-Station-Id": "923001234567", "3GPP-NSAPI": "6", "Framed-IP-Address": "100.64.3.9",
        },
        "100.64.3.9/32",
        kind="stop", nas="pgw-1", is_final_stop=False,
    ),
    sample(
        "3GPP PGW and GGSN",
        {
            "Acct-Status-Type": "Stop", "NAS-Identifier": "pgw-1", "Acct-Session-Id": "CB00710700000A01",
            "Calling-Station-Id": "923001234567", "3GPP-NSAPI": "5", "3GPP-Session-Stop-Indicator": b"\xff",
            "Acct-Terminate-Cause": 1,
        },
        kind="stop", nas="pgw-1", is_final_stop=True,
    ),
    sample(
        "3GPP PGW and GGSN",
        {
            "Acct-Status-Type": "Start", "NAS-Identifier": "pgw-imsi", "Acct-Session-Id": "CB00710700000A03",
            "Calling-Station-Id": "923001234567", "3GPP-IMSI": "410011234567890",
            "Framed-IP-Address": "100.64.3.9",
        },
        "100.64.3.9/32",
        kind="start", nas="pgw-imsi", subscriber=subscriber_digest("410011234567890", PEPPER),
    ),
    sample(
        "CGNAT",
        {
            "Acct-Status-Type": "Start", "NAS-Identifier": "cgn-1", "Acct-Session-Id": "77",
            "Calling-Station-Id": "923001234567", "Framed-IP-Address": "100.64.3.9",
            "Alc-Nat-Port-Range": "203.0.113.7 2048-4095 router base",
        },
        "203.0.113.7/32",
        kind="start", nas="cgn-1", ports=(2048, 4095),
    ),
    sample(
        "CGNAT",
        {
            "Acct-Status-Type": "Start", "NAS-Identifier": "cgn-1", "Acct-Session-Id": "78",
            "Calling-Station-Id": "923001234567", "Framed-IP-Address": "203.0.113.7",
            "Extended-Attribute-1": bytes.fromhex("06 090600000800 0a0600000fff"),
        },
        "203.0.113.7/32",
        kind="start", nas="cgn-1", ports=(2048, 4095),
    ),
    sample(
        "CGNAT",
        {
            "Acct-Status-Type": "Start", "NAS-Identifier": "cgn-1", "Acct-Session-Id": "79",
            "Calling-Station-Id": "923001234567", "Huawei-NAT-Public-Address": "203.0.113.7",
            "Huawei-NAT-Start-Port": "2048", "Huawei-NAT-End-Port": "4095",
        },
        "203.0.113.7/32",
        kind="start", nas="cgn-1", ports=(2048, 4095),
    ),
]  # fmt: skip


def section(heading: str, level: str = "###") -> str:
    found = re.search(rf"^{level} {re.escape(heading)}\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def blocks(text: str, language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def settings_of(yaml: str) -> SubscriberSettings:
    source = 'registry: {sources: [{name: any, url: "file:/any", allow_unsigned: true}]}\n'
    subscribers = load_settings(yaml + source, "subscribers.md").subscribers
    assert subscribers is not None
    return subscribers


def gear() -> list[str]:
    return re.findall(r"^### (.+)$", TEXT, re.MULTILINE)


def event_of(attributes: Mapping[str, Any], settings: SubscriberSettings) -> AccountingEvent:
    packet = AcctPacket(secret=SECRET, dict=DICTIONARY)
    for name, value in attributes.items():
        packet.AddAttribute(name, value)
    request = open_request(packet.RequestPacket(), [SECRET])
    assert isinstance(request, AccountingRequest)
    nas = read_nas(request, SOURCE)
    client = Client(prefix=Prefix(SOURCE, 32), secrets=(SECRET,))
    profile = profiles_of(settings).profile_of(client, nas.name)
    return read_event(request, SOURCE, profile, PEPPER, NOW, nas)


@pytest.mark.parametrize("case", SAMPLES, ids=lambda case: f"{case.heading}: {case.attributes['Acct-Status-Type']}")
def test_a_packet_of_each_gear_is_understood_with_the_settings_that_are_shown_for_it(case: Sample) -> None:
    (yaml,) = blocks(section(case.heading), "yaml")
    event = event_of(case.attributes, settings_of(yaml))
    found = {name: getattr(event, name) for name in case.expected}
    found["addresses"] = {str(each) for each in event.addresses}
    assert found == case.expected
    assert event.ignored == ()


def test_every_gear_and_every_nas_that_is_shown_has_a_sample() -> None:
    assert gear() == list(dict.fromkeys(case.heading for case in SAMPLES))
    named = {nas.name for heading in gear() for nas in settings_of(blocks(section(heading), "yaml")[0]).nas}
    assert named == {case.attributes["NAS-Identifier"] for case in SAMPLES}


def test_every_configuration_that_is_shown_is_valid() -> None:
    shown = blocks(TEXT, "yaml")
    assert len(shown) == len(gear()) + 1
    for yaml in shown:
        settings_of(yaml)


def test_each_spelling_that_is_shown_is_the_same_number() -> None:
    spellings = re.findall(r"`([^`]+)`", section("Numbers", "##").split("are one number")[0])
    assert len(spellings) == 4
    settings = settings_of(blocks(section("CGNAT"), "yaml")[0])
    for spelling in spellings:
        attributes = {"Acct-Status-Type": "Start", "Acct-Session-Id": "s", "Calling-Station-Id": spelling}
        assert event_of(attributes, settings).subscriber == SUBSCRIBER, spelling


def test_the_list_of_sessions_that_is_shown_is_taken() -> None:
    shown = blocks(section("Cold start: a list of sessions", "##"))[0]
    settings = settings_of(blocks(section("CGNAT"), "yaml")[0])
    profiles = profiles_of(settings)
    taken = read_sessions(shown.encode(), pepper=PEPPER, profile_of=profiles.profile_by_name, now_s=NOW)
    assert taken.faults == []
    assert {event.session: (event.at_s, event.ports, event.interim_s) for event in taken.events} == {
        "0A1B2C": (NOW, None, 600),
        "77": (NOW, (2048, 4095), 900),
    }


def test_the_query_gives_the_live_sessions_of_freeradius_as_a_list_that_is_taken() -> None:
    """Over FreeRADIUS's own schema, in SQLite with the three functions of MySQL that the query has."""
    (query,) = blocks(section("Cold start: a list of sessions", "##"), "sql")
    database = sqlite3.connect(":memory:")
    database.executescript(SCHEMA.read_text())
    database.create_function(
        "concat_ws", -1, lambda sep, *parts: sep.join(each for each in parts if each is not None)
    )
    database.create_function(
        "unix_timestamp", 1, lambda text: int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
    )
    database.execute("INSERT INTO nas (nasname, shortname) VALUES ('10.0.0.9', 'bng-1')")
    names = (
        "nasipaddress, acctsessionid, acctuniqueid, callingstationid, framedipaddress, delegatedipv6prefix, "
        "acctstarttime, acctupdatetime, acctstoptime, acctinterval"
    )
    row = f"INSERT INTO radacct ({names}) VALUES (?1, ?2, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
    database.executemany(
        row,
        [
            ("10.0.0.9", "live", "0300-1234567", "100.64.3.9", "2001:db8:ff01::/56", "2026-11-04 01:00:00",
             "2026-11-04 02:50:00", None, 600),
            ("10.0.0.8", "fresh", "+923001234567", "100.64.3.10", "", "2026-11-04 02:59:00", None, None, None),
            ("10.0.0.9", "over", "0300-1234567", "100.64.3.9", "", "2026-11-04 01:00:00", None,
             "2026-11-04 02:00:00", None),
            ("10.0.0.9", "forgotten", "0300-1234567", "100.64.3.9", "", "2026-10-01 01:00:00", None, None, None),
            ("10.0.0.9", "nobody", "", "100.64.3.9", "", "2026-11-04 02:00:00", None, None, None),
        ],
    )  # fmt: skip
    in_sqlite = query.replace("now() - INTERVAL 1 DAY", "datetime('2026-11-04 03:00:00', '-1 day')")
    assert in_sqlite != query
    found = database.execute(in_sqlite)
    lines = [",".join(column[0] for column in found.description)]
    lines += [",".join(map(str, values)) for values in found.fetchall()]
    database.close()
    profiles = profiles_of(settings_of(blocks(section("CGNAT"), "yaml")[0]))
    raw = "\n".join(lines).encode()
    taken = read_sessions(raw, pepper=PEPPER, profile_of=profiles.profile_by_name, now_s=NOW)
    assert taken.faults == []
    assert {(event.nas, event.session, event.subscriber) for event in taken.events} == {
        ("bng-1", "live", SUBSCRIBER),
        ("10.0.0.8", "fresh", SUBSCRIBER),
    }
    live = next(event for event in taken.events if event.session == "live")
    assert {str(each) for each in live.addresses} == {"100.64.3.9/32", "2001:db8:ff01::/56"}
    assert (live.at_s, live.interim_s) == (NOW - 600, 600)


def test_the_calls_of_the_api_that_are_shown_begin_and_end_a_session() -> None:
    put, delete = (json.loads(body) for body in re.findall(r"-d '(\{.*\})'", section("Bindings by the API", "##")))
    profiles = profiles_of(settings_of(blocks(section("CGNAT"), "yaml")[0]))
    begun = entry_event(put, pepper=PEPPER, profile_of=profiles.profile_by_name, now_s=NOW)
    assert (begun.subscriber, begun.interim_s) == (SUBSCRIBER, 3600)
    (ended,) = end_events(
        delete["nas"], delete["session"], pepper=PEPPER, profile_of=profiles.profile_by_name, now_s=NOW
    )
    assert (ended.kind, ended.nas, ended.session) == ("stop", begun.nas, begun.session)
