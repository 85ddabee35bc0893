"""Registrations by mobile number, and the numbers for the sender."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from gatewayd.feed.record import registration_of
from gatewayd.lab.world import mobile_number, subscriber_of
from tests.bench.numbered import UNLISTED, numbered_registry, read_numbers


@pytest.mark.parametrize(("share", "by_number"), [(1 / 3, 20), (1.0, 60), (0.0, 0)])
def test_a_registry_has_as_many_by_number_as_asked_for_all_effective(
    tmp_path: Path, share: float, by_number: int
) -> None:
    numbered = numbered_registry(tmp_path, 60, share)
    lines = numbered.registry.read_bytes().splitlines()
    registrations = [registration_of(msgspec.json.decode(line)) for line in lines]
    assert len({each.id for each in registrations}) == 60
    assert all(each.is_effective(time.time()) for each in registrations)
    numbers = read_numbers(numbered.numbers)
    assert numbered.count() == len(numbers) == by_number
    digests = {each.subscriber.hex() for each in registrations if each.subscriber is not None}
    assert digests == {subscriber_of(number).partition(":")[2] for number in numbers}
    assert all(number < UNLISTED for number in numbers)


def test_the_open_numbers_are_some_of_them(tmp_path: Path) -> None:
    numbered = numbered_registry(tmp_path, 200, 0.5)
    opened = read_numbers(numbered.open_numbers)
    assert 0 < len(opened) < numbered.count()
    assert set(opened) < set(read_numbers(numbered.numbers))


def test_it_is_made_once(tmp_path: Path) -> None:
    first = numbered_registry(tmp_path, 30, 0.5)
    made = first.registry.stat().st_mtime_ns
    assert numbered_registry(tmp_path, 30, 0.5) == first
    assert first.registry.stat().st_mtime_ns == made
    assert len(mobile_number(read_numbers(first.numbers)[0])) == 12
