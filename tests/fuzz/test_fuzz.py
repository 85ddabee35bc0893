"""A round of each target, the same on every run. How many inputs it was stands at the end of the report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random

import pytest

from tests.fuzz.campaign import shortened
from tests.fuzz.coverage import ArcRecorder
from tests.fuzz.minimal import minimal
from tests.fuzz.mutating import Mutator
from tests.fuzz.target import NAME, NUMBER, Target, bounded_memory
from tests.fuzz.targets import TARGETS
from tests.support.fake_queries import FakeQueries

ROUND = 2500
"""Inputs of a target of cost 1: a quarter of a second."""


def executions_of(target: Target) -> int:
    return max(20, round(ROUND / max(1.0, target.cost)))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_nothing_but_declared_errors_comes_out(
    target: Target, record_property: Callable[[str, object], None]
) -> None:
    corpus = target.corpus()
    mutator = Mutator(random := Random(15), corpus, target.words)
    some = [*corpus, *(mutator.mutate(random.choice(corpus)) for _ in range(executions_of(target)))]
    with bounded_memory():
        findings = {found.why: found.raw for raw in some if (found := target.execute(raw)) is not None}
    assert findings == {}
    record_property("fuzz inputs", len(some))


class _Fragile:
    """Breaks each rule, by its first byte."""

    def __call__(self, raw: bytes) -> None:
        match raw[:1]:
            case b"k":
                raise KeyError("x")
            case b"r":
                raise ValueError("a\x1b[2J")
            case b"i":
                raise ValueError(f"what is +{NUMBER}?")
            case b"n":
                raise ValueError(f"{NAME} is no prefix")
            case b"l":
                raise ValueError("x" * 10_000)
            case b"m":
                raise MemoryError
            case b"a":
                raise AssertionError("it holds something")
            case b"v":
                raise ValueError("declared")


FRAGILE = Target("fragile", _Fragile(), (ValueError,), lambda: [b"v"], (b"k", b"r"))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"k", "KeyError"),
        (b"r", "raw bytes in a message"),
        (b"i", "identity in a message"),
        (b"n", "identity in a message"),
        (b"l", "a message without a bound"),
        (b"m", "more memory"),
        (b"a", "it holds something"),
    ],
)
def test_each_rule_that_is_broken_is_found_and_made_small(raw: bytes, why: str) -> None:
    found = FRAGILE.execute(raw + b" and more of it")
    assert found is not None
    assert why in found.why
    assert shortened(FRAGILE, found.raw, found.why) == raw
    assert FRAGILE.execute(b"v") is FRAGILE.execute(b"") is None


def test_mutations_are_the_same_for_the_same_seed_and_reach_what_is_near() -> None:
    def made() -> list[bytes]:
        mutator = Mutator(Random(1), [b"v", b"other"], FRAGILE.words)
        return [mutator.mutate(b"v") for _ in range(2000)]

    some = made()
    assert some == made()
    assert {found.why for raw in some if (found := FRAGILE.execute(raw)) is not None} >= {"raw bytes in a message"}


def test_an_input_that_reaches_something_new_is_told_from_one_that_does_not() -> None:
    recorder, target = ArcRecorder(), TARGETS["files.prefix"]
    assert recorder.record(lambda: target.execute(b"203.0.113.0/28")) > 0
    assert recorder.record(lambda: target.execute(b"203.0.113.0/28")) == 0
    assert recorder.record(lambda: target.execute(b"2001:db8::/48")) > 0


def test_of_inputs_that_reach_the_same_the_shortest_is_kept() -> None:
    prefix = TARGETS["files.prefix"]
    target = Target("without a corpus", prefix.run, prefix.errors, lambda: [b"203.0.113.0/28"])
    some = [b"203.0.113.16/28", b"203.0.113.100/28", b"2001:db8:5::/48", b"2001:db8::/48", b"203.0.113.1/28"]
    assert minimal(target, some) == [b"2001:db8::/48", b"203.0.113.1/28"]


ASKED = b"\0GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def test_lines_of_the_server_are_recorded_as_those_of_any_reader() -> None:
    recorder, target = ArcRecorder(), TARGETS["http.server"]
    recorder.record(lambda: target.execute(ASKED.replace(b"/v1/status", b"/healthz")))
    assert recorder.record(lambda: target.execute(ASKED)) > 0
    assert recorder.record(lambda: target.execute(ASKED.replace(b"/v1/status", b"/v1/flows?limit=5"))) > 0


def test_an_error_within_the_server_is_a_finding_in_a_silent_campaign_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: FakeQueries) -> None:
        raise RuntimeError("planted")

    target = TARGETS["http.server"]
    assert target.execute(ASKED) is None
    monkeypatch.setattr(FakeQueries, "status", fail)
    monkeypatch.setattr(logging.getLogger(), "level", logging.CRITICAL + 1)
    found = target.execute(ASKED)
    assert found is not None
    assert "internal error" in found.why
