"""Runs that once found a fault, each as the shortest script that did, with the fault in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.simulation.script import Cue, Script


@dataclass(frozen=True, slots=True)
class Kept:
    """`seed`: of everything that the script leaves open."""

    name: str
    seed: int
    script: Script
    reason: str


KEPT: Final[tuple[Kept, ...]] = (
    Kept(
        "back for a moment",
        1223,
        (
            Cue(0, 0.0, ("publish", ("ali", 0), ("bank", 2), ("many", 1), ("shift", 0), ("vpn", 1))),
            Cue(4, 6.0, ("packet", 589)),
            Cue(1000, 0.3, ("publish", ("many", 3), ("net", 1))),
            Cue(6, 0.3, ("publish", ("shift", 1), ("ali", 4))),
            Cue(2, 6.0, ("packets",)),
            Cue(1000, 0.02, ("mode", "timed", "limit", 8.0)),
            Cue(1000, 1.0, ("files", 1, 2)),
            Cue(9, 0.3, ("publish", ("bea", 7), ("shift", 0))),
            Cue(1, 0.3, ("publish", ("shift", 1))),
        ),
        "a registration that is back for less time than a search of connections takes begins no drain again: "
        "the oracle thought that it does",
    ),
    Kept(
        "an older session goes on, registered to none",
        18646,
        (
            Cue(0, 0.0, ("publish", ("ali", 0), ("bank", 0), ("few", 2), ("many", 0), ("vpn", 1))),
            Cue(0, 1.0, ("start", 3, 1, 8)),
            Cue(9, 6.0, ("start", 2, 0, 5)),
            Cue(1, 1.0, ("source", 1, True)),
            Cue(6, 0.3, ("publish", ("net", 1), ("many", 6), ("vpn", 3))),
            Cue(4, 6.0, ("interim", 3, 0, 4)),
        ),
        "the last record of an address decides whose it is: the oracle thought that a start alone does",
    ),
    Kept(
        "an older session of another subscriber goes on",
        26044,
        (
            Cue(0, 0.0, ("publish", ("bank", 1), ("bea", 2), ("few", 1))),
            Cue(6, 0.02, ("start", 3, 0, 6)),
            Cue(40, 0.3, ("disk", True)),
            Cue(6, 6.0, ("publish", ("bea", 6), ("bank", 0))),
            Cue(6, 0.3, ("start", 1, 1, 8)),
            Cue(9, 0.3, ("interim", 3, 0, 8)),
            Cue(4, 0.3, ("disk", False)),
        ),
        "the same, with a full disk beside it",
    ),
    Kept(
        "a reload to observe before the first last good is read",
        223,
        (
            Cue(0, 0.0, ("stage", "observe", 100)),
            Cue(1, 0.3, ("sources", 4, 60.0)),
        ),
        "the controller looked for the last good of the sources of the new file, and had the old ones: KeyError",
    ),
    Kept(
        "an address goes to a session that is registered too",
        40392,
        (
            Cue(0, 0.0, ("publish", ("ali", 0), ("bank", 1), ("bea", 2), ("net", 2), ("shift", 0), ("vpn", 0))),
            Cue(1, 0.3, ("start", 1, 0, 7)),
            Cue(1000, 6.0, ("kill", 0, 0.3)),
            Cue(1000, 0.3, ("packets",)),
            Cue(40, 1.0, ("start", 1, 1, 0)),
            Cue(1000, 1.0, ("on", 2, 0, 4)),
        ),
        "what another subscriber gets drains from then on: the oracle thought from the end of the former session",
    ),
    Kept(
        "a source goes while it is asked",
        5310,
        (
            Cue(0, 0.0, ("publish", ("ali", 0), ("bank", 1), ("few", 0), ("guest", 1), ("shift", 0), ("vpn", 1))),
            Cue(40, 0.3, ("packets",)),
            Cue(2, 1.0, ("packets",)),
            Cue(1000, 0.3, ("kill", 0, 3.0)),
            Cue(9, 6.0, ("publish", ("guest", 1))),
            Cue(40, 0.02, ("sources", 2, 60.0)),
        ),
        "what a reload leaves no runner for is in force no more: the oracle thought that its last answer may be",
    ),
    Kept(
        "a window of an older last good closes",
        26465,
        (
            Cue(0, 0.0, ("publish", ("ali", 0), ("few", 0), ("guest", 1), ("net", 1), ("shift", 0), ("vpn", 2))),
            Cue(1000, 3.0, ("stage", "observe", 100)),
            Cue(1000, 3.0, ("publish", ("bank", 6), ("many", 3), ("net", 2))),
            Cue(1000, 3.0, ("assert", 1)),
            Cue(1000, 0.02, ("sources", 0, 60.0)),
            Cue(6, 6.0, ("clock", "ntp", -20.0)),
            Cue(0, 1.0, ("publish", ("net", 3), ("few", 2), ("shift", 3))),
            Cue(4, 6.0, ("kill", 0, 0.0)),
            Cue(9, 0.3, ("files", 1, 3)),
            Cue(2, 6.0, ("on", 0, 0, 8)),
            Cue(9, 0.02, ("tamper", False, 4, 98)),
            Cue(1000, 6.0, ("over", 1, 1, 6)),
            Cue(1, 0.02, ("old", 4, 3.0)),
        ),
        "an older state directory has the window, and the source is unread: the oracle held it to be retained",
    ),
    Kept(
        "a window closes by a clock that is not believed",
        12498,
        (
            Cue(
                0,
                0.0,
                ("publish", ("ali", 0), ("bank", 2), ("bea", 2), ("few", 1), ("many", 1), ("shift", 0), ("vpn", 1)),
            ),
            Cue(1000, 3.0, ("trip", 0)),
            Cue(1000, 3.0, ("stage", "reject", 100)),
            Cue(1000, 3.0, ("publish", ("few", 1), ("guest", 2), ("ali", 3))),
            Cue(3, 0.3, ("urge", 401)),
            Cue(4, 0.3, ("publish", ("bank", 5))),
            Cue(1000, 0.3, ("rearm",)),
            Cue(1000, 3.0, ("publish", ("few", 5), ("many", 4), ("shift", 0))),
            Cue(4, 0.02, ("clock", "set", 400.0)),
            Cue(2, 1.0, ("disk", False)),
            Cue(9, 6.0, ("mode", "yes", "mark", 20.0, 100)),
            Cue(1000, 1.0, ("mode", "yes", "limit", 20.0, 100)),
            Cue(1000, 6.0, ("reload", 0.0)),
        ),
        "the time was worked out from an anchor, and came a ten-millionth of a second early",
    ),
)
