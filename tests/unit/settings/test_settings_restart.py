"""What a reload cannot change."""

from __future__ import annotations

from dataclasses import replace

from gatewayd.settings import (
    HttpSettings,
    KernelSettings,
    ListenAddress,
    PolicySettings,
    RegistrySettings,
    Settings,
    SourceSettings,
    settings_that_need_restart,
)

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
