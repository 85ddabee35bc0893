"""What a reload cannot change."""

from __future__ import annotations

from gatewayd.settings.model import Settings, SubscriberSettings


def settings_that_need_restart(old: Settings, new: Settings) -> tuple[str, ...]:
    """Keys that differ between `old` and `new` and take effect only at a restart; in the file's order.

    They name what the kernel or other programs hold on to: a table, bits of the mark, sockets, the last good; and
    what all bindings, in memory and in the kernel, were made with.
    """
    keys = {
        **_keys_of_subscribers(old.subscribers, new.subscribers),
        "kernel.table": (old.kernel.table, new.kernel.table),
        "kernel.ct_mark_mask": (old.kernel.ct_mark_mask, new.kernel.ct_mark_mask),
        "kernel.nflog_group": (old.kernel.nflog_group, new.kernel.nflog_group),
        "http.listen": (old.http.listen, new.http.listen),
        "http.socket": (old.http.socket, new.http.socket),
        "state_dir": (old.state_dir, new.state_dir),
    }
    return tuple(key for key, (before, after) in keys.items() if before != after)


def _keys_of_subscribers(
    old: SubscriberSettings | None, new: SubscriberSettings | None
) -> dict[str, tuple[object, object]]:
    """A section that comes or goes is named as a whole."""
    if old is None or new is None:
        return {"subscribers": (old, new)}
    keys: dict[str, tuple[object, object]] = {
        "subscribers.pepper_file": (old.pepper_file, new.pepper_file),
        "subscribers.max_sessions": (old.max_sessions, new.max_sessions),
        "subscribers.element_timeout": (old.element_timeout_s, new.element_timeout_s),
    }
    if old.radius is None or new.radius is None:
        return {**keys, "subscribers.radius": (old.radius, new.radius)}
    return {**keys, "subscribers.radius.listen": (old.radius.listen, new.radius.listen)}
