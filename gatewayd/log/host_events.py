"""Events of the host around the gateway: other programs' rules, interfaces, connection tracking, findings."""

from __future__ import annotations

from typing import Final

from gatewayd.log.event import Event

HOST: Final = (
    Event(
        "neighbours.found", "warning", "deed rules first",
        "Rules of other programs write our bits of the ct mark, or leak them into the packet mark.", followed=True,
    ),
    Event("neighbours.gone", "info", "", "Such rules are not there any more.", followed=True),
    Event(
        "neighbours.failed", "warning", "error",
        "The kernel's rules could not be read. The former result stays; the next attempt comes within 30 s.",
    ),
    Event(
        "interfaces.matched", "info", "side pattern interfaces",
        "The first interface of a name of `policy.interfaces` has come.", followed=True,
    ),
    Event(
        "interfaces.unmatched", "warning", "side pattern",
        "The last interface of a name has gone, or there was none at start or reload.", followed=True,
    ),
    Event("interfaces.watch_failed", "warning", "error", "The watch of interfaces ended; it begins again in 1 s."),
    Event(
        "host.findings", "warning", "checks",
        "The host has faults or warnings that it did not have before; `gatewayd doctor` names their commands.",
        followed=True,
    ),
    Event("host.mended", "info", "checks", "The host has no such findings any more.", followed=True),
    Event(
        "host.look_failed", "warning", "error",
        "The host could not be examined; the findings of before stay, and the next look comes in 5 min.",
    ),
    Event("conntrack.small", "warning", "most usual", "The table of connections is smaller than usual."),
    Event("conntrack.filling", "warning", "entries most", "The table of connections is over 80 % full."),
    Event(
        "conntrack.dropping", "warning", "packets entries most",
        "Connection tracking dropped packets: its table is full, or two first packets of a flow raced.",
        followed=True,
    ),
)  # fmt: skip
