from __future__ import annotations

import msgspec
import pytest

from gatewayd.api.metrics import samples_of
from gatewayd.api.status import MAX_CATEGORIES, CounterView, StatusView, counter_views, fold_categories
from gatewayd.model.transaction import CounterReading
from tests.support.fake_queries import DEAF, GUARDED, PEACE, SUBSCRIBED, TROUBLE


def test_counters_are_sorted_by_name() -> None:
    readings = {"b_packets": CounterReading(1, 2), "a_packets": CounterReading(3, 4)}
    assert list(counter_views(readings).items()) == [
        ("a_packets", CounterView(3, 4)),
        ("b_packets", CounterView(1, 2)),
    ]


def test_a_status_of_an_older_daemon_is_read_as_in_peace() -> None:
    old = msgspec.json.decode(msgspec.json.encode(PEACE))
    del old["overrides"], old["subscribers"]
    for name in ("signed", "session", "serial", "issued_at", "freshness", "not_fresh_since", "held", "kept"):
        del old["sources"][0][name]
    assert msgspec.convert(old, StatusView) == PEACE


@pytest.mark.parametrize("view", [PEACE, TROUBLE, GUARDED, SUBSCRIBED, DEAF])
def test_a_status_survives_json(view: object) -> None:
    assert msgspec.json.decode(msgspec.json.encode(view), type=type(view)) == view


def numbers(view: StatusView, name: str) -> list[float]:
    return [value for metric, _, (value, *_) in samples_of(view) if metric.name == name]


def test_numbers_that_are_no_fields_of_their_own_are_read_from_those_that_are() -> None:
    assert numbers(PEACE, "build_info") == [1]
    assert numbers(GUARDED, "source_held_removals") == [1204, 1, 0, 0]
    assert numbers(PEACE, "packets") == [2_500_000, 17]
    assert numbers(PEACE, "bytes") == [3 * 1024**3, 1020]
    assert numbers(PEACE, "flows") == [1200]


def test_the_smallest_of_too_many_categories_are_counted_together() -> None:
    few = {"embassy": 1, "bank": 7}
    assert fold_categories(few) == few
    many = {f"c{number:04}": number + 1 for number in range(MAX_CATEGORIES)} | {"x": 1, "other": 9999}
    folded = fold_categories(many)
    assert len(folded) == MAX_CATEGORIES
    assert "x" not in folded
    assert folded["other"] == 9999 + 1 + 1
    assert sum(folded.values()) == sum(many.values())
