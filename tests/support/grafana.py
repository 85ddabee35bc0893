"""config/grafana/gatewayd.json, the dashboard. `python -m tests.support.grafana` writes it again; tests compare it.

`tests.support.panels` has its rows of panels; grafana-foundation-sdk, Grafana's own, makes the JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as words
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import units

from tests.support.panels import POLICY_CHANGES, ROWS, Kind, Panel
from tests.support.renewed import ROOT

FILE = ROOT / "config" / "grafana" / "gatewayd.json"
SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
CHOSEN: Final = 'job=~"$job",instance=~"$instance"'

# -- building ------------------------------------------------------------------------------------------------------

Built = stat.Panel | timeseries.Panel | statetimeline.Panel


def query(expr: str, legend: str, number: int, kind: Kind) -> prometheus.Dataquery:
    """As it is now where a number is shown: the mode of an hour ago is none."""
    made = prometheus.Dataquery().datasource(SOURCE).expr(expr.replace("$T", CHOSEN)).ref_id(chr(ord("A") + number))
    made.legend_format(f"{{{{instance}}}} {legend}".strip())
    return made.instant() if kind in ("stat", "word") else made.range()


def red_from(level: float) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(value=None, color="green"), model.Threshold(value=level, color="red")]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def yes_and_no() -> model.ValueMap:
    """The word stands beside the colour, for those who do not see colours."""
    no, yes = ("no", "red"), ("yes", "green")
    options = {
        str(number): model.ValueMappingResult(text=text, color=color, index=number)
        for number, (text, color) in enumerate((no, yes))
    }
    return model.ValueMap(options=options)


def stat_of(panel: Panel) -> stat.Panel:
    made = stat.Panel().height(4).span(3).graph_mode(words.BigValueGraphMode.NONE)
    made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    made.color_mode(words.BigValueColorMode.BACKGROUND)
    if panel.kind == "word":
        return made.text_mode(words.BigValueTextMode.NAME)
    return made.text_mode(words.BigValueTextMode.VALUE_AND_NAME)


def plot_of(panel: Panel) -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True).placement(words.LegendPlacement.BOTTOM)
    legend.display_mode(words.LegendDisplayMode.LIST)
    made = (
        timeseries.Panel().height(8).span(8).legend(legend).fill_opacity(10).show_points(words.VisibilityMode.NEVER)
    )
    made.tooltip(common.VizTooltipOptions().mode(words.TooltipDisplayMode.MULTI))
    return made.min(0.0)


def states_of(panel: Panel) -> statetimeline.Panel:
    return statetimeline.Panel().height(8).span(8).show_value(words.VisibilityMode.NEVER)


KINDS: dict[Kind, Callable[[Panel], Built]] = {
    "stat": stat_of,
    "word": stat_of,
    "plot": plot_of,
    "states": states_of,
}


def panel_of(panel: Panel, id: int) -> Built:
    made = KINDS[panel.kind](panel)
    made.title(panel.title).description(panel.description).unit(panel.unit).datasource(SOURCE).id(id)
    if panel.unit == units.BoolYesNo:
        made.mappings([yes_and_no()])
    if panel.bad_from is not None:
        made.thresholds(red_from(panel.bad_from))
    for number, (expr, legend) in enumerate(panel.queries):
        made.with_target(query(expr, legend, number, panel.kind))
    return made


def chosen(name: str, label: str, of: str) -> dashboard.QueryVariable:
    """All at first."""
    made = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(f"label_values({of}, {name})")
    made.multi(True).include_all(True).all_value(".*").refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
    return made.current(model.VariableOption(text="All", value="$__all")).sort(model.VariableSort.ALPHABETICAL_ASC)


def dashboard_of() -> dashboard.Dashboard:
    made = dashboard.Dashboard("gatewayd").uid("gatewayd").tags(["gatewayd", "vpn"]).refresh("30s")
    made.description("Gateways that keep registered VPN traffic passing. No series has a customer or an address.")
    made.time("now-6h", "now").timezone("browser").tooltip(model.DashboardCursorSync.CROSSHAIR).editable()
    made.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    made.with_variable(chosen("job", "Job", "gatewayd_build_info"))
    made.with_variable(chosen("instance", "Gateway", 'gatewayd_build_info{job=~"$job"}'))
    made.annotation(
        dashboard.AnnotationQuery()
        .name("Policy")
        .datasource(SOURCE)
        .enable(True)
        .icon_color("purple")
        .expr(POLICY_CHANGES.replace("$T", CHOSEN))
    )
    id = 0
    for title, panels in ROWS.items():
        made.with_row(dashboard.Row(title).id(id := id + 1))
        for panel in panels:
            made.with_panel(panel_of(panel, id := id + 1))
    return made


def text_of_dashboard() -> str:
    return JSONEncoder(sort_keys=True, indent=1).encode(dashboard_of().build()) + "\n"


if __name__ == "__main__":
    FILE.write_text(text_of_dashboard())
