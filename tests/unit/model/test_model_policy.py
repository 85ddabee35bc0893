from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.model.policy import MarkLayout, Policy, Stage

unhurried = settings(deadline=None)


@st.composite
def layouts(draw: st.DrawFn) -> MarkLayout:
    width = draw(st.integers(4, 32))
    shift = draw(st.integers(0, 32 - width))
    return MarkLayout(((1 << width) - 1) << shift)


@pytest.mark.parametrize(
    ("mask", "registered", "epochs", "others", "last"),
    [
        (0xFF000000, 0x80000000, 0x7F000000, 0x00FFFFFF, 127),
        (0x000FF000, 0x00080000, 0x0007F000, 0xFFF00FFF, 127),
        (0x0000000F, 0x00000008, 0x00000007, 0xFFFFFFF0, 7),
        (0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 0x00000000, 0x7FFFFFFF),
    ],
)
def test_the_highest_bit_says_registered_and_the_rest_hold_the_epoch(
    mask: int, registered: int, epochs: int, others: int, last: int
) -> None:
    layout = MarkLayout(mask)
    assert (layout.registered, layout.epoch_mask, layout.others, layout.last_epoch) == (
        registered, epochs, others, last,
    )  # fmt: skip


@unhurried
@given(layouts(), st.integers(0, 2**32 - 1))
def test_every_epoch_has_a_mark_of_its_own_within_our_bits(layout: MarkLayout, draw: int) -> None:
    assert layout.registered | layout.epoch_mask | layout.others == 0xFFFFFFFF
    assert layout.registered & layout.epoch_mask == layout.mask & layout.others == 0
    epoch = draw % layout.last_epoch + 1
    mark = layout.judged(epoch)
    assert mark
    assert mark & ~layout.epoch_mask == 0
    assert mark != layout.judged(layout.next_epoch(epoch))


def test_the_bits_of_others_are_all_that_are_not_ours() -> None:
    assert MarkLayout(0xFF000000).others == 0x00FFFFFF


def test_a_judged_flow_carries_its_epoch_in_our_lowest_bits() -> None:
    assert MarkLayout(0xF0).judged(7) == 0x70
    assert MarkLayout(0xF0).judged(7) & MarkLayout(0xF0).registered == 0


def test_after_the_last_epoch_comes_the_first_and_0_never_comes() -> None:
    layout = MarkLayout(0xF0)
    epochs = [1]
    for _ in range(14):
        epochs.append(layout.next_epoch(epochs[-1]))
    assert epochs == [1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6, 7, 1]


def test_the_least_policy_observes_every_interface_and_sets_nothing() -> None:
    policy = Policy("observe", (), MarkLayout(0xFF000000))
    assert (policy.inside, policy.outside, policy.canary_percent) == ((), (), 100)
    assert policy.registered_dscp is policy.registered_mark is None
    assert policy.unregistered_dscp is policy.unregistered_mark is None


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        (Stage("observe"), "observe"),
        (Stage("observe", 5), "observe"),
        (Stage("limit", 5), "limit, canary 5%"),
        (Stage("reject"), "reject, canary 100%"),
    ],
)
def test_a_stage_names_its_share_of_the_clients_where_it_takes_effect(stage: Stage, text: str) -> None:
    assert str(stage) == text


@pytest.mark.parametrize(
    ("stage", "other", "no_more"),
    [
        (Stage("observe"), Stage("observe"), True),
        (Stage("observe"), Stage("reject", 1), True),
        (Stage("mark"), Stage("observe"), False),
        (Stage("limit", 5), Stage("limit", 5), True),
        (Stage("limit", 5), Stage("reject", 10), True),
        (Stage("reject", 5), Stage("limit", 10), False),
        (Stage("limit", 10), Stage("reject", 5), False),
    ],
)
def test_a_stage_enforces_more_by_a_stricter_mode_or_for_more_clients(
    stage: Stage, other: Stage, no_more: bool
) -> None:
    assert stage.enforces_no_more_than(other) is no_more
