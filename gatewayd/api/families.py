"""Families of metrics from numbers: a gauge or a counter, alone or by a label. Names begin with `gatewayd_`."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


def gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(f"gatewayd_{name}", help, value=value)


def counter(name: str, help: str, value: float) -> Metric:
    return CounterMetricFamily(f"gatewayd_{name}", help, value=value)


def gauges(name: str, help: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"gatewayd_{name}", help, labels=[label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family


def counters(name: str, help: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"gatewayd_{name}", help, labels=[label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family
