"""config/prometheus: each alert fires on series made for it and not on others, and leads to a page that exists.

Prometheus itself (`promtool`) evaluates the file. The daemon's side, real series of a healthy gateway, is in
`tests/lab/test_lab_prometheus.py`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from promql_parser import parse_duration

from tests.support.metrics_table import DOC
from tests.support.promql import faults_of, names_in
from tests.support.renewed import RULES, metrics_of
from tests.unit.test_docs import ROOT, anchors_of, fences_of, text_of
from tests.unit.test_sentences import too_long, unused_words

STEP_S = 30
SEVERITIES = {"page", "ticket"}
DAY_S = 86_400


def alerts() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


ALERTS = {each["alert"]: each for each in alerts()}


@dataclass(frozen=True, slots=True)
class Case:
    """Series in promtool's notation, a value every 30 s: `0x9 1x20` is ten times 0, then 21 times 1. Without labels
    of a target, they are of gateway gw1. `at`: when it fires, and `quiet` does not. `says`: its summary then.
    """

    fires: Mapping[str, str]
    quiet: Mapping[str, str]
    at: str
    says: str
    labels: Mapping[str, str] = field(default_factory=dict)


def gauge(name: str, at: str, says: str, *, bad: str = "1x200", good: str = "0x200", **labels: str) -> Case:
    words = ",".join(f'{label}="{word}"' for label, word in labels.items())
    series = f"{name}{{{words}}}" if words else name
    return Case({series: bad}, {series: good}, at, says, labels)


CASES: dict[str, Case] = {
    # A scrape that failed once is no page.
    "GatewaydDown": gauge("up", "4m", "gw1: the daemon does not answer", bad="0x20", good="1 0 0 0 1x20"),
    "GatewaydNotScraped": Case(
        {'up{job="node",instance="gw1"}': "1x40"}, {"up": "1x40"}, "16m", "Prometheus has no gateway to scrape"
    ),
    "GatewaydNotReady": gauge("gatewayd_ready", "3m", "gw1 is not ready", bad="0x20", good="1 0 0 0 1x20"),
    "GatewaydRestarting": gauge(
        "gatewayd_start_time_seconds", "31m", "gw1: the daemon restarts again and again",
        bad="100x9 700x9 1300x9 1900x60", good="100x9 700x9 1300x80",
    ),
    "GatewaydConfigRefused": gauge("gatewayd_config_reload_failed", "16m", "gw1: a changed file is not in force"),
    "GatewaydStateNotSaved": gauge(
        "gatewayd_state_file_ok", "11m", "gw1: the disk does not take the state",
        bad="0x40", good="0x10 1x40", file="activity",
    ),
    "GatewaydClockDoubted": gauge("gatewayd_clock_doubted", "11m", "gw1: the host's clock is not believed"),
    "GatewaydClockUnconfirmed": gauge(
        "gatewayd_clock_confirmed", "61m", "gw1: neither NTP nor a signed notification confirms the time",
        bad="0x200", good="0x60 1x200",
    ),
    "GatewaydRegisteredNotInKernel": gauge(
        "gatewayd_registered_not_in_kernel", "2m", "gw1: 12 elements of registrations are not in the kernel",
        bad="12x20", good="12 12 0x20",
    ),
    "GatewaydNotProgrammed": gauge(
        "gatewayd_registrations_unprogrammed", "2m", "gw1: 3 registrations are past a bound of the kernel's",
        bad="3x20",
    ),
    "GatewaydTableChanged": gauge(
        "gatewayd_kernel_repairs_total", "32m", "gw1: another program changes our table again and again",
        bad="0x9 1x19 2x19 3x5 4x40", good="0x9 1x19 2x100",
    ),
    "GatewaydLateAdmissions": gauge(
        "gatewayd_late_admissions_total", "22m", "gw1: registered flows come before their elements",
        bad="0+2x60", good="0x9 40x60",
    ),
    "GatewaydEventsLost": gauge(
        "gatewayd_watch_overruns_total", "22m", "gw1: the kernel drops events before they are read",
        bad="0+1x60", good="0x20 90x60",
    ),
    "GatewaydConntrackFull": Case(
        {"gatewayd_conntrack_entries": "81x20", "gatewayd_conntrack_max": "100x20"},
        {"gatewayd_conntrack_entries": "80x20", "gatewayd_conntrack_max": "100x20"},
        "6m", "gw1: the table of connections is nearly full, or drops flows",
    ),
    "GatewaydMarksChangedByOthers": Case(
        {'gatewayd_mark_neighbours{kind="writes"}': "2x40", 'gatewayd_mark_neighbours{kind="leaks"}': "0x40"},
        {'gatewayd_mark_neighbours{kind="writes"}': "0x40", 'gatewayd_mark_neighbours{kind="leaks"}': "0x40"},
        "16m", "gw1: 2 rules of other programs reach our bits of the ct mark", {"kind": "writes"},
    ),
    "GatewaydInterfaceMissing": gauge(
        "gatewayd_interfaces_unmatched", "16m", "gw1: 1 names of policy.interfaces match no interface"
    ),
    "GatewaydHostFindings": gauge("gatewayd_host_findings", "31m", "gw1: 2 findings about the host", bad="2x80"),
    "GatewaydSourceFailing": gauge(
        "gatewayd_source_up", "31m", "gw1: source national cannot be read",
        bad="0x100", good="0x30 1 0x100", source="national",
    ),
    "GatewaydSourceStale": gauge("gatewayd_source_stale", "6m", "gw1: source national is stale", source="national"),
    # Time begins at 0, and the last notification was issued a day less five minutes before.
    "GatewaydRegistryNotPublishing": gauge(
        "gatewayd_source_issued_timestamp_seconds", "21m",
        "gw1: source national has issued nothing for 1d 0h 16m 0s",
        bad="-86100x60", good="-86100x20 600x60", source="national",
    ),
    "GatewaydRemovalsHeld": gauge(
        "gatewayd_held_removals", "11m", "gw1: 412 changes of national wait for an engineer",
        bad="412x40", good="412x10 0x40", cause="national",
    ),
    # 5 % of 3,021 is 151.
    "GatewaydRegistrationsFell": gauge(
        "gatewayd_registrations_effective", "46m", "gw1: 152 registrations less than half an hour ago",
        bad="3021x79 2869x80", good="3021x79 2870x80",
    ),
    "GatewaydAssertionFailing": gauge("gatewayd_assertions_failing", "1m", "gw1: 2 assertions fail", bad="2x20"),
    "GatewaydTripped": gauge("gatewayd_tripped", "1m", "gw1 has tripped: its mode is observe"),
    "GatewaydRevertStuck": gauge(
        "gatewayd_trial_reverting", "1m", "gw1: a trial is over, and its mode is still in the kernel",
        bad="1x20", good="0 1 0x20",
    ),
    "GatewaydTrialEnding": gauge(
        "gatewayd_trial_deadline_timestamp_seconds", "6m", "gw1: the trial ends in 4m 0s",
        bad="600x20", good="661x20",
    ),
    "GatewaydTrialReverted": gauge(
        "gatewayd_trial_reverts_unacknowledged", "2m", "gw1: a trial was not confirmed, and its mode is gone"
    ),
    "GatewaydModeNotInFile": gauge(
        "gatewayd_mode_differs_from_file", "481m", "gw1: the mode in force is not the file's",
        bad="1x970", good="1x100 0 1x900",
    ),
    "GatewaydNearMisses": Case(
        {"gatewayd_near_misses_listed": "7x40", "gatewayd_armed": "1x40"},
        {"gatewayd_near_misses_listed": "7x40", "gatewayd_armed": "0x40"},
        "16m", "gw1: 7 near misses of registered customers while the policy is armed",
    ),
    # What is refused is not heard either.
    "GatewaydNoAccounting": Case(
        {
            'gatewayd_radius_requests_total{kind="event"}': "0+5x20 100x200",
            'gatewayd_radius_requests_total{kind="rejected"}': "0+5x220",
        },
        {'gatewayd_radius_requests_total{kind="event"}': "0+5x20 100x50 101x200"},
        "56m", "gw1: no accounting record for 45 minutes",
    ),
    "GatewaydJournalFailing": gauge(
        "gatewayd_journal_suspended", "6m", "gw1: the journal of accounting is not durable"
    ),
}  # fmt: skip

ALSO_FIRES: dict[str, list[Case]] = {
    "GatewaydConfigRefused": [
        gauge("gatewayd_override_faults", "16m", "gw1: a changed file is not in force", bad="2x40")
    ],
    "GatewaydStateNotSaved": [
        gauge("gatewayd_source_store_failed", "11m", "gw1: the disk does not take the state", source="national"),
        gauge("gatewayd_trial_record_not_saved", "11m", "gw1: the disk does not take the state"),
    ],
    "GatewaydConntrackFull": [
        # Now and then two packets of a flow race, and one is dropped: that is no full table.
        gauge(
            "gatewayd_conntrack_dropped_total", "12m",
            "gw1: the table of connections is nearly full, or drops flows", bad="0+30x40", good="0+3x40",
        ),
    ],
    "GatewaydRegistrationsFell": [
        # Of few, ten may go; the eleventh is more than half of a small registry.
        gauge(
            "gatewayd_registrations_effective", "46m", "gw1: 11 registrations less than half an hour ago",
            bad="20x79 9x80", good="20x79 10x80",
        ),
    ],
    "GatewaydJournalFailing": [
        gauge(
            "gatewayd_accounting_unanswered_total", "12m", "gw1: the journal of accounting is not durable",
            bad="0+3x40", good="0x10 30x40",
        ),
    ],
}  # fmt: skip
"""By another part of their expression."""


def every_case() -> Iterator[tuple[str, Case]]:
    yield from CASES.items()
    yield from ((name, case) for name, cases in ALSO_FIRES.items() for case in cases)


def series_of(series: Mapping[str, str]) -> list[dict[str, str]]:
    """With the labels of gw1, where they have none of a target, and beside them a gateway that answers."""
    written = []
    for name, values in series.items():
        if "instance=" not in name:
            name, _, labels = name.partition("{")
            name = f'{name}{{job="gatewayd",instance="gw1",{labels or "}"}'
        written.append({"series": name, "values": values})
    if not any(each["series"].startswith("up{") for each in written):
        written.append({"series": 'up{job="gatewayd",instance="gw1"}', "values": "1x3000"})
    return written


def labels_of(name: str, case: Case) -> dict[str, str]:
    target = {"job": "gatewayd"} | ({} if name == "GatewaydNotScraped" else {"instance": "gw1"})
    return target | dict(case.labels) | {"severity": ALERTS[name]["labels"]["severity"]}


def firing(name: str, case: Case, at: str, *, expected: bool) -> dict[str, Any]:
    """A question of promtool: which alerts fire? This one and no other, or none at all."""
    labels = {"alertname": name, "alertstate": "firing"} | labels_of(name, case)
    words = ",".join(f'{label}="{word}"' for label, word in labels.items())
    samples = [{"labels": f"ALERTS{{{words}}}", "value": 1}] if expected else []
    return {"expr": 'ALERTS{alertstate="firing"}', "eval_time": at, "exp_samples": samples}


def promtool(tmp_path: Path, tests: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "test.yml"
    whole = {"rule_files": [str(RULES)], "evaluation_interval": f"{STEP_S}s", "tests": tests}
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    return subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)


def group(series: Mapping[str, str], **tests: list[dict[str, Any]]) -> dict[str, Any]:
    return {"interval": f"{STEP_S}s", "input_series": series_of(series), **tests}


def test_every_alert_has_a_case() -> None:
    assert CASES.keys() == ALERTS.keys()
    assert len(ALERTS) == len(list(alerts()))


def test_prometheus_takes_the_file() -> None:
    done = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_configuration_that_is_shown(tmp_path: Path) -> None:
    operations = text_of(ROOT / "docs" / "operations.md")
    (shown,) = [each.body for each in fences_of(operations) if "scrape_configs" in each.body]
    path = tmp_path / "prometheus.yml"
    path.write_text(shown.replace("/etc/prometheus/rules/*.yml", str(RULES)))
    done = subprocess.run(["promtool", "check", "config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (job,) = yaml.safe_load(shown)["scrape_configs"]
    assert f'up{{job="{job["job_name"]}"}}' in RULES.read_text()


def test_each_alert_fires_and_keeps_still(tmp_path: Path) -> None:
    """Whenever one fires, no other does: an engineer is not called twice for one cause."""
    tests = []
    for name, case in every_case():
        tests.append(group(case.fires, promql_expr_test=[firing(name, case, case.at, expected=True)]))
        tests.append(group(case.quiet, promql_expr_test=[firing(name, case, case.at, expected=False)]))
    done = promtool(tmp_path, tests)
    assert done.returncode == 0, done.stdout + done.stderr


ONE_CAUSE: dict[str, dict[str, str]] = {
    "GatewaydRegisteredNotInKernel": {"gatewayd_ready": "0x40", "gatewayd_registered_not_in_kernel": "5x40"},
    "GatewaydNotProgrammed": {"gatewayd_ready": "0x40", "gatewayd_registrations_unprogrammed": "5x40"},
    "GatewaydClockDoubted": {"gatewayd_clock_doubted": "1x200", "gatewayd_clock_confirmed": "0x200"},
    "GatewaydInterfaceMissing": {"gatewayd_interfaces_unmatched": "1x80", "gatewayd_host_findings": "1x80"},
    "GatewaydMarksChangedByOthers": {
        'gatewayd_mark_neighbours{kind="writes"}': "1x80",
        "gatewayd_host_findings": "1x80",
    },
    # Tripped is observe: the near misses pass.
    "GatewaydTripped": {
        "gatewayd_tripped": "1x40",
        "gatewayd_armed": "0x40",
        "gatewayd_near_misses_listed": "7x40",
    },
}
"""States of a gateway that has one trouble, and shows it by several metrics."""


def test_one_cause_is_one_call(tmp_path: Path) -> None:
    tests = [
        group(
            series,
            promql_expr_test=[firing(name, CASES[name], "70m" if "x200" in str(series) else "19m", expected=True)],
        )
        for name, series in ONE_CAUSE.items()
    ]
    done = promtool(tmp_path, tests)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_gateway_fires_for_itself(tmp_path: Path) -> None:
    """And the neighbour's peace hides nothing."""
    series = {"gatewayd_near_misses_listed": "7x40", "gatewayd_armed": "1x40"} | {
        f'{name}{{job="gatewayd",instance="gw2"}}': values
        for name, values in (("gatewayd_near_misses_listed", "9x40"), ("gatewayd_armed", "0x40"))
    }
    name = "GatewaydNearMisses"
    done = promtool(tmp_path, [group(series, promql_expr_test=[firing(name, CASES[name], "16m", expected=True)])])
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_alert_fires_before_its_time(tmp_path: Path) -> None:
    tests = []
    for name, case in every_case():
        waits_s = int(parse_duration(ALERTS[name]["for"]).total_seconds())
        early = [firing(name, case, f"{max(0, waits_s - STEP_S)}s", expected=False)]
        tests.append(group(case.fires, promql_expr_test=early))
    done = promtool(tmp_path, tests)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_says_what_it_is_to_say(tmp_path: Path) -> None:
    """promtool shows the text that it made of the templates where it is not the expected one."""
    tests = []
    for name, case in every_case():
        wanted = [{"exp_labels": labels_of(name, case), "exp_annotations": {"summary": "?"}}]
        ask = [{"eval_time": case.at, "alertname": name, "exp_alerts": wanted}]
        tests.append(group(case.fires, alert_rule_test=ask))
    done = promtool(tmp_path, tests)
    said = (done.stdout + done.stderr).replace("\\", "")
    assert "error expanding" not in said
    assert "no value" not in said
    assert not [case.says for _, case in every_case() if f'summary="{case.says}"' not in said], said


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_is_of_our_metrics_and_leads_to_a_page(name: str) -> None:
    alert = ALERTS[name]
    assert not faults_of(alert["expr"])
    assert names_in(alert["expr"]) - {"up"} <= set(re.findall(r"`(\w+)`", text_of(DOC)))
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in SEVERITIES
    assert parse_duration(alert["for"]).total_seconds() <= DAY_S
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    url = alert["annotations"]["runbook_url"]
    base, _, anchor = url.partition("#")
    (documentation,) = re.findall(
        r"^Documentation=(\S+)$", text_of(ROOT / "systemd" / "gatewayd.service"), re.MULTILINE
    )
    assert base == documentation
    assert anchor in anchors_of(ROOT / "docs" / "operations.md"), url


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_is_in_the_english_of_the_house(name: str) -> None:
    for text in (ALERTS[name]["annotations"][each] for each in ("summary", "description")):
        plain = re.sub(r"\{\{.*?\}\}", "X", text)
        assert not too_long(plain)
        assert not unused_words(plain)
    assert len(ALERTS[name]["annotations"]["summary"]) < 110


def test_the_document_lists_them_all() -> None:
    """`python -m tests.support.renewed` writes the table again."""
    assert text_of(DOC) == metrics_of(text_of(DOC))
