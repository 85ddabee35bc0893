"""config/grafana: the dashboard is as declared, imports anywhere, and asks for metrics that there are.

On a real Prometheus that scraped a real daemon, each panel has data: `tests/lab/test_lab_prometheus.py`.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.support.grafana import CHOSEN, FILE, text_of_dashboard
from tests.support.metrics_table import DOC
from tests.support.panels import POLICY_CHANGES, ROWS, Panel
from tests.support.promql import OTHERS, faults_of, names_in, selectors_of
from tests.unit.test_docs import text_of
from tests.unit.test_sentences import too_long, unused_words

PANELS = [panel for panels in ROWS.values() for panel in panels]
each_panel = pytest.mark.parametrize("panel", PANELS, ids=[panel.title for panel in PANELS])

NAMED_UNITS = {word for name, word in vars(units).items() if not name.startswith("_") and isinstance(word, str)}


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(FILE.read_text())
    return read


def plain(expr: str) -> str:
    """With what Grafana puts in place of its variables."""
    return re.sub(r"\$__\w*interval", "1m", expr.replace("$T", 'job=~".*",instance=~".*"'))


def queries() -> list[tuple[str, str]]:
    return [query for panel in PANELS for query in panel.queries]


def test_the_file_is_as_the_panels_are_declared() -> None:
    """`python -m tests.support.grafana` writes it again."""
    assert FILE.read_text() == text_of_dashboard()


def test_it_can_be_imported_and_names_no_data_source() -> None:
    read = dashboard()
    assert (read["uid"], read["title"]) == ("gatewayd", "gatewayd")
    assert 36 <= read["schemaVersion"] <= 39
    assert "id" not in read
    variables = {each["name"]: each for each in read["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    sources = re.findall(r'"uid": "([^"]*)"', FILE.read_text())
    assert set(sources) == {"gatewayd", "${datasource}"}
    assert sources.count("gatewayd") == 1


def test_grafanas_own_reader_takes_it_whole() -> None:
    """A key that it does not know would be lost on the way."""
    again = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(dashboard())))
    assert again == dashboard()


def test_the_panels_stand_beside_each_other_and_have_names_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    assert len({panel.title for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for each in panels:
        at = each["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        taken |= cells


@each_panel
def test_each_panel_says_its_unit_and_what_it_shows(panel: Panel) -> None:
    assert panel.unit in NAMED_UNITS or panel.unit.startswith("suffix:")
    assert panel.description.endswith(".")
    assert not too_long(panel.description)
    assert not unused_words(panel.description)


@each_panel
def test_each_expression_asks_for_metrics_that_there_are(panel: Panel) -> None:
    described = set(re.findall(r"`(\w+)`", text_of(DOC))) | OTHERS.keys()
    for expr, legend in panel.queries:
        assert not faults_of(plain(expr), legend), expr
        assert names_in(plain(expr)) <= described


def test_each_selector_is_of_the_chosen_gateways() -> None:
    for expr in [*(expr for expr, _ in queries()), POLICY_CHANGES]:
        assert len(selectors_of(plain(expr))) == expr.count("$T"), expr
    shown = re.findall(r'"expr": (".*")', FILE.read_text())
    assert len(shown) == len(queries()) + 1
    assert all(CHOSEN in json.loads(each) for each in shown)


def test_the_change_of_policy_is_a_line() -> None:
    assert not faults_of(plain(POLICY_CHANGES))


@pytest.mark.parametrize(
    ("expr", "fault"),
    [
        ("rate(gatewayd_ready[5m])", "rate() of gatewayd_ready"),
        ("deriv(gatewayd_kernel_repairs_total[5m])", "deriv() of gatewayd_kernel_repairs_total"),
        ("gatewayd_kernel_repairs_total", "gatewayd_kernel_repairs_total without rate() or increase()"),
        ("gatewayd_no_such", "gatewayd_no_such is not served"),
        ("sum by (customer) (gatewayd_ready)", "no metric here has the label customer"),
        ('gatewayd_source_up{file="a"}', "gatewayd_source_up has no label file"),
        (
            'increase(gatewayd_radius_requests_total{kind=~"event|evnt"}[5m])',
            "gatewayd_radius_requests_total has no kind evnt",
        ),
        ("sum(", "does not parse: unclosed left parenthesis"),
    ],
)
def test_a_wrong_expression_is_seen(expr: str, fault: str) -> None:
    assert faults_of(expr) == [fault]


def test_a_wrong_legend_is_seen() -> None:
    assert faults_of("gatewayd_ready", "{{instance}} {{source}}") == ["no metric here has the label source"]
