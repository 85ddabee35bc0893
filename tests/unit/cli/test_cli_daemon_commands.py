"""The commands that ask the daemon, against a real server with a fake daemon behind it."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from gatewayd.api.app import ApiServer
from gatewayd.api.report import ActivityPage, ActivityView
from gatewayd.api.status import ClockView, HeldView, HoldView, MarksView
from gatewayd.assertions.states import AssertionsView, FailingView
from gatewayd.cli import client, explain, listings, main
from gatewayd.cli.output import BAD, DOUBTFUL, Line
from gatewayd.cli.status import describe_status, found_at_start, headline
from gatewayd.errors import SourceUnreadable
from gatewayd.model import Flow, parse_address, parse_prefix
from gatewayd.model.policy import Stage
from gatewayd.model.transaction import Neighbour
from gatewayd.reconcile.dataplane import Found
from gatewayd.registry.layers import OverrideCounts
from gatewayd.state_file.file import StateFileUnusable
from gatewayd.state_file.view import StateFileView
from gatewayd.subscribers.journal_rows import JournalStats
from gatewayd.trial.views import ArmingView, OrderView, TripView
from tests.support.fake_queries import (
    BANK,
    DEAF,
    GUARDED,
    MOBILE,
    PEACE,
    SUBSCRIBED,
    TROUBLE,
    FakeQueries,
    serving_in_a_thread,
)

STATUS_IN_PEACE = """\
READY
mode           observe, nothing is blocked, configured is reject, from 2024-12-01T00:00:00Z (in 26d 21h)
registrations  30,988 effective of 31,022: bank 31,000, embassy 22
               not active: suspended 22
               next window opens or closes in 1h 30m
source         national: ok, 31,022 registrations, last read 40s ago, next in 20s
kernel         table gatewayd: 61,000 elements in 14 sets, 0 not in kernel, 0 surplus, 0 pending
               last commit 40s ago, verified 2m 10s ago, 144 transactions, 0 failures, 0 repairs
flows          1,200 registered
packets        2,500,000 registered (3.0 GiB), 17 unregistered (1020 B)
watch          310 flows tracked, 17 packet events, 2,400 connection events, 0 late admissions
daemon         gatewayd 0.1.0, started 3d 3h ago, now 2024-11-04T03:00:00Z
"""

STATUS_IN_TROUBLE = """\
NOT READY: 12 registered elements are not in the kernel; source lab was never read; FAILING: source mirror
mode           reject
WARNING        a rule of another program (inet a c handle 3) sets the ct mark
               connection tracking is 90% full
registrations  30,988 effective of 31,022: bank 31,000, embassy 22
               NOT PROGRAMMED: 1 registration
                 PK-9: would need 5000 elements, 4096 are allowed
source         national: ok, 31,022 registrations, last read 40s ago, next in 20s
               4 records rejected: unknown_field 3, prefix_host_bits 1
               1 record of ids that an earlier source has
