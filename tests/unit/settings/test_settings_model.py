"""The typed sections by themselves."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatewayd.model import parse_services
from gatewayd.model.policy import Stage
from gatewayd.settings import (
    ListenAddress,
    PolicySettings,
    RegistrySettings,
    RemovalLimit,
    Settings,
    SourceSettings,
)


def test_settings_are_values_that_can_be_compared_hashed_and_taken_apart() -> None:
    sources = (SourceSettings("lab", "file:/lab.csv", allow_unsigned=True),)
    first, second = Settings(RegistrySettings(sources)), Settings(RegistrySettings(sources))
    assert first == second
    assert hash(first) == hash(second)
    assert dataclasses.asdict(first)["policy"]["mode"] == "observe"


def test_the_scope_follows_its_words() -> None:
    policy = dataclasses.replace(PolicySettings(), scope_words=("wireguard", "esp"))
    assert policy.scope == parse_services(["esp", "wireguard"])


def test_the_stage_of_a_policy_is_its_mode_and_its_canary_whatever_the_time() -> None:
    assert PolicySettings().stage == Stage("observe", 100)
    policy = dataclasses.replace(PolicySettings(), mode="reject", canary_percent=5, enforce_until=0.0)
    assert policy.stage == Stage("reject", 5)


@pytest.mark.parametrize(
    ("address", "text"),
    [(ListenAddress("::1", 1), "[::1]:1"), (ListenAddress("127.0.0.1", 0), "127.0.0.1:0")],
)
def test_a_listen_address_prints_as_it_is_written(address: ListenAddress, text: str) -> None:
    assert str(address) == text


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [
        (RemovalLimit(count=7), 7),
        (RemovalLimit(fraction=0.05), 50),
        (RemovalLimit(fraction=0.0005), 0),
        (RemovalLimit(), 0),
    ],
)
def test_a_removal_limit_is_a_count_or_a_share_rounded_down(limit: RemovalLimit, allowed: int) -> None:
    assert limit.allowed_of(1000) == allowed


@given(st.integers(0, 100), st.integers(0, 10**9))
@example(29, 100)
def test_a_percentage_of_a_total_is_exact_where_it_is_whole(percent: int, total: int) -> None:
    assert RemovalLimit(fraction=percent / 100).allowed_of(total) == percent * total // 100


@pytest.mark.parametrize(
    ("url", "keys", "path", "is_signed"),
    [
        ("file:/etc/lab.csv", (), "/etc/lab.csv", False),
        ("file:///etc/my%20list.csv", (), "/etc/my list.csv", False),
        ("https://registry.example/feed.csv", (), None, False),
        ("https://registry.example/feed/notification.jws", ("/k.pub",), None, True),
        ("https://registry.example/v1/feed", ("/k.pub",), None, True),
        ("file:/feed/notification.jws", (), "/feed/notification.jws", False),
    ],
)
def test_a_source_knows_its_file_and_its_keys_say_whether_it_is_signed(
    url: str, keys: tuple[str, ...], path: str | None, is_signed: bool
) -> None:
    source = SourceSettings("x", url, keys)
    assert source.path == path
    assert source.is_signed is RegistrySettings((source,)).has_signed is is_signed
