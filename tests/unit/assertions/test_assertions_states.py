"""When an assertion is said to fail and to pass again, and the view of it."""

from __future__ import annotations

from dataclasses import replace

from gatewayd.assertions.judge import Outcome
from gatewayd.assertions.states import MAX_SHOWN, PATIENCE_S, AssertionStates, AssertionsView
from gatewayd.model.assertion import MAX_ASSERTIONS
from tests.support.asserting import assertion

ONE = assertion()
HOLDS, FAILS = Outcome(holds=True), Outcome(holds=False, reason="no element")


def states_of(*assertions: object) -> AssertionStates:
    states = AssertionStates()
    states.use([each for each in assertions if isinstance(each, type(ONE))], len(assertions))
    return states


def test_a_failure_is_said_once_and_so_is_its_end() -> None:
    states = states_of(ONE)
    assert states.note(ONE, HOLDS, 0.0, 100.0, is_expected=True) is None
    assert states.note(ONE, FAILS, 1.0, 101.0, is_expected=False) == "fails"
    assert states.note(ONE, FAILS, 2.0, 102.0, is_expected=False) is None
    assert states.failing() == ((ONE, "no element"),)
    assert states.note(ONE, HOLDS, 3.0, 103.0, is_expected=False) == "passes"
    assert states.note(ONE, HOLDS, 4.0, 104.0, is_expected=False) is None
    assert states.failing() == ()


def test_an_element_that_is_on_its_way_to_the_kernel_has_time() -> None:
    states = states_of(ONE)
    assert states.note(ONE, FAILS, 0.0, 100.0, is_expected=True) is None
    assert states.is_waiting
    assert states.note(ONE, HOLDS, 0.5, 100.5, is_expected=True) is None
    assert not states.is_waiting
    assert states.note(ONE, FAILS, 1.0, 101.0, is_expected=True) is None
    assert states.failing() == ()
    assert states.note(ONE, FAILS, 1.0 + PATIENCE_S, 103.0, is_expected=True) == "fails"
    assert not states.is_waiting


def test_what_somebody_broke_knowingly_is_no_surprise_until_it_has_passed_again() -> None:
    other = assertion("other")
    states = states_of(ONE, other)
    states.force([ONE])
    # The change is on its way to the kernel.
    states.note(ONE, HOLDS, 0.0, 100.0, is_expected=True)
    for each in (ONE, other):
        states.note(each, FAILS, 1.0, 101.0, is_expected=False)
    assert [each for each, _ in states.failing()] == [ONE, other]
    assert states.unforced() == (other,)
    states.note(ONE, HOLDS, 2.0, 102.0, is_expected=True)
    states.note(ONE, FAILS, 3.0, 103.0, is_expected=False)
    assert states.unforced() == (ONE, other)


def test_what_was_forced_is_forgotten_with_the_assertion() -> None:
    states = states_of(ONE)
    states.force([ONE])
    states.use([], 0)
    states.use([ONE], 1)
    states.note(ONE, FAILS, 1.0, 101.0, is_expected=False)
    assert states.unforced() == (ONE,)


def test_the_view_names_the_first_that_fail() -> None:
    many = [assertion(f"a-{number}") for number in range(MAX_SHOWN + 1)]
    states = states_of(*many)
    for each in many:
        states.note(each, FAILS, 0.0, 100.0, is_expected=False)
    view = states.view(160.0, AssertionsView(refused=3))
    assert (view.total, view.failing, view.refused, len(view.examples)) == (21, 21, 3, MAX_SHOWN)
    assert view.looked_at == "1970-01-01T00:02:40Z"
    first = view.examples[0]
    assert (first.name, first.reason, first.place, first.since) == (
        "a-0",
        "no element",
        "a.yaml:1",
        "1970-01-01T00:01:40Z",
    )


def test_other_files_keep_the_state_of_what_is_in_both() -> None:
    states = states_of(ONE)
    states.note(ONE, FAILS, 0.0, 100.0, is_expected=False)
    moved, other = replace(ONE, line=9), assertion("other")
    states.use([other, moved], 2)
    assert states.failing() == ((moved, "no element"),)
    states.use([other], 1)
    states.use([moved], 1)
    assert states.failing() == ()


def test_what_is_past_the_bound_or_given_twice_is_counted() -> None:
    states = AssertionStates()
    states.use([assertion(f"a-{number}") for number in range(MAX_ASSERTIONS + 1)], MAX_ASSERTIONS + 3)
    assert len(states.assertions) == MAX_ASSERTIONS
    assert states.view(None, AssertionsView()).ignored == 3
