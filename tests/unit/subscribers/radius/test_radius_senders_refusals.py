from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.subscribers.radius.senders import Refusals, Refused

NAS, OTHER = b"\xc0\0\2\1", b"\xc0\0\2\2"


def stranger(number: int) -> bytes:
    return (0x0A000000 + number).to_bytes(4, "big")


def test_counts_are_kept_by_source_and_reason() -> None:
    refusals = Refusals()
    for reason in ("bad_authenticator", "bad_length", "bad_authenticator"):
        refusals.count(NAS, reason)
    refusals.count(OTHER, "unknown_client")
    assert len(refusals) == 2
    assert refusals.worst(5) == [
        Refused(NAS, {"bad_authenticator": 2, "bad_length": 1}, 3),
        Refused(OTHER, {"unknown_client": 1}, 1),
    ]
    assert refusals.worst(1) == [Refused(NAS, {"bad_authenticator": 2, "bad_length": 1}, 3)]
    assert refusals.others == 0


def test_a_flood_of_forged_sources_does_not_push_out_the_one_that_comes_again() -> None:
    refusals = Refusals(most=4)
    refusals.count(NAS, "bad_authenticator")
    refusals.count(NAS, "bad_authenticator")
    for number in range(100):
        refusals.count(stranger(number), "unknown_client")
    assert len(refusals) == 4
    assert refusals.others == 97
    assert refusals.worst(1) == [Refused(NAS, {"bad_authenticator": 2}, 2)]


def test_of_sources_seen_once_the_oldest_goes() -> None:
    refusals = Refusals(most=2)
    for source in (NAS, OTHER, stranger(1)):
        refusals.count(source, "unknown_client")
    assert {each.source for each in refusals.worst(5)} == {OTHER, stranger(1)}
    assert refusals.others == 1


def test_where_all_come_again_the_one_seen_last_the_longest_ago_goes() -> None:
    refusals = Refusals(most=2)
    for source in (NAS, NAS, OTHER, OTHER, NAS, stranger(1)):
        refusals.count(source, "unknown_client")
    assert {each.source for each in refusals.worst(5)} == {NAS, stranger(1)}
    assert refusals.others == 2


@given(
    st.lists(st.tuples(st.integers(0, 9).map(stranger), st.sampled_from(["bad_code", "bad_length"]))),
    st.integers(1, 5),
)
def test_no_refusal_is_lost_and_the_bound_holds(refused: list[tuple[bytes, str]], most: int) -> None:
    refusals = Refusals(most)
    for source, reason in refused:
        refusals.count(source, reason)
        assert len(refusals) <= most
    listed = refusals.worst(most)
    assert sum(each.total for each in listed) + refusals.others == len(refused)
    for each in listed:
        assert sum(each.reasons.values()) == each.total
        for reason, count in each.reasons.items():
            assert 0 < count <= refused.count((each.source, reason))
