"""What a reload cannot change."""

from __future__ import annotations

from gatewayd.settings.model import Settings


def settings_that_need_restart(old: Settings, new: Settings) -> tuple[str, ...]:
    """Keys that differ between `old` and `new` and take effect only at a restart; in the file's order.

    They name what the kernel or other programs hold on to: a table, bits of the mark, sockets, the last good.
    """
    keys = {
        "kernel.table": (old.kernel.table, new.kernel.table),
        "kernel.ct_mark_mask": (old.kernel.ct_mark_mask, new.kernel.ct_mark_mask),
        "kernel.nflog_group": (old.kernel.nflog_group, new.kernel.nflog_group),
        "http.listen": (old.http.listen, new.http.listen),
        "http.socket": (old.http.socket, new.http.socket),
        "state_dir": (old.state_dir, new.state_dir),
    }
    return tuple(key for key, (before, after) in keys.items() if before != after)