source         lab: waiting, 0 registrations, last read never
source         mirror: FAILING, 0 registrations, last read never
               HTTP status 503�[2J
kernel         NOT IN KERNEL: 12 registered elements
               table gatewayd: 61,000 elements in 14 sets, 12 not in kernel, 1 surplus, 12 pending
               last commit 40s ago, verified never, 144 transactions, 2 failures, 1 repair
               connection tracking: 900 of 1,000 entries (90%), 7 packets dropped because there was no room
               3 elements beyond the last good, until every source answers
               last error: commit: Device or resource busy
interfaces     inside: 1,200 ppp*, no eth1.100; outside: 1 eth0
flows          not counted yet
packets        not counted yet
watch          0 flows tracked, 0 packet events, 0 connection events, 5 late admissions
               events: 20 lost, 1 malformed, 3 evicted, 1 resyncs
marks          flows: 5 draining, 6 registered by their mark alone, 4 waiting for accounting, 2 not believed
               writes our bits: inet a c handle 3
unregistered   192.0.2.0/24: 55 flows, udp/51820 (54), esp (1)
               2001:db8:99::/48: 1 flow, no service
daemon         gatewayd 0.1.0, started 3d 3h ago, now 2024-11-04T03:00:00Z
"""

STATUS_GUARDED = """\
HELD           national: 1,204 removals of serial 17 for 2h (1204 registrations removed at once, more than 1000); \
gatewayd accept 17
HELD           embassies: 1 removal of serial 4 for 1s (1 registrations of category embassy removed); \
gatewayd accept 4
registrations  30,988 effective of 31,022: bank 31,000, embassy 22
               not active: suspended 22
               next window opens or closes in 1h 30m
source         national: ok, 31,022 registrations, last read 40s ago, next in 20s
               signed, serial 17 of session 9df4b597-af9e-4dca-bdda-719cce2c4e28, issued 2m ago
               NOT SAVED: a restart would begin with older registrations: No space left on device
               2 records became unusable, in force as before
source         embassies: FAILING, overdue for 7m, 22 registrations, last read 10m ago
               HTTP status 503
               signed, serial 4
source         mirror: waiting, STALE for 3d 1h, 3 registrations, last read never
               in force as an earlier run saved it on disk 10d 1h ago
source         lab: waiting, STALE, 0 registrations, last read never
overrides      3 pins, 1 filter, 1,200 dropped, 5 trimmed, 2 shadowed, 4 expired
               1 pin over a filter or over other content of the registry
               FAULTS: 7, the former content of those files is in force
                 10-local.yaml:3:5: pins[0].id: missing
                 20-more.yaml:1:1: x
                 20-more.yaml:2:1: x
                 20-more.yaml:3:1: x
                 20-more.yaml:4:1: x
                 and 2 more
"""

SUBSCRIBERS_IN_PEACE = """\
subscribers    31,000 sessions, 412 bindings of registered subscribers
               journal: 1,500 rows written, 0 waiting, 0 failures
radius         0.0.0.0:1813: 1,000 requests, 9 repeats, 1 unusable
               requests not used: no_session 1
"""

SUBSCRIBERS_UNHEARD = """\
subscribers    1 session, 1 binding of registered subscribers, 1 from before the restart and not confirmed since
               6 times an address was bound that another registrant's own prefix has
               records not followed: stale 3, tombstoned 2
               journal: 1 damaged file set aside, 1 row unreadable
               JOURNAL SUSPENDED: answers are not on disk (OperationalError: database or disk is full), \
7 rows waiting
               2 accounting records not answered: the journal had no room
radius         0.0.0.0:1813, [::]:1813: 60 requests, 0 repeats, 4 unusable
               53 refused: unknown_client 30, bad_authenticator 15, malformed 5, over_rate 3
                 192.0.2.9: 30 refused: unknown_client 30
                 2001:db8::9: 20 refused: bad_authenticator 15, malformed 5
               FLOOD: the kernel dropped 9,000 datagrams of strangers
               requests not used: nas_not_allowed 4
               parts of requests not used: identity_no_country_code 7, address_hint 2
                 192.0.2.1: 13 not used: identity_no_country_code 7, nas_not_allowed 4
               8 datagrams lost before they were read, 1 answer not sent
"""

EXPLAIN_BOUND = """\
udp/51820 from 10.1.2.3 to 198.51.100.7 PASSES: it is registered and in the kernel
reason         registered by PK-2024-000300 (freelancer): source in 10.1.2.3/32, bound to the registration's \
subscriber since 2024-11-04T01:00:00Z (confirmed 12 s ago) by NAS bng-1
decision       registered
effect         pass
in kernel      yes
through        10.1.2.3/32, reported by bng-1 12s ago
mode           observe
registration    category    registrant is  client      peers  services  until
PK-2024-000300  freelancer  source         by binding  any    any       open
"""

BINDINGS = """\
address                        registrations   in kernel  reported by  session  since                 confirmed
10.1.2.3/32                    PK-2024-000300  yes        bng-1        8a01     2024-11-04T01:00:00Z  12s ago
192.0.2.77/32 ports 1024-2047  PK-2024-000300  yes        cgn-2        s-77     2024-11-03T02:00:00Z  \
1h ago, before the restart
2 bindings
"""

EXPLAIN_REGISTERED = """\
udp/51820 from 203.0.113.5 to 198.51.100.7 PASSES: it is registered and in the kernel
reason         registered by PK-2024-000123 (bank): source in 203.0.113.0/28, \
destination in peer 198.51.100.7/32, service udp/51820
decision       registered
effect         pass
in kernel      yes
mode           observe
registration    category  registrant is  client          peers            services          until
PK-2024-000123  bank      source         203.0.113.0/28  198.51.100.7/32  ipsec, udp/51820  open
"""

EXPLAIN_UNREGISTERED = """\
esp from 192.0.2.1 to 198.51.100.7 PASSES, but is not registered: it is only observed
reason         no registration covers 192.0.2.1 or 198.51.100.7
decision       unregistered
effect         observe
in kernel      -
mode           observe
"""

LIST = """\
id              category    status     in kernel  clients                           peers            services
PK-2024-000123  bank        active     yes        203.0.113.0/28, 2001:db8:12::/48  198.51.100.7/32  \
ipsec, udp/51820
PK-2024-000200  freelancer  suspended  -          by subscriber                     any              any
2 registrations
"""

ONE = """\
id             PK-2024-000123
category       bank
status         active
window         2024-11-03T03:00:00Z to open
clients        203.0.113.0/28
               2001:db8:12::/48
peers          198.51.100.7/32
services       ipsec, udp/51820
in kernel      yes
traffic        2 flows, 4.0 KiB, last seen 2024-11-04T02:59:55Z
"""

FLOWS = """\
source             destination     service    registrations   packets  size     since
203.0.113.5:40000  198.51.100.7    udp/51820  PK-2024-000123  2,000    4.0 KiB  2024-11-04T02:59:00Z
2001:db8:12::1     2001:db8:ff::1  esp        -               0        0 B      -
2 registered flows
"""

Ask = Callable[..., Result]


@pytest.fixture
def queries() -> FakeQueries:
    return FakeQueries()


@pytest.fixture(autouse=True)
def _no_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host's routing table is no part of these tests."""
    monkeypatch.setattr(explain, "_route", lambda address: None)


@pytest.fixture
def server(queries: FakeQueries, tmp_path: Path) -> Generator[ApiServer, None, None]:
    with serving_in_a_thread(queries, tmp_path / "api.sock") as server:
        yield server


@pytest.fixture
def ask(server: ApiServer, tmp_path: Path) -> Ask:
    """Runs a command of `gatewayd` with the socket in its environment."""
    environment = {"GATEWAYD_SOCKET": str(tmp_path / "api.sock")}
    return lambda *arguments: CliRunner(env=environment).invoke(main, list(arguments))


def test_status_is_one_screen(ask: Ask) -> None:
    result = ask("status")
    assert (result.exit_code, result.stdout) == (0, STATUS_IN_PEACE)


def test_status_says_first_what_is_wrong(ask: Ask, queries: FakeQueries) -> None:
    queries.view = TROUBLE
    assert ask("status").stdout == STATUS_IN_TROUBLE


def test_status_says_what_waits_for_somebody_before_what_is_well(ask: Ask, queries: FakeQueries) -> None:
    queries.view = GUARDED
    ready, mode, rest = ask("status").stdout.split("\n", 2)
    assert (ready, mode.split()[0]) == (
        "READY; FAILING: source embassies; STALE: source mirror, lab", "mode",
    )  # fmt: skip
    assert rest.partition("kernel  ")[0] == STATUS_GUARDED


def subscribers_lines(stdout: str) -> str:
    return "subscribers" + stdout.partition("\nsubscribers")[2].partition("kernel  ")[0]


def test_status_shows_the_subscribers_where_there_are_any(ask: Ask, queries: FakeQueries) -> None:
    queries.view = SUBSCRIBED
    assert subscribers_lines(ask("status").stdout) == SUBSCRIBERS_IN_PEACE
    queries.view = DEAF
    assert subscribers_lines(ask("status").stdout) == SUBSCRIBERS_UNHEARD


def test_a_journal_that_is_back_says_what_it_was_and_without_radius_there_is_none() -> None:
    assert DEAF.subscribers is not None
    replace = msgspec.structs.replace
    back = dataclasses.replace(DEAF.subscribers.journal, state="ok", suspended_for=None)
    view = replace(DEAF, subscribers=replace(DEAF.subscribers, journal=back, listener=None))
    lines = list(describe_status(view))
    assert ("", "journal: 0 rows written, 1 waiting, 4 failures", "") in lines
    assert ("", f"last error of the journal: {back.last_error}", DOUBTFUL) in lines
    assert "radius" not in [line.label for line in lines]


@pytest.mark.parametrize(
    ("journal", "said"),
    [
        (JournalStats(lost_groups=2, lost_rows=6), "the last 6 rows written to it are lost"),
        (JournalStats(lost_groups=2, lost_rows=6, lost_whole=True), "the whole file is lost, with 6 rows at most"),
        (
            JournalStats(lost_rows=6, lost_whole=True, salvaged=94, state="suspended", suspended_for="read-only"),
            "94 rows of the file could be read, 6 rows at most are lost",
        ),
    ],
)
def test_what_a_damaged_journal_lost_is_said(journal: JournalStats, said: str) -> None:
    assert SUBSCRIBED.subscribers is not None
    replace = msgspec.structs.replace
    view = replace(SUBSCRIBED, subscribers=replace(SUBSCRIBED.subscribers, journal=journal))
    assert ("", f"JOURNAL DAMAGED at the start: {said}", BAD) in list(describe_status(view))


def test_status_shows_in_colour_what_is_bad_and_what_is_doubtful() -> None:
    coloured = [(line.text.split(" ")[0], line.style) for line in describe_status(GUARDED) if line.style]
    assert coloured == [
        ("national:", BAD),  # HELD
        ("embassies:", BAD),
        ("NOT", BAD),
        ("2", DOUBTFUL),
        ("embassies:", BAD),  # the source
        ("HTTP", BAD),
        ("mirror:", BAD),
        ("in", BAD),
        ("lab:", BAD),
        ("1", DOUBTFUL),
        ("FAULTS:", BAD),
        *[("", BAD)] * 6,
    ]


@pytest.mark.parametrize(
    ("clock", "lines"),
    [
        (
            ClockView(
                host="2020-11-04T03:00:00Z",
                used="2024-11-04T02:00:00Z",
                doubt="behind",
                why="x",
                offset_s=-1461 * 86400.0,
            ),
            [
                "this host says 2020-11-04T03:00:00Z, 1461d behind: not believed, x",
                "windows close and `enforce_from` arms by 2024-11-04T02:00:00Z, windows are open before they "
                "begin; "
                "mend NTP",
            ],
        ),
        (
            ClockView(
                host="2024-11-04T08:00:00Z",
                used="2024-11-04T03:00:00Z",
                opens_by="2024-11-04T03:00:00Z",
                doubt="ahead",
                why="x",
                offset_s=18000.0,
            ),
            [
                "this host says 2024-11-04T08:00:00Z, 5h ahead: not believed, x",
                "windows close and `enforce_from` arms by 2024-11-04T03:00:00Z, windows open by it; mend NTP",
            ],
        ),
        (ClockView(host="2024-11-04T03:00:00Z", used="2024-11-04T02:00:00Z"), []),
    ],
)
def test_a_clock_that_is_doubted_is_said_with_both_times(clock: ClockView, lines: list[str]) -> None:
    found = [line for line in describe_status(msgspec.structs.replace(PEACE, clock=clock))]
    first = next((number for number, line in enumerate(found) if line.label == "CLOCK"), None)
    assert [line.text for line in found[first : first + 2]] == lines if first is not None else not lines
    assert first in (1, None)  # under the mode, before all else


def test_each_cause_that_holds_removals_has_its_own_number() -> None:
    """A source names its own. A hold may be of several causes, and the number of all is of none of them."""
    replace = msgspec.structs.replace
    since = "2024-11-04T02:59:50Z"
    causes = {"national": 1, "config/local": 2, "kernel/elements": 3}
    source = replace(PEACE.sources[0], name="national", held=HeldView(17, since, 1, "too many"))
    view = replace(PEACE, sources=(source,), held=(HoldView(17, since, 6, "too many", causes),))
    assert [line.text.split(" of ")[0] for line in describe_status(view) if line.label == "HELD"] == [
        "national: 1 removal",
        "config/local: 2 removals",
        "kernel/elements: 3 removals",
    ]


def test_rules_of_others_stand_under_marks_where_no_flow_does() -> None:
    """A line without a label belongs to the one above it, which would be another."""
    marks = MarksView(writers=1, neighbours=(Neighbour("writes", "inet", "a", "c", 3),))
    view = msgspec.structs.replace(PEACE, marks=marks)
    found = [(line.label, line.text) for line in describe_status(view)]
    assert ("marks", "writes our bits: inet a c handle 3") in found


def test_a_source_that_is_overdue_is_doubtful_while_its_last_attempt_was_good() -> None:
    replace = msgspec.structs.replace
    overdue = replace(PEACE.sources[0], freshness="overdue", not_fresh_since="2024-11-04T02:59:50Z")
    (line,) = [line for line in describe_status(replace(PEACE, sources=(overdue,))) if line.label == "source"]
    assert line.text.startswith("national: ok, overdue for 10s, ")
    assert line.style == DOUBTFUL


def test_what_was_restored_and_is_confirmed_is_said_and_not_doubtful() -> None:
    replace = msgspec.structs.replace
    restored = replace(PEACE.sources[0], restored_at="2024-11-04T00:00:00Z")
    lines = list(describe_status(replace(PEACE, sources=(restored,))))
    assert ("", "in force as an earlier run saved it on disk 3h ago", "") in lines


def test_what_began_after_now_lasts_no_time() -> None:
    replace = msgspec.structs.replace
    held = replace(PEACE.sources[0], held=HeldView(1, "2024-11-04T03:00:09Z", 1, "too many"))
    (line,) = [line for line in describe_status(replace(PEACE, sources=(held,))) if line.label == "HELD"]
    assert line.text == "national: 1 removal of serial 1 for 0s (too many); gatewayd accept 1"


def test_overrides_in_order_take_one_line() -> None:
    view = msgspec.structs.replace(PEACE, overrides=OverrideCounts(pins=1))
    lines = list(describe_status(view))
    (place,) = [number for number, line in enumerate(lines) if line.label == "overrides"]
    assert lines[place][1:] == ("1 pin, 0 filters", "")
    assert lines[place + 1].label == "kernel"


def test_status_says_that_a_mode_is_not_in_force(ask: Ask, queries: FakeQueries) -> None:
    queries.view = msgspec.structs.replace(
        TROUBLE, mode="observe", reasons=(), kernel=dataclasses.replace(TROUBLE.kernel, last_error=None)
    )
    lines = ask("status").stdout.splitlines()
    assert lines[0] == "NOT READY: no reason given; FAILING: source mirror"
    assert lines[1] == "mode           observe, nothing is blocked, configured is reject, not in force"


@pytest.mark.parametrize(
    ("arming", "why"),
    [
        (
            ArmingView(order=OrderView(Stage("observe"), "", "ahmed", "", survives=True)),
            "an operator decided otherwise",
        ),
        (ArmingView(reverting=Stage("observe")), "an operator decided otherwise"),
        (ArmingView(trip=TripView("near_misses", "", 31, 30, (), "")), "the gateway has tripped"),
    ],
    ids=["order", "reverting", "trip"],
)
def test_a_mode_that_was_chosen_does_not_look_like_one_that_failed(arming: ArmingView, why: str) -> None:
    view = msgspec.structs.replace(TROUBLE, mode="observe", arming=arming)
    (line,) = [line for line in describe_status(view) if line.label == "mode"]
    assert line.text == f"observe, nothing is blocked, configured is reject, but {why}"


@pytest.mark.parametrize(
    "command", [["status"], ["registrations"], ["flows"], ["bindings"], ["sync"], ["reload"], ["accept", "17"]]
)
def test_json_is_what_the_api_says(ask: Ask, command: list[str]) -> None:
    result = ask(*command, "--json")
    assert result.exit_code == 0
    assert result.stdout.startswith('{\n  "')
    assert json.loads(result.stdout)


def test_explain_gives_the_verdict_first(ask: Ask, queries: FakeQueries) -> None:
    result = ask("explain", "203.0.113.5", "198.51.100.7", "udp/51820", "--sport", "7")
    assert (result.exit_code, result.stdout) == (0, EXPLAIN_REGISTERED)
    assert queries.asked == [Flow(17, parse_address("203.0.113.5"), parse_address("198.51.100.7"), 7, 51820)]


WAY = ("explain", "203.0.113.5", "198.51.100.7", "udp/51820")


def test_explain_says_that_interfaces_that_are_not_inside_and_outside_are_not_judged(
    ask: Ask, queries: FakeQueries
) -> None:
    queries.crosses = False
    lines = ask(*WAY, "--in", "eth1", "--out", "eth1.100").stdout.splitlines()
    assert lines[0] == (
        "udp/51820 from 203.0.113.5 to 198.51.100.7 PASSES: it goes from eth1 to eth1.100, and the rules judge "
        "what goes between inside and outside alone"
    )
    flow = Flow(17, parse_address("203.0.113.5"), parse_address("198.51.100.7"), 0, 51820)
    assert queries.asked == [(flow, "eth1", "eth1.100")]
    queries.crosses = True
    lines = ask(*WAY, "--in", "ppp0", "--out", "eth0").stdout.splitlines()
    assert lines[0].endswith("PASSES: it is registered and in the kernel")
    assert lines[1].split() == ["interfaces", "ppp0", "to", "eth0"]
    result = ask(*WAY, "--in", "ppp0")
    assert (result.exit_code, "give --in and --out, or neither" in result.stderr) == (2, True)


def test_explain_asks_the_routing_table_and_believes_it_less(
    ask: Ask, queries: FakeQueries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "_route", {"203.0.113.5": "eth0", "198.51.100.7": "eth0"}.get)
    queries.crosses = False
    lines = ask(*WAY).stdout.splitlines()
    assert lines[0].endswith("PASSES: it is registered and in the kernel")
    assert lines[1].split(maxsplit=1)[1] == (
        "by the routing table it goes from eth0 to eth0, which are not inside and outside: then the rules do "
        "not judge it (--in, --out)"
    )
    queries.crosses = True
    assert ask(*WAY).stdout.splitlines()[1].split(maxsplit=1)[1] == "eth0 to eth0, by the routing table"


def test_explain_says_through_which_binding_a_flow_passes(ask: Ask, queries: FakeQueries) -> None:
    queries.bind()
    assert ask("explain", "10.1.2.3", "198.51.100.7", "udp/51820").stdout == EXPLAIN_BOUND


def test_explain_goes_by_the_source_port_where_an_address_is_shared(ask: Ask, queries: FakeQueries) -> None:
    queries.bind()
    flow = ("explain", "192.0.2.77", "198.51.100.7", "udp/51820")
    inside = ask(*flow, "--source-port", "2000").stdout.splitlines()
    assert inside[0].endswith("PASSES: it is registered and in the kernel")
    (through,) = [line for line in inside if line.startswith("through")]
    told = "192.0.2.77/32 ports 1024-2047, reported by cgn-2 1h ago, before a restart of gatewayd and not since"
    assert through == f"through        {told}"
    for words in ((*flow, "--source-port", "2048"), flow):
        outside = ask(*words).stdout
        assert "PASSES, but is not registered" in outside
        assert "its binding has the ports 1024-2047 of the address" in outside
        assert "through  " not in outside


def test_explain_of_a_stranger_has_no_table(ask: Ask) -> None:
    assert ask("explain", "192.0.2.1", "198.51.100.7", "esp").stdout == EXPLAIN_UNREGISTERED


def test_explain_as_json_has_the_decision(ask: Ask) -> None:
    result = ask("explain", "--json", "203.0.113.5", "198.51.100.7", "esp")
    assert json.loads(result.stdout)["decision"] == "registered"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["203.0.113.5", "198.51.100.7", "ipsec"], "ask for one of its services: udp/500, udp/4500, esp, ah"),
        (["203.0.113.5", "2001:db8::1", "esp"], "Invalid value for 'DST': src and dst must both be IPv4"),
        (["203.0.113.0/28", "198.51.100.7", "esp"], "Invalid value for 'SRC': '203.0.113.0/28'"),
        (["203.0.113.5", "198.51.100.7", "esp", "--sport", "1"], "Invalid value for '--source-port': esp has no"),
    ],
)
def test_explain_refuses_a_bad_flow_without_asking(words: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["explain", *words])
    assert result.exit_code == 2
    assert said in result.stderr


