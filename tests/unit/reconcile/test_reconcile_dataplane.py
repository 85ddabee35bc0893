"""Which generations of the kernel's ruleset are accounted for."""

from __future__ import annotations

import pytest

from gatewayd.model.transaction import ObservedSet, RulesTag, TableReading
from gatewayd.reconcile.dataplane import Found, Generations, found_in


@pytest.fixture
def generations() -> Generations:
    made = Generations()
    made.read(10)
    return made


def test_nothing_happened(generations: Generations) -> None:
    assert generations.explain(10)


def test_what_we_did_and_what_others_are_known_to_have_done_is_accounted_for(generations: Generations) -> None:
    generations.committed(surely=True)
    generations.reported(12)
    assert generations.explain(12)
    assert generations.unreported == 0


@pytest.mark.parametrize(("generation", "explained"), [(10, True), (11, True), (12, False)])
def test_a_transaction_that_may_have_changed_nothing(
    generations: Generations, generation: int, explained: bool
) -> None:
    generations.committed(surely=False)
    assert generations.explain(generation) is explained
    assert generations.explain(generation)


def test_a_commit_that_nobody_told_us_of_is_not_accounted_for_once(generations: Generations) -> None:
    generations.committed(surely=True)
    assert not generations.explain(13)
    assert generations.unreported == 2
    assert generations.explain(13)
    assert generations.unreported == 0


def test_the_news_may_come_after_the_generation(generations: Generations) -> None:
    assert not generations.explain(12)
    for generation in (11, 12):
        generations.reported(generation)
    assert generations.unreported == 0
    assert generations.explain(12)


def test_news_from_before_a_reading_is_no_news(generations: Generations) -> None:
    generations.reported(9)
    generations.reported(10)
    assert generations.explain(10)
    assert not generations.explain(11)


def test_fewer_than_we_know_of_is_not_accounted_for_either(generations: Generations) -> None:
    generations.committed(surely=True)
    assert not generations.explain(10)
    assert generations.unreported == 0


TAG = RulesTag(3, "policy", "digest", "reject")


@pytest.mark.parametrize(
    ("reading", "found"),
    [
        (TableReading(False), None),
        (TableReading(True), Found(None, 0, 0)),
        (TableReading(True, (ObservedSet("c4_32", 4, 8, True, 3), ObservedSet("b4_32", 4, 0, True, 4))),
         Found(None, 2, 7)),
        (TableReading(True, (ObservedSet("c4_32", 4, 8, True, 3), ObservedSet("noted4", 4, 8, False, 9)), "", TAG),
         Found("reject", 1, 3)),
        (TableReading(True, (ObservedSet("c4_32", 4, 8, True), ObservedSet("c4_24", 4, 0, True, 4)), "", TAG),
         Found("reject", 2, None)),
    ],
)  # fmt: skip
def test_what_a_start_finds_is_counted(reading: TableReading, found: Found | None) -> None:
    assert found_in(reading) == found
