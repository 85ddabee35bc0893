"""The missing keys of a set, held to `desired - known` in plain sets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatewayd.compile.keys import PARTS, Keys, MissingKeys

KEYS = [number.to_bytes(2, "big") for number in range(200)]
STEPS = st.tuples(st.sampled_from(["want", "forget", "came", "lost"]), st.lists(st.sampled_from(KEYS), max_size=30))


def part_of(key: bytes) -> int:
    return hash(key) >> 40 & 63


@pytest.mark.parametrize("whole", [False, True])
@example(
    script=[
        ("want", KEYS[40:70]),
        ("came", KEYS[:20]),
        ("lost", KEYS[10:15]),
        ("forget", KEYS[12:60]),
        ("came", KEYS[100:]),
        ("came", KEYS),
        ("lost", KEYS[:3]),
    ]
)
@given(script=st.lists(STEPS, max_size=12))
def test_what_is_missing_is_what_is_desired_and_has_not_come(whole: bool, script: Any) -> None:
    desired, wanted = Keys(KEYS[:50]), set(KEYS[:50])
    missing, oracle = MissingKeys(desired, whole=whole), set(wanted) if whole else set()
    for step, keys in script:
        for key in keys:
            if step == "want" and key not in wanted:
                desired.add(key)
                wanted.add(key)
                missing.add(key)
                oracle.add(key)
            elif step == "forget" and key in wanted:
                desired.discard(key)
                wanted.discard(key)
                assert missing.forget(key) == (key in oracle)
                oracle.discard(key)
            elif step == "lost" and key in wanted:
                missing.add(key)
                oracle.add(key)
        if step == "came":
            assert missing.difference_update(keys) == len(oracle.intersection(keys))
            oracle.difference_update(keys)
        assert missing == oracle
        assert (len(missing), sorted(missing), bool(missing)) == (len(oracle), sorted(oracle), bool(oracle))
        assert [key in missing for key in KEYS] == [key in oracle for key in KEYS]
        assert missing - wanted == set()
        assert set().union(*(missing.part(number) for number in range(PARTS))) == oracle


def test_one_key_can_come_by_itself() -> None:
    missing = MissingKeys(Keys(KEYS), whole=True)
    missing.discard(KEYS[0])
    assert missing == set(KEYS[1:])


def test_what_is_missing_whole_follows_the_desired_keys_and_copies_nothing() -> None:
    desired = Keys()
    missing = MissingKeys(desired, whole=True)
    desired.update(KEYS)
    assert len(missing) == len(KEYS)
    shared = [number for number in range(PARTS) if missing.part(number) is desired.parts[number]]
    assert set(shared) >= {part_of(key) for key in KEYS}


def test_a_part_that_was_empty_when_it_was_counted_takes_keys_later() -> None:
    desired = Keys()
    missing = MissingKeys(desired, whole=True)
    assert len(missing) == 0
    for number, key in enumerate(KEYS, 1):
        desired.add(key)
        missing.add(key)
        assert len(missing) == number
    assert missing == set(KEYS)


@pytest.mark.parametrize("whole", [False, True])
def test_a_part_can_be_replaced(whole: bool) -> None:
    missing = MissingKeys(Keys(KEYS), whole=whole)
    number = part_of(KEYS[0])
    for keys in ({KEYS[0]}, set()):
        missing.replace_part(number, keys)
        others = {key for key in KEYS if whole and part_of(key) != number}
        assert missing == others | keys
        assert len(missing) == len(list(missing))