def test_registrations_are_listed(ask: Ask) -> None:
    assert ask("registrations").stdout == LIST


def test_registrations_are_selected(ask: Ask, queries: FakeQueries) -> None:
    result = ask("registrations", "--category", "bank", "--status", "active", "--search", "PK", "--limit", "1")
    assert result.stdout.endswith("\n1 registration\n")
    assert queries.asked == [("bank", "active", "PK", 0, 1)]


def test_a_dump_that_is_cut_says_so(ask: Ask) -> None:
    result = ask("registrations", "--limit", "1")
    assert result.stdout.endswith("\n1 of 2 shown; --all, --limit or --search for others\n")
    assert ask("flows", "--limit", "1").stdout.endswith(
        "1 of 2 shown; --all, --limit or --registration for others\n"
    )


def test_nothing_found_is_no_table(ask: Ask) -> None:
    assert ask("registrations", "--category", "embassy").stdout == "0 registrations\n"
    assert ask("flows", "--registration", "PK-0").stdout == "0 registered flows\n"


def test_one_registration_is_shown_whole(ask: Ask) -> None:
    assert ask("registrations", BANK.id).stdout == ONE
    assert json.loads(ask("registrations", BANK.id, "--json").stdout)["id"] == BANK.id


def test_an_unknown_registration_is_exit_1(ask: Ask) -> None:
    result = ask("registrations", "PK/../0")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: no registration has the id 'PK/../0'\n"


