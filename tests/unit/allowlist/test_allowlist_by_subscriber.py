from __future__ import annotations

import pytest

from gatewayd.allowlist.by_subscriber import BySubscriber
from gatewayd.model import Registration

ALI, BANO = b"\1" * 32, b"\2" * 32


def mobile(id: str = "PK-1", subscriber: bytes | None = ALI) -> Registration:
    return Registration(id, "freelancer", "active", (), subscriber=subscriber)


def test_three_of_one_subscriber_shrink_to_two_and_to_one() -> None:
    held: BySubscriber[Registration] = BySubscriber()
    one, two, three = (mobile(f"PK-{number}") for number in (1, 2, 3))
    for each in (one, two, three):
        held.add(ALI, each)
    assert held.of(ALI) == (one, two, three)
    held.remove(ALI, two)
    assert held.of(ALI) == (one, three)
    held.remove(ALI, one)
    assert held.of(ALI) == (three,)
    held.remove(ALI, three)
    assert held.of(ALI) == ()
    assert not held.held


def test_to_remove_what_is_not_there_is_a_bug_and_changes_nothing() -> None:
    held: BySubscriber[Registration] = BySubscriber()
    one = mobile()
    held.add(ALI, one)
    with pytest.raises(KeyError) as raised:
        held.remove(ALI, mobile())
    with pytest.raises(KeyError):
        held.remove(BANO, one)
    assert held.of(ALI) == (one,)
    assert repr(ALI)[2:-1] not in str(raised.value), "an error shows no digest"
