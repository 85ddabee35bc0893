"""What a reload cannot change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gatewayd.model import parse_prefix
from gatewayd.settings import (
    HttpSettings,
    KernelSettings,
    ListenAddress,
    PolicySettings,
    RadiusClient,
    RadiusSettings,
    RegistrySettings,
    Settings,
    SourceSettings,
    SubscriberSettings,
    settings_that_need_restart,
)
from gatewayd.settings.subscribers import NasSettings, ProfileSettings

OLD = Settings(RegistrySettings((SourceSettings("lab", "file:/lab.csv", allow_unsigned=True),)))


def test_what_a_reload_can_change_needs_no_restart() -> None:
    new = replace(OLD, policy=PolicySettings(mode="reject"), kernel=KernelSettings(verify_every_s=1.0))
    assert settings_that_need_restart(OLD, new) == ()


def test_everything_that_needs_a_restart_is_named() -> None:
    new = replace(
        OLD,
        kernel=KernelSettings(table="other", ct_mark_mask=0xF0, nflog_group=1),
        http=HttpSettings(listen=ListenAddress("::1", 1), socket="/x"),
        state_dir="/y",
    )
    assert settings_that_need_restart(OLD, new) == (
        "kernel.table", "kernel.ct_mark_mask", "kernel.nflog_group", "http.listen", "http.socket",
        "state_dir",
    )  # fmt: skip


CLIENT = RadiusClient(parse_prefix("10.0.0.0/24"), "/secret")
RADIUS = RadiusSettings((CLIENT,))
BOUND = SubscriberSettings("/pepper", radius=RADIUS)
CHANGED = ProfileSettings(interim="snapshot")


@pytest.mark.parametrize(
    "subscribers",
    [
        replace(BOUND, profile=CHANGED),
        replace(BOUND, nas=(NasSettings("bng-1"),)),
        replace(BOUND, radius=RadiusSettings((replace(CLIENT, secret_file="/other", profile=CHANGED),))),
    ],
)
def test_profiles_nas_and_clients_can_be_reloaded(subscribers: SubscriberSettings) -> None:
    old = replace(OLD, subscribers=BOUND)
    assert settings_that_need_restart(old, replace(OLD, subscribers=subscribers)) == ()


def test_what_of_subscribers_needs_a_restart_is_named_before_the_kernel() -> None:
    radius = replace(RADIUS, listen=(ListenAddress("::", 1813),))
    new = replace(
        OLD,
        subscribers=SubscriberSettings("/other", max_sessions=1000, element_timeout_s=600.0, radius=radius),
        kernel=KernelSettings(table="other"),
    )
    assert settings_that_need_restart(replace(OLD, subscribers=BOUND), new) == (
        "subscribers.pepper_file", "subscribers.max_sessions", "subscribers.element_timeout",
        "subscribers.radius.listen", "kernel.table",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "key"),
    [
        (None, BOUND, "subscribers"),
        (replace(BOUND, radius=None), BOUND, "subscribers.radius"),
    ],
)
def test_a_section_that_comes_or_goes_is_named_once(
    one: SubscriberSettings | None, other: SubscriberSettings, key: str
) -> None:
    first, second = replace(OLD, subscribers=one), replace(OLD, subscribers=other)
    assert settings_that_need_restart(first, second) == (key,)
    assert settings_that_need_restart(second, first) == (key,)
    assert settings_that_need_restart(first, first) == ()