def test_an_id_and_a_selection_exclude_each_other() -> None:
    result = CliRunner().invoke(main, ["registrations", "PK-1", "--category", "bank"])
    assert result.exit_code == 2
    assert "give ID or options that select, not both" in result.stderr


def test_flows_are_listed(ask: Ask) -> None:
    assert ask("flows").stdout == FLOWS


def test_unregistered_flows_are_listed_where_they_are_kept(ask: Ask, queries: FakeQueries) -> None:
    assert ask("flows", "--unregistered").stdout == (
        "source             destination   service  seen\n"
        "203.0.113.9:40000  198.51.100.7  udp/500  2024-11-04T02:59:55Z\n"
        "1 unregistered flow\n"
    )
    queries.keeps_flows = False
    assert "watch.unregistered is not `flows`" in ask("flows", "--unregistered").stderr
    assert "have no registration" in ask("flows", "--unregistered", "--registration", "A").stderr


def test_bindings_are_listed(ask: Ask) -> None:
    assert ask("bindings").stdout == BINDINGS


def test_bindings_are_selected(ask: Ask, queries: FakeQueries) -> None:
    result = ask("bindings", "--registration", MOBILE.id, "--address", "10.1.2.3", "--limit", "5")
    assert result.stdout.endswith("\n1 binding\n")
    assert queries.asked == [(MOBILE.id, parse_prefix("10.1.2.3"), 0, 5)]
    said = "1 of 2 shown; --all, --limit, --registration or --address for others\n"
    assert ask("bindings", "--limit", "1").stdout.endswith(said)
    assert ask("bindings", "--registration", "PK-0").stdout == "0 bindings\n"


