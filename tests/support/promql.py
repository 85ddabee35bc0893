"""Expressions of PromQL, held against the metrics that gatewayd declares: wrong names, labels and kinds."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import promql_parser as promql

from gatewayd.compile.ruleset import COUNTERS
from tests.support.metrics_table import SECTIONS, names_of, rows_of

OF_THE_TARGET = frozenset({"job", "instance"})
"""Labels that Prometheus adds."""
OF_COUNTERS = frozenset({"rate", "irate", "increase", "changes", "resets"})
OF_GAUGES = frozenset({"delta", "idelta", "deriv", "predict_linear", "changes"}) | {
    f"{each}_over_time" for each in ("avg", "min", "max", "sum", "count", "last")
}


@dataclass(slots=True)
class Served:
    """A time series of `/metrics`, by its name there. `words`: of each label whose words are declared."""

    is_counter: bool
    labels: set[str] = field(default_factory=set)
    words: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


OTHERS = {
    "up": Served(is_counter=False),
    "process_resident_memory_bytes": Served(is_counter=False),
    "process_cpu_seconds_total": Served(is_counter=True),
}
"""Of Prometheus itself, and of its client beside ours."""


@cache
def served() -> dict[str, Served]:
    """All that is declared, and so in docs/metrics.md."""
    found = dict(OTHERS)
    for section in SECTIONS:
        for metric, labels in rows_of(section):
            for name in names_of(metric):
                one = found.setdefault(name, Served(metric.kind != "gauge"))
                one.labels |= {
                    *labels,
                    *filter(None, [metric.label]),
                    *(["le"] if name.endswith("_bucket") else []),
                }
                if metric.word:
                    one.words[metric.label].add(metric.word)
    for kind, names in {"flows": ["flows"], "packets": ["packets", "bytes"]}.items():
        classes = {each.removesuffix(f"_{kind}") for each in COUNTERS if each.endswith(f"_{kind}")}
        for name in names:
            found[f"gatewayd_{name}_total"].words["class"] = classes
    return found


def nodes_of(expr: str) -> list[promql.Expr]:
    """All of its syntax tree. Raises ValueError."""
    found: list[promql.Expr] = []
    promql.walk(promql.parse(expr), lambda node: found.append(node))
    return found


def selectors_of(expr: str) -> list[promql.VectorSelector]:
    """Those in a range too."""
    return [node for node in nodes_of(expr) if isinstance(node, promql.VectorSelector)]


def names_in(expr: str) -> set[str]:
    return {str(each.name) for each in selectors_of(expr)}


def faults_of(expr: str, legend: str = "") -> list[str]:
    """Each as a sentence. `legend`: what Grafana shows of a series, `{{source}}`."""
    try:
        selectors = selectors_of(expr)
    except ValueError as error:
        return [f"does not parse: {error}"]
    faults = [fault for each in selectors for fault in _faults_of_selector(each)]
    if faults:
        return faults
    labels = OF_THE_TARGET.union(*(served()[str(each.name)].labels for each in selectors))
    named = {*re.findall(r"\{\{\s*(\w+)\s*\}\}", legend), *_groupings(expr)}
    faults += [f"no metric here has the label {each}" for each in sorted(named - labels)]
    return faults + list(_faults_of_kinds(expr))


def _faults_of_selector(selector: promql.VectorSelector) -> Iterator[str]:
    one = served().get(str(selector.name))
    if one is None:
        yield f"{selector.name} is not served"
        return
    for matcher in selector.matchers.matchers:
        if matcher.name in OF_THE_TARGET:
            continue
        if matcher.name not in one.labels:
            yield f"{selector.name} has no label {matcher.name}"
        elif words := one.words.get(matcher.name):
            wanted = set(matcher.value.split("|")) if "Re" in str(matcher.op) else {matcher.value}
            yield from (f"{selector.name} has no {matcher.name} {each}" for each in sorted(wanted - words))


def _groupings(expr: str) -> set[str]:
    named: set[str] = set()
    for node in nodes_of(expr):
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            named |= set(node.modifier.labels)
        elif isinstance(node, promql.BinaryExpr) and node.modifier is not None:
            matching = node.modifier.matching
            named |= set(matching.labels if matching is not None else ()) | set(node.modifier.group_labels or ())
    return named


def _faults_of_kinds(expr: str) -> Iterator[str]:
    """rate() of a gauge is noise; a counter as it stands says only how old the process is."""
    in_ranges: list[str] = []
    for node in nodes_of(expr):
        if not isinstance(node, promql.Call):
            continue
        for argument in node.args:
            if isinstance(argument, promql.MatrixSelector):
                name = str(argument.vector_selector.name)
                in_ranges.append(name)
                if node.func.name not in (OF_COUNTERS if served()[name].is_counter else OF_GAUGES):
                    yield f"{node.func.name}() of {name}"
    bare = [str(each.name) for each in selectors_of(expr)]
    for name in in_ranges:
        bare.remove(name)
    yield from (f"{name} without rate() or increase()" for name in bare if served()[name].is_counter)
