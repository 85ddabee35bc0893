from __future__ import annotations

import pytest
from msgspec.structs import replace

from gatewayd.api.status import CounterView, PolicyView, StatusView
from gatewayd.assertions.states import AssertionsView, FailingView
from gatewayd.model.policy import Stage
from gatewayd.model.transaction import ConntrackSize
from gatewayd.page.overview import Countdown, Overview, overview_of
from gatewayd.trial.views import ArmingView, TrialView
from gatewayd.watch.interfaces import InterfacesView, PatternView
from tests.support.fake_queries import GUARDED, PEACE, SUBSCRIBED, TROUBLE
from tests.support.pages import NOTHING

TRIAL = TrialView(
    "1", "confirm", Stage("observe"), Stage("reject", 10), "2024-11-04T02:55:00Z", "2024-11-04T03:05:00Z", 300,
    "uid 0", "", True,
)  # fmt: skip


def shown(view: StatusView) -> Overview:
    return overview_of("gw-1", view, NOTHING)


def test_in_peace_the_first_line_is_ready_and_says_how_much_is_in_force() -> None:
    found = shown(PEACE)
    assert (found.word, found.tone, found.looks, found.looks_tone) == ("READY", "good", "nothing is wrong", "good")
    assert found.headline == "30,988 registrations in force, read back from the kernel"
    assert (found.host, found.trial, found.problems) == ("gw-1", None, ())


def test_when_not_ready_the_first_line_has_every_reason() -> None:
    found = shown(TROUBLE)
    assert (found.word, found.tone) == ("NOT READY", "bad")
    assert found.headline == "12 registered elements are not in the kernel; source lab was never read"
    assert shown(replace(PEACE, ready=False)).headline == "no reason given"


def test_what_is_to_be_looked_at_is_counted_the_urgent_apart() -> None:
    found = shown(GUARDED)
    assert found.looks == "12 things to look at, 11 of them urgent"
    assert (found.tone, found.looks_tone) == ("good", "bad")
    overdue = replace(PEACE.sources[0], freshness="overdue")
    found = shown(replace(PEACE, sources=(overdue,)))
    assert (found.looks, found.looks_tone) == ("1 thing to look at", "doubtful")


def test_an_assertion_that_fails_is_bad_although_the_kernel_has_all() -> None:
    example = FailingView("hq", "must_pass", "no registration has it", "Head office", "50.yaml:3", None)
    found = shown(replace(PEACE, assertions=AssertionsView(total=2, failing=1, examples=(example,))))
    assert (found.word, found.tone) == ("READY", "bad")
    assert [(each.value, each.note, each.tone) for each in found.facts if "assertions" in each.label] == [
        ("1", "of 2", "bad")
    ]


@pytest.mark.parametrize(
    ("trial", "countdown"),
    [
        (TRIAL, Countdown("TRIAL of reject, canary 10%", 300, "then observe, unless gatewayd confirm")),
        (replace(TRIAL, kind="timed"), Countdown("TRIAL of reject, canary 10%", 300, "then observe")),
        (replace(TRIAL, is_applied=False), Countdown("TRIAL of reject, canary 10%", 300, "being applied")),
    ],
)
def test_a_trial_has_its_end_beside_it(trial: TrialView, countdown: Countdown) -> None:
    assert shown(replace(PEACE, arming=ArmingView(pending=trial))).trial == countdown


@pytest.mark.parametrize(
    ("view", "mode", "note"),
    [
        (PEACE, "observe", "nothing is blocked; the file says reject from 2024-12-01T00:00:00Z"),
        (replace(PEACE, enforce_from=None), "observe", "nothing is blocked; the file says reject"),
        (
            replace(PEACE, mode="mark", armed=True, configured_mode="mark"),
            "mark",
            "unregistered flows pass, marked",
        ),
        (
            replace(
                PEACE, mode="reject", armed=True, policy=PolicyView("", 25, "2024-11-04T02:00:00Z", "uid 0"),
                enforce_until="2024-12-02T00:00:00Z",
            ),
            "reject, canary 25 %",
            "unregistered flows in scope are refused, until 2024-12-02T00:00:00Z",
        ),
    ],
)  # fmt: skip
def test_the_mode_says_what_it_does(view: StatusView, mode: str, note: str) -> None:
    found = shown(view)
    assert (found.mode, found.mode_note) == (mode, note)
    assert found.mode_tone == ("doubtful" if view.armed else "plain")


def test_numbers_that_are_not_there_are_left_away_and_the_others_have_their_words() -> None:
    assert len(shown(PEACE).facts) == 6
    counted = replace(SUBSCRIBED, counters={**SUBSCRIBED.counters, "unregistered_flows": CounterView(17, 0)})
    facts = {
        each.label: (each.value, each.note)
        for each in shown(replace(counted, conntrack=ConntrackSize(250, 1_000))).facts
    }
    assert facts["sessions"] == ("31,000", "412 addresses bound")
    assert facts["connection tracking"] == ("25%", "250 entries")
    assert facts["unregistered flows"] == ("17", "1020 B so far")
    assert facts["registered flows now"] == ("310", "3.0 GiB so far")
    assert {each.label: each.note for each in shown(TROUBLE).facts}["registered flows now"] == ""


def test_the_tables_have_a_tone_for_each_source_and_say_what_is_left_away() -> None:
    sources, categories, unregistered = shown(GUARDED).tables
    assert sources.tones == ("plain", "doubtful", "bad", "bad")
    assert [row[1] for row in sources.rows] == ["ok", "failing, overdue", "waiting, stale", "waiting, stale"]
    assert sources.rows[0][5] == "signed, serial 17"
    assert (categories.rows, categories.note) == ((("bank", "31,000"), ("embassy", "22")), "")
    assert (unregistered.rows, unregistered.note) == ((), "No unregistered flow was seen.")
    inside = (PatternView("ppp*", 2, ("ppp0", "ppp1")), PatternView("eth9", 0))
    watched = replace(PEACE, interfaces=InterfacesView(4, inside, (PatternView("eth0", 1, ("eth0",)),)))
    interfaces = shown(watched).tables[1]
    assert interfaces.rows == (
        ("ppp*", "inside", "2", "ppp0, ppp1"), ("eth9", "inside", "0", "-"), ("eth0", "outside", "1", "eth0"),
    )  # fmt: skip
    assert interfaces.tones == ("plain", "bad", "plain")
    many = replace(PEACE.registrations, by_category={f"c{each}": each for each in range(10)})
    assert shown(replace(PEACE, registrations=many)).tables[1].note == "and 2 more categories"
    rows = shown(TROUBLE).tables[-1].rows
    assert rows == (("192.0.2.0/24", "55", "udp/51820 (54), esp (1)"), ("2001:db8:99::/48", "1", "-"))