def test_a_binding_without_elements_in_the_kernel_is_shouted(ask: Ask, queries: FakeQueries) -> None:
    queries.in_kernel = False
    assert "  NO  " in ask("bindings").stdout
    queries.in_kernel = None
    assert "  -  " in ask("bindings").stdout


def test_an_address_that_is_none_is_exit_2(ask: Ask) -> None:
    result = ask("bindings", "--address", "10.1.2")
    assert result.exit_code == 2
    assert "address: '10.1.2': not an IPv4 or IPv6 address" in result.stderr


def test_bindings_where_no_subscribers_are_configured_is_exit_1(ask: Ask, queries: FakeQueries) -> None:
    queries.has_subscribers = False
    result = ask("bindings")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: the configuration has no section `subscribers`, so there are no bindings\n"


def test_a_sync_says_what_came_of_it(ask: Ask) -> None:
    result = ask("sync")
    assert (result.exit_code, result.stdout) == (0, "registrations  31022\nerrors         none\n")


def test_a_sync_with_a_source_that_failed_is_exit_1(ask: Ask, queries: FakeQueries) -> None:
    queries.outcome = {"registrations": 3, "errors": {"lab": "gone", "far": "HTTP status 503"}}
    result = ask("sync")
    assert result.exit_code == 1
    assert result.stdout == ("registrations  3\nerrors         lab: gone\n               far: HTTP status 503\n")
    assert ask("sync", "--json").exit_code == 1


