"""A view → the page of a Prometheus scrape. The views declare the numbers (`model.metric`); this reads them.

All is made from the view at the moment of the scrape: no metric has a life of its own. `docs/metrics.md` follows
from the same declarations; a test holds it to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass, replace
from functools import cache
from typing import Any, Final, NamedTuple, get_args, get_type_hints

import msgspec
from prometheus_client import CollectorRegistry, generate_latest, openmetrics
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from gatewayd.model.metric import THE_FIELD, Each, Metric

TEXT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Labels = tuple[tuple[str, str], ...]
"""Names and words."""


def choose_type(accept: str) -> str:
    """The content type for a scraper's Accept header: OpenMetrics where it is wanted, else plain text."""
    wanted = (part.partition(";")[0].strip() for part in accept.split(","))
    return OPENMETRICS_TYPE if "application/openmetrics-text" in wanted else TEXT_TYPE


def render_metrics(view: object, content_type: str = TEXT_TYPE, process: Collector | None = None) -> bytes:
    """The page of one scrape. `process`: a collector of the operating system's numbers of this process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ViewCollector(view))
    if process is not None:
        registry.register(process)
    if content_type == OPENMETRICS_TYPE:
        page: bytes = openmetrics.exposition.generate_latest(registry)  # type: ignore[no-untyped-call]
        return page
    return generate_latest(registry)


class _ViewCollector(Collector):
    def __init__(self, view: object) -> None:
        self._view = view

    def describe(self) -> Iterable[Family]:
        """Nothing: the registry need not look for names given twice, a test does."""
        return ()

    def collect(self) -> Iterator[Family]:
        families: dict[str, Family] = {}
        for metric, labels, value in samples_of(self._view):
            family = families.get(metric.name)
            if family is None:
                family = families[metric.name] = _family(metric, [name for name, _ in labels])
            family.add_metric([word for _, word in labels], *value)  # type: ignore[attr-defined]
        yield from families.values()


def _family(metric: Metric, labels: list[str]) -> Family:
    made: type[Any] = {
        "gauge": GaugeMetricFamily,
        "counter": CounterMetricFamily,
        "summary": SummaryMetricFamily,
        "histogram": HistogramMetricFamily,
    }[metric.kind]
    family: Family = made(f"gatewayd_{metric.name}", metric.help, labels=labels)
    return family


# -- declarations --------------------------------------------------------------------------------------------------


class Declared(NamedTuple):
    """A field of a view: its metrics; or else its parts may have some, and `each` gives them a label."""

    field: str
    metrics: tuple[Metric, ...]
    parts: tuple[type, ...]
    each: Each | None


@cache
def declared_in(view: type[Any]) -> tuple[Declared, ...]:
    """The fields of a dataclass or Struct that have metrics, or parts that may have some; in their order."""
    found = []
    for name, hint in get_type_hints(view, include_extras=True).items():
        beside = getattr(hint, "__metadata__", ())
        metrics = tuple(
            replace(each, word=name) if each.word == THE_FIELD else each
            for each in beside
            if isinstance(each, Metric)
        )
        parts = () if metrics else tuple(each for each in _types_in(hint) if _has_fields(each))
        if metrics or parts:
            each = next((each for each in beside if isinstance(each, Each)), None)
            found.append(Declared(name, metrics, parts, each))
    return tuple(found)


def samples_of(view: Any, labels: Labels = ()) -> Iterator[tuple[Metric, Labels, tuple[Any, ...]]]:
    """Each with its labels and its value, as the families of the client take it; absent ones are left out."""
    kind: Any = type(view)
    for field, metrics, _, each in declared_in(kind):
        value = getattr(view, field)
        for metric in metrics:
            yield from _samples(metric, view, metric.read(value), labels)
        if metrics or value is None:
            continue
        for part in value if isinstance(value, tuple) else (value,):
            yield from samples_of(
                part, labels if each is None else (*labels, (each.label, getattr(part, each.key)))
            )


def _samples(
    metric: Metric, view: object, value: Any, labels: Labels
) -> Iterator[tuple[Metric, Labels, tuple[Any, ...]]]:
    if metric.word:
        labels = (*labels, (metric.label, metric.word))
    if isinstance(value, Mapping):
        for word, inner in sorted(value.items()):
            yield metric, (*labels, (metric.label, word)), (inner,)
    elif metric.kind == "summary":
        yield metric, labels, (getattr(view, metric.times), value)
    elif value is not None:
        yield metric, labels, value if metric.kind == "histogram" else (value,)


def _has_fields(hint: Any) -> bool:
    return is_dataclass(hint) or (isinstance(hint, type) and issubclass(hint, msgspec.Struct))


def _types_in(hint: Any) -> Iterator[type]:
    """The types that a value may be of, or be a tuple of."""
    inner = get_args(hint)
    if not inner:
        yield hint
    for each in inner:
        yield from _types_in(each)
