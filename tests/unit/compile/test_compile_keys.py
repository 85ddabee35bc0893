"""A set in parts is a set: held to the built-in one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatewayd.compile.keys import PARTS, Keys

KEYS = [number.to_bytes(2, "big") for number in range(300)]
SOME = st.lists(st.sampled_from(KEYS), max_size=40)


def part_of(key: bytes) -> int:
    return hash(key) >> 40 & 63


@example(
    [
        ("add", KEYS[:10]),
        ("discard", KEYS[5:15]),
        ("update", KEYS[3:20]),
        ("difference_update", KEYS[:12]),
        ("difference_update", KEYS),
    ]
)
@given(st.lists(st.tuples(st.sampled_from(["add", "discard", "update", "difference_update"]), SOME), max_size=12))
def test_it_is_a_set(script: list[tuple[str, list[bytes]]]) -> None:
    keys, oracle = Keys(KEYS[:5]), set(KEYS[:5])
    for method, some in script:
        if method in ("add", "discard"):
            for key in some:
                getattr(keys, method)(key)
                getattr(oracle, method)(key)
        else:
            getattr(keys, method)(some)
            getattr(oracle, method)(some)
        assert keys == oracle
        assert (len(keys), sorted(keys)) == (len(oracle), sorted(oracle))
        assert [key in keys for key in KEYS] == [key in oracle for key in KEYS]
        assert keys - oracle == set()
    with pytest.raises(KeyError):
        keys.remove(b"not there")


def test_every_key_is_in_its_part_and_no_part_has_them_all() -> None:
    keys = Keys(KEYS)
    assert len(keys.parts) == PARTS
    for number, part in enumerate(keys.parts):
        assert {part_of(key) for key in part} <= {number}
        assert len(part) < len(KEYS) / 4


def test_nothing_can_be_taken_from_no_keys() -> None:
    keys = Keys()
    keys.difference_update(KEYS)
    assert keys == set()


def test_a_part_can_be_replaced_by_other_keys_of_it() -> None:
    keys = Keys(KEYS)
    number = part_of(KEYS[0])
    keys.replace_part(number, {KEYS[0]})
    assert keys == {key for key in KEYS if part_of(key) != number} | {KEYS[0]}
    assert len(keys) == len(list(keys))


def test_parts_without_a_key_are_one_object_whatever_was_in_them() -> None:
    keys, none = Keys(KEYS), Keys().parts[0]
    keys.replace_part(0, set())
    for key in list(keys):
        keys.discard(key)
    assert all(part is none for part in (*keys.parts, *Keys().parts))