def test_a_reload_says_what_came_of_it(ask: Ask) -> None:
    result = ask("reload")
    assert (result.exit_code, result.output.splitlines()) == (0, ["reload         done", "mode in force  observe"])


def test_a_reload_that_was_refused_names_each_fault_and_key_and_is_exit_1(ask: Ask, queries: FakeQueries) -> None:
    queries.reload_outcome = {
        "reloaded": False, "faults": ["f:3:1: policy.mode: 'refuse' is not known"],
        "needs_restart": ["kernel.table"], "mode": "reject", "waits_for": ["source new is being read"],
    }  # fmt: skip
    result = ask("reload")
    assert result.exit_code == 1
    for word in ("REFUSED", "f:3:1: policy.mode", "kernel.table", "reject", "source new is being read"):
        assert word in result.output
    assert ask("reload", "--json").exit_code == 1


def test_a_sync_that_fails_is_exit_1(ask: Ask, queries: FakeQueries) -> None:
    queries.failure = SourceUnreadable("national", "gone")
    result = ask("sync")
    assert (result.exit_code, result.stderr) == (1, "Error: source national: gone\n")


def test_accept_says_what_was_released(ask: Ask, queries: FakeQueries) -> None:
    result = ask("accept", "17")
    assert (result.exit_code, result.stdout) == (0, "serial         17\nreleased       national: 1204\n")
    assert queries.asked == [(17, f"uid {os.getuid()}")]


