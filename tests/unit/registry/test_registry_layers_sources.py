from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.model import Registration, parse_prefix
from gatewayd.model import registration as changes_module
from gatewayd.model.registration import Changes, changes_in_slices, run_slices
from gatewayd.registry import layers
from gatewayd.registry.layers import SourceSet
from tests.support.changes import construct_changes

PREFIXES = [parse_prefix(f"203.0.113.{n}") for n in range(4)]


def registration(id: str, client: int = 0) -> Registration:
    return Registration(id, "bank", "active", (PREFIXES[client],))


def registry(**clients: int) -> dict[str, Registration]:
    return {id: registration(id, client) for id, client in clients.items()}


registries = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3)).map(lambda d: registry(**d))


@pytest.fixture(autouse=True)
def _slices_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MERGE_SLICE", 2)
    monkeypatch.setattr(changes_module, "SLICE", 2)


def test_one_source_is_the_registry_itself() -> None:
    sources = SourceSet(["national", "lab"])
    reading = registry(a=0)
    sources.put("lab", reading)
    assert run_slices(sources.merge_in_slices()).registrations is reading
    sources.put("national", {})
    assert run_slices(sources.merge_in_slices()).registrations is reading


def test_no_source_is_an_empty_registry() -> None:
    assert run_slices(SourceSet([]).merge_in_slices()).registrations == {}


def test_the_earlier_source_wins_and_only_other_content_is_a_conflict() -> None:
    sources = SourceSet(["national", "lab", "local"])
    sources.put("lab", registry(a=1, b=1, c=1))
    sources.put("national", registry(a=0, b=1))
    sources.put("local", registry(c=2, d=3))
    merged = run_slices(sources.merge_in_slices())
    assert merged.registrations == registry(a=0, b=1, c=1, d=3)
    assert list(merged.registrations) == ["a", "b", "c", "d"]
    assert len(merged.registrations) == 4
    assert merged.conflicts == {"lab": 1, "local": 1}
    assert "e" not in merged.registrations
    with pytest.raises(KeyError):
        merged.registrations["e"]


def test_sources_that_were_never_read_are_known() -> None:
    sources = SourceSet(["national", "lab"])
    assert sources.unread() == ("national", "lab")
    sources.put("lab", {})
    assert sources.unread() == ("national",)
    assert sources.reading_of("national") is None
    assert sources.reading_of("lab") == {}


def test_a_source_that_is_not_configured_is_refused() -> None:
    with pytest.raises(KeyError):
        SourceSet(["national"]).put("lab", {})


def test_a_put_during_a_merge_does_not_show_in_it() -> None:
    sources = SourceSet(["national", "lab"])
    sources.put("national", registry(a=0))
    sources.put("lab", registry(a=1, b=1, c=1))
    slices = sources.merge_in_slices()
    next(slices)
    sources.put("lab", {})
    assert run_slices(slices).registrations == registry(a=0, b=1, c=1)


def test_equal_registries_have_no_changes() -> None:
    one = registry(a=0, b=1)
    assert construct_changes(one, one) is None
    assert construct_changes(one, registry(b=1, a=0)) is None
    assert construct_changes({}, {}) is None


def test_changes_are_what_is_new_or_different_and_the_ids_that_are_gone() -> None:
    changes = construct_changes(registry(a=0, b=1, c=2), registry(b=1, c=3, d=0))
    assert changes == Changes((registration("c", 3), registration("d")), ("a",))


def test_long_work_yields_between_slices() -> None:
    old, new = registry(a=0, b=0, c=0, d=0), registry(e=0, f=0)
    slices = changes_in_slices(old, new)
    assert len(list(slices)) == 3


@given(registries, registries)
def test_changes_applied_to_the_old_registry_give_the_new_one(
    old: dict[str, Registration], new: dict[str, Registration]
) -> None:
    changes = construct_changes(old, new)
    assert (changes is None) == (old == new)
    if changes is not None:
        assert set(changes.withdrawals) == set(old) - set(new)
        assert {r.id for r in changes.upserts} == {id for id in new if old.get(id) != new[id]}


@given(st.lists(registries, max_size=4))
def test_merging_is_a_dictionary_filled_from_the_last_source_to_the_first(
    readings: list[dict[str, Registration]],
) -> None:
    names = [str(index) for index in range(len(readings))]
    sources = SourceSet(names)
    expected: dict[str, Registration] = {}
    for name, reading in reversed(list(zip(names, readings, strict=True))):
        sources.put(name, reading)
        expected.update(reading)
    merged = run_slices(sources.merge_in_slices()).registrations
    assert merged == expected
    assert len(merged) == len(list(merged)) == len(expected)


def test_a_view_and_a_source_that_nobody_has() -> None:
    sources = SourceSet(["national", "lab"])
    with pytest.raises(KeyError):
        sources.put("other", {})
    sources.put("lab", registry(a=1, b=1))
    assert sources.unread() == ("national",)
    assert sources.winner("a") == registration("a", 1)
    assert sources.view(2) == registry(a=1, b=1)
    sources.put("national", registry(a=0))
    assert sources.unread() == ()
    assert sources.winner("a") == registration("a", 0)
    assert sources.winner("c") is None
    assert dict(sources.view(2)) == registry(a=0, b=1)
    assert sources.reading_of("national") == registry(a=0)


def test_the_sources_that_have_an_id_are_named_in_order() -> None:
    sources = SourceSet(["national", "lab", "unread"])
    sources.put("lab", registry(a=1, b=1))
    sources.put("national", registry(a=0))
    assert [sources.having(id) for id in ("a", "b", "z")] == [("national", "lab"), ("lab",), ()]
