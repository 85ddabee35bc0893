from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.subscribers.radius.packet import (
    KEEP_S,
    PENDING,
    PENDING_S,
    REPLAY_S,
    Replays,
    Responses,
    open_request,
)
from tests.support.radius import SECRET, accounting_request, integer

BEFORE = 0.001


def test_what_is_new_is_pending_from_then_on() -> None:
    responses = Responses()
    assert responses.admit(b"a", 0.0) is None
    assert responses.admit(b"a", 0.0) is PENDING
    assert responses.admit(b"b", 0.0) is None


def test_a_repeat_gets_the_same_bytes_for_their_time() -> None:
    responses = Responses()
    responses.admit(b"a", 0.0)
    responses.keep(b"a", b"answer", 1.0)
    assert responses.admit(b"a", 1.0 + KEEP_S - BEFORE) == b"answer"
    assert responses.admit(b"a", 1.0 + KEEP_S) is None
    assert responses.admit(b"a", 1.0 + KEEP_S) is PENDING


def test_a_repeat_does_not_make_an_answer_live_longer() -> None:
    responses = Responses()
    responses.keep(b"a", b"answer", 0.0)
    for now in (10.0, 20.0, KEEP_S - BEFORE):
        assert responses.admit(b"a", now) == b"answer"
    assert responses.admit(b"a", KEEP_S) is None


def test_what_nobody_answered_is_given_up_and_taken_as_new() -> None:
    responses = Responses()
    responses.admit(b"a", 0.0)
    assert responses.admit(b"a", PENDING_S - BEFORE) is PENDING
    assert responses.admit(b"a", PENDING_S) is None
    assert responses.admit(b"a", 2 * PENDING_S - BEFORE) is PENDING


def test_an_answer_that_comes_after_it_was_given_up_counts() -> None:
    responses = Responses()
    responses.admit(b"a", 0.0)
    responses.keep(b"a", b"answer", 100.0)
    assert responses.admit(b"a", 100.0) == b"answer"


def test_the_oldest_goes_first_and_is_counted() -> None:
    responses = Responses(most=2)
    responses.admit(b"a", 0.0)
    responses.admit(b"b", 1.0)
    responses.keep(b"a", b"answer", 2.0)
    responses.admit(b"c", 3.0)
    assert (len(responses), responses.lost) == (2, 1)
    assert responses.admit(b"a", 3.0) == b"answer"
    assert responses.admit(b"b", 3.0) is None
    assert responses.lost == 2


def test_what_has_had_its_time_makes_room_as_others_come_and_is_not_counted() -> None:
    responses = Responses(most=3)
    for key in (b"a", b"b", b"c"):
        responses.keep(key, b"answer", 0.0)
    responses.admit(b"d", KEEP_S)
    assert (len(responses), responses.lost) == (2, 0)
    responses.admit(b"e", KEEP_S)
    assert (len(responses), responses.lost) == (2, 0)


KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
STEPS = st.lists(st.tuples(st.sampled_from(["admit", "keep"]), KEYS, st.sampled_from([0.0, 1.0, 4.0, 26.0])))


@given(STEPS)
def test_it_does_what_a_plain_dict_without_bounds_does(steps: list[tuple[str, bytes, float]]) -> None:
    responses, model, now = Responses(), dict[bytes, tuple[float, bytes]](), 0.0
    for number, (what, key, passed_s) in enumerate(steps):
        now += passed_s
        if what == "keep":
            answer = b"%d" % number
            responses.keep(key, answer, now)
            model[key] = now, answer
            continue
        since, answer = model.get(key, (0.0, PENDING))
        is_there = key in model and now - since < (KEEP_S if answer else PENDING_S)
        assert responses.admit(key, now) == (answer if is_there else None)
        if not is_there:
            model[key] = now, PENDING
    assert responses.lost == 0
    assert len(responses) <= len(model)


@given(STEPS)
def test_the_bound_holds(steps: list[tuple[str, bytes, float]]) -> None:
    responses, now = Responses(most=2), 0.0
    for what, key, passed_s in steps:
        now += passed_s
        if what == "keep":
            responses.keep(key, b"answer", now)
        else:
            responses.admit(key, now)
        assert len(responses) <= 2


# Replays


def test_a_replay_is_known_for_a_day() -> None:
    replays = Replays()
    assert not replays.knows(b"a", 0.0)
    replays.keep(b"a", 0.0)
    assert replays.knows(b"a", REPLAY_S - BEFORE)
    assert not replays.knows(b"a", REPLAY_S)
    replays.keep(b"a", REPLAY_S)
    assert replays.knows(b"a", REPLAY_S + 1)


def test_replays_are_bounded_and_those_whose_time_is_over_are_no_loss() -> None:
    replays = Replays(most=2)
    for number, key in enumerate((b"a", b"b", b"a", b"c")):
        replays.keep(key, float(number))
    assert (len(replays), replays.lost) == (2, 1)
    assert [replays.knows(key, 4.0) for key in (b"a", b"b", b"c")] == [True, False, True]
    replays.keep(b"d", REPLAY_S + 5)
    assert (len(replays), replays.lost) == (1, 1)


def test_a_request_shows_its_authenticator() -> None:
    raw = accounting_request(integer(40, 7))
    assert open_request(raw, [SECRET]).authenticator == raw[4:20]