def test_what_would_break_an_assertion_is_exit_1_and_can_be_forced(ask: Ask, queries: FakeQueries) -> None:
    uid = f"uid {os.getuid()}"
    assert ask("accept", "17", "--force").exit_code == 0
    assert ask("reload", "--force").exit_code == 0
    assert queries.asked == [(17, uid, "forced"), (uid, "forced")]
    why = "must_pass hbl (a.yaml:1): udp/500: no registration covers it; it is there for: the NOC"
    queries.reload_outcome = {"reloaded": False, "mode": "observe", "broken": [why]}
    result = ask("reload")
    assert (result.exit_code, result.output.splitlines()) == (
        1,
        [
            "reload         REFUSED; the settings from before stay in force",
            f"WOULD BREAK    {why}",
            "               nothing was changed; gatewayd reload --force does it all the same",
            "mode in force  observe",
        ],
    )
    queries.reload_outcome = {"reloaded": True, "mode": "observe", "broken": [why]}
    assert "the local files wait; gatewayd reload --force" in ask("reload").output


def test_failing_assertions_come_first(queries: FakeQueries) -> None:
    view = queries.status()
    failing = tuple(
        FailingView(f"a-{number}", "must_pass", "no element", "the NOC", "a.yaml:1", view.now)
        for number in range(7)
    )
    view = msgspec.structs.replace(view, assertions=AssertionsView(9, 7, 1, view.now, examples=failing))
    text, style = headline(view)
    assert text.startswith("FAILING ASSERTION: a-0, a-1, a-2 +4; READY")
    assert style == BAD
    lines = list(describe_status(view))
    assert lines[0] == Line("ASSERTION FAILS", "must_pass a-0 for 0s: no element", BAD)
    assert lines[1].text.strip() == "it is there for: the NOC (a.yaml:1)"
    assert [line.text for line in lines[10:13]] == [
        "and 2 more",
        "2 assertions of 9 hold, looked up in the kernel 0s ago",
        "1 assertion not looked at: past the bound, or named twice",
    ]


def test_accept_of_a_serial_that_is_not_held_is_exit_1(ask: Ask, queries: FakeQueries) -> None:
    result = ask("accept", "16")
    assert (result.exit_code, result.stdout, result.stderr) == (
        1,
        "",
        "Error: serial 16 is not held; serial 17 is\n",
    )
    queries.held_serial = None
    assert ask("accept", "17").stderr == "Error: serial 17 is not held; nothing is\n"


def test_accept_of_what_cannot_be_a_serial_is_exit_2(ask: Ask, queries: FakeQueries) -> None:
    for words in ([], ["all"], ["--", "-1"], ["1" * 20]):
        assert ask("accept", *words).exit_code == 2
    assert queries.asked == []


def test_the_url_is_asked_instead_of_the_socket(server: ApiServer) -> None:
    result = CliRunner().invoke(main, ["status", "--url", f"http://127.0.0.1:{server.port}/"])
    assert result.stdout == STATUS_IN_PEACE


def test_a_parameter_that_the_daemon_refuses_is_exit_2(ask: Ask) -> None:
    result = ask("registrations", "--search", "a" * 201)
    assert result.exit_code == 2
    assert "q: longer than 200 characters" in result.stderr


def test_no_socket_is_exit_3_and_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "none.sock"
    result = CliRunner().invoke(main, ["status", "--socket", str(path)])
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == (
        f"gatewayd: no gatewayd answers at {path}: the socket is not there (is the service running?)\n"
    )


