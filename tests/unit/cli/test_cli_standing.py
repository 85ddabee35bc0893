"""`gatewayd held` and `changes`, and how a registration's standing is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from gatewayd.api.standing import (
    ChangeList,
    HeldEndpointsView,
    HeldList,
    HeldRegistrant,
    HeldRemovalView,
    OverrideView,
    StepView,
)
from gatewayd.cli import main
from gatewayd.model.moment import parse_time
from tests.support.fake_queries import FakeQueries, serving_in_a_thread

Run = Callable[..., Result]
SINCE = "2024-11-04T02:56:00Z"
REMOVAL = HeldRemovalView("BANK-1", "bank", ("203.0.113.0/28", "2001:db8::/48"), "nothing", "national", SINCE, 12)
HELD = HeldList(90211, SINCE, "412 removed at once", 412, 0, (REMOVAL,))
FILTER = OverrideView("filter", "BANK-1", "desk.yaml", 4, "compromised", None)
PIN = OverrideView("pin", "BANK-1", "desk.yaml", 2, "by phone", "2099-01-01T00:00:00Z")


@pytest.fixture
def queries() -> FakeQueries:
    return FakeQueries()


@pytest.fixture
def run(queries: FakeQueries, tmp_path: Path) -> Iterator[Run]:
    with serving_in_a_thread(queries, tmp_path / "api.sock"):

        def invoke(*arguments: str) -> Result:
            return CliRunner().invoke(main, [*arguments, "--socket", str(tmp_path / "api.sock")])

        yield invoke


def test_nothing_held_is_said(run: Run) -> None:
    assert run("held").stdout == "Nothing is held.\n"


def test_held_removals_are_told_before_they_are_accepted(run: Run, queries: FakeQueries) -> None:
    queries.held_list = msgspec.structs.replace(HELD, elements=7, elements_serial=1730689000)
    lines = run("held", "--limit", "1").stdout.splitlines()
    assert lines[0] == "412 removals held: 412 removed at once; gatewayd accept 90211 lets them go"
    assert re.split(r"  +", lines[2]) == [
        "BANK-1", "-", "bank", "12", SINCE, "national", "203.0.113.0/28 2001:db8::/48",
    ]  # fmt: skip
    assert lines[3:] == [
        "1 of 412 shown; --limit or --offset for others",
        "7 elements that a start found in the kernel, and no registration wants; gatewayd accept 1730689000 lets "
        "them go",
    ]
    assert queries.asked == [(0, 1)]
    assert json.loads(run("held", "--json").stdout)["items"][0]["flows"] == 12


def test_a_held_binding_has_no_prefix(run: Run, queries: FakeQueries) -> None:
    queries.held_list = msgspec.structs.replace(
        HELD, total=1, items=(msgspec.structs.replace(REMOVAL, prefixes=(), since=None),)
    )
    assert re.split(r"  +", run("held").stdout.splitlines()[2])[4:] == ["-", "national", "by subscriber"]


def test_companies_and_endpoints_that_wait_are_told(run: Run, queries: FakeQueries) -> None:
    waiting = HeldEndpointsView("VPN-7", "co-9", ("198.51.100.0/24",), ("ipsec",), (), "national", SINCE)
    queries.held_list = msgspec.structs.replace(
        HELD, total=1, registrants=(HeldRegistrant("co-1", 8, 8), HeldRegistrant("co-2", 3, 8)),
        endpoints=(waiting,),
        endpoints_serial=7, endpoints_reason="17 endpoint prefixes added, more than 16, by VPN-7",
    )  # fmt: skip
    lines = run("held").stdout.splitlines()
    assert lines[3:6] == [
        "co-1: all of its 8 registrations would go",
        "co-2: 3 of its 8 registrations would go",
        "not in force: 17 endpoint prefixes added, more than 16, by VPN-7; gatewayd accept 7 lets them in",
    ]
    assert re.split(r"  +", lines[7]) == [
        "VPN-7", "co-9", SINCE, "national", "ipsec", "198.51.100.0/24", "nothing",
    ]  # fmt: skip
    queries.held_list = msgspec.structs.replace(HELD, total=0, items=(), endpoints=(waiting,), endpoints_serial=7)
    assert run("held").stdout.startswith("not in force: ")


def test_changes_are_told_by_step(run: Run, queries: FakeQueries) -> None:
    before = "gatewayd report has those of earlier runs"
    assert run("changes").stdout == f"no change in this run of the daemon; {before}\n"
    since = run("changes", "--since", "1h").stdout
    assert since == f"no change since then, as far back as this run of the daemon; {before}\n"
    many = tuple(f"A-{number}" for number in range(25))
    queries.change_list = ChangeList(
        3,
        (
            StepView(SINCE, "national", 17, "", ("A-1",), (), ("B-1", "B-2"), 0),
            StepView("2024-11-04T02:59:00Z", "operator/accept", 90211, "ahmed", (), many, (), 9),
        ),
    )
    lines = run("changes").stdout.splitlines()
    assert lines[:4] == [
        "3 older steps forgotten",
        f"{SINCE}  national, serial 17",
        "               came 1: A-1",
        "               changed 2: B-1 B-2",
    ]
    assert lines[4] == "2024-11-04T02:59:00Z  operator/accept, serial 90211, accepted by ahmed"
    assert lines[5].endswith("A-19 and 5 more")
    assert lines[6].strip() == "and 9 not listed"
    assert len(json.loads(run("changes", "--json").stdout)["items"][1]["went"]) == 25


def test_changes_are_asked_for_by_moment_or_by_length(run: Run, queries: FakeQueries) -> None:
    run("changes", "--since", SINCE)
    run("changes", "--since", "2h")
    run("changes", "--since", "1h")
    first, second, third = queries.asked
    assert first == parse_time(SINCE)
    assert isinstance(second, float)
    assert isinstance(third, float)
    assert 3500 < third - second < 3700
    result = run("changes", "--since", "yesterday")
    assert (result.exit_code, "'yesterday' is no time" in result.stderr) == (2, True)
