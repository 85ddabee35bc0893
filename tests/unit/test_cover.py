"""The gate of `./run cover`: which tests are a module's own, and when it is shut."""

from __future__ import annotations

import pytest

from tests.cover import LIST, Measured, encode_list, is_better, judge, own_tests, read_list
from tests.unit.test_imports import MODULES, PURE


def names(module: str) -> list[str]:
    return [path.name for path in own_tests(module)]


def test_a_modules_own_tests_have_its_name_perhaps_with_a_word_more() -> None:
    assert "test_registry_guard.py" in names("registry.guard")
    assert "test_radius_packet.py" in names("subscribers.radius.packet")


def test_tests_of_a_module_with_a_longer_name_are_not_its_own() -> None:
    assert any(module.startswith("kernel.tables_") for module in MODULES)
    assert all("codec" not in name for name in names("kernel.tables"))


@pytest.mark.parametrize("module", sorted(PURE.split()))
def test_no_test_file_is_of_two_modules(module: str) -> None:
    others = (each for each in MODULES if each != module and each.rpartition(".")[0] == module.rpartition(".")[0])
    assert not {path for each in others for path in own_tests(each)} & set(own_tests(module))


@pytest.mark.parametrize(
    ("percent", "exceptions", "is_open"),
    [
        (100, {}, True),
        (99, {}, False),
        (60, {"a.b": 60}, True),
        (59, {"a.b": 60}, True),
        (58, {"a.b": 60}, False),
        (62, {"a.b": 60}, True),
        (100, {"a.b": 99}, True),
    ],
    ids=[
        "whole",
        "not whole",
        "as listed",
        "a branch less",
        "less than listed",
        "more than listed",
        "whole by now",
    ],
)
def test_the_gate_is_shut_below_what_is_listed_alone(
    percent: int, exceptions: dict[str, int], is_open: bool
) -> None:
    assert (judge(Measured("a.b", percent), exceptions) is None) is is_open


def test_a_module_that_became_better_is_named() -> None:
    assert is_better(Measured("a.b", 100), {"a.b": 99})
    assert not is_better(Measured("a.b", 99), {"a.b": 99})
    assert not is_better(Measured("a.b", 100), {})


def test_tests_that_fail_shut_the_gate() -> None:
    reason = judge(Measured("a.b", 0, "E   assert 1 == 2", failed=True), {"a.b": 0})
    assert reason is not None
    assert "assert 1 == 2" in reason


def test_the_list_is_read_as_it_is_written() -> None:
    assert read_list(encode_list({"b": 7, "a.c": 99})) == {"a.c": 99, "b": 7}


def test_what_is_listed_is_a_pure_module_and_not_whole() -> None:
    listed = read_list(LIST.read_text())
    assert set(listed) <= set(PURE.split())
    assert all(percent < 100 for percent in listed.values())