def test_a_socket_left_behind_is_exit_3(tmp_path: Path) -> None:
    path = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    result = CliRunner().invoke(main, ["flows", "--socket", str(path)])
    assert result.exit_code == 3
    assert result.stderr.endswith(": nobody listens there (is the service running?)\n")


def test_a_port_where_nobody_listens_is_exit_3() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = CliRunner().invoke(main, ["status", "--url", f"http://127.0.0.1:{port}"])
    assert result.exit_code == 3
    assert result.stderr == (
        f"gatewayd: no gatewayd answers at http://127.0.0.1:{port}: "
        "nobody listens there (is the service running?)\n"
    )


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://127.0.0.1"])
def test_what_is_no_url_is_exit_2(url: str) -> None:
    result = CliRunner().invoke(main, ["status", "--url", url])
    assert result.exit_code == 2
    assert f"'{url}' is not a URL, expected http://HOST:PORT" in result.stderr


def answering(answer: bytes, path: Path) -> threading.Thread:
    """A server that takes one connection, sends `answer` to whatever it is asked, and closes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", 3, "is not this gatewayd"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 3, "is not this gatewayd"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\n{}", 1, "HTTP status 502"),
        (b"", 3, "no gatewayd answers at"),
    ],
)
def test_another_server_is_not_taken_for_the_daemon(tmp_path: Path, answer: bytes, status: int, said: str) -> None:
    path = tmp_path / "other.sock"
    thread = answering(answer, path)
    result = CliRunner().invoke(main, ["status", "--socket", str(path)])
    thread.join()
    assert result.exit_code == status
    assert said in result.stderr


def test_a_daemon_that_does_not_answer_is_exit_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "READ_TIMEOUT_S", 0.01)
    path = tmp_path / "deaf.sock"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        result = CliRunner().invoke(main, ["status", "--socket", str(path)])
    assert result.exit_code == 3
    assert result.stderr.endswith(": no answer within 0.01 s\n")


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Found("reject", 12, 31000), "rules of mode reject, 31,000 elements in 12 sets"),
        (Found(None, 1, 1), "no rules of ours, 1 element in 1 set"),
        (Found("observe", 3, None), "rules of mode observe, elements in 3 sets"),
    ],
)
def test_what_is_in_the_kernel_and_not_read_yet_is_said(found: Found, text: str) -> None:
    assert found_at_start(found) == f"in force from before this start, not read yet: {text}"


@pytest.mark.parametrize("command", ["registrations", "flows", "bindings"])
def test_all_of_a_list_can_be_had(
    ask: Ask, queries: FakeQueries, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    queries.bind()
    monkeypatch.setattr(listings, "HIGHEST_LIMIT", 1)
    whole = ask(command)
    assert ask(command, "--all").stdout == whole.stdout
    both = json.loads(ask(command, "--all", "--json").stdout)
    assert len(both["items"]) == both["total"] == json.loads(ask(command, "--json").stdout)["total"] > 1
    assert json.loads(ask(command, "--offset", "1", "--json").stdout)["items"] == both["items"][1:]
    result = ask(command, "--all", "--limit", "1")
    assert (result.exit_code, "give --all, or --limit and --offset" in result.stderr) == (2, True)


def test_a_file_that_is_not_written_is_said(ask: Ask, queries: FakeQueries) -> None:
    failing = StateFileView("activity", "failing", "database or disk is full", lost=3)
    newer = StateFileView("impact", "newer", "a newer gatewayd wrote it")
    queries.view = msgspec.structs.replace(PEACE, state_files=(failing, newer, StateFileView("near_misses", "ok")))
    lines = [line for line in ask("status").stdout.splitlines() if ".sqlite" in line]
    assert lines == [
        "NOT WRITTEN    activity.sqlite: database or disk is full; its rows wait in memory, "
        "and no traffic depends on it",
        "               3 rows of activity.sqlite lost",
        "NOT WRITTEN    impact.sqlite: a newer gatewayd wrote it; it is left as it is, "
        "and no traffic depends on it",
    ]


def test_a_registration_is_shown_with_its_use_over_restarts(ask: Ask, queries: FakeQueries) -> None:
    used = ActivityView(BANK.id, "hbl", "bank", "active", False, True, 391, 2**30, 14, "2024-11-03T02:00:00Z")
    queries.activity_page = ActivityPage(1, 0, (used,))
    assert ask("registrations", BANK.id).stdout.splitlines()[-1] == (
        "30 days        391 flows, 1.0 GiB on 14 days, last seen 2024-11-03T02:00:00Z"
    )
    queries.activity_page = ActivityPage(
        1, 0, (msgspec.structs.replace(used, flows=0, bytes=0, last_seen_at=None),)
    )
    assert ask("registrations", BANK.id).stdout.splitlines()[-1].endswith("never seen")
    queries.activity_page = StateFileUnusable("activity.sqlite", "it is locked")
    found = ask("registrations", BANK.id)
    assert found.exit_code == 0
    assert "30 days" not in found.stdout
