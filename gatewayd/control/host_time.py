"""This host's clocks, asked, judged (`trusted_time`), said and kept: the shell of the daemon's one source of time.

state_dir/clock.json    what a later run may know of this one; written on a change, every 5 minutes, at the end
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf, isfinite
from pathlib import Path
from typing import Final

import msgspec

from gatewayd.control.trusted_time import Doubt, Judgement, KeptTime, Reading, TrustedTime
from gatewayd.filesystem import read_ours
from gatewayd.kernel.clock import is_kernel_synced
from gatewayd.log import get_logger
from gatewayd.model.decoding import UNDECODABLE, why_undecodable
from gatewayd.model.moment import Moment, earliest_of, latest_of, went_back_s
from gatewayd.sources.files import in_thread, replace_file
from gatewayd.subscribers.service import read_boot_id
from gatewayd.trial.state import Instant

log = get_logger(__name__)

LOOK_EVERY_S: Final = 1.0
KEEP_EVERY_S: Final = 300.0
FILE_NAME: Final = "clock.json"
SET_BACK_S: Final = 2.0
"""A time that goes back by more than this was wrong before: every window is looked at again."""
_HOLDS_S: Final = 0.002
_SAY_AGAIN_BY_S: Final = 60.0
"""A doubt is said once; again when what the clock is off by has moved by more than this."""


class HostTime:
    """Call it for the likely time: ages, records. Decisions go by `moment`.

    `wall`, `elapsed`, `is_synced`: the host's clocks; `elapsed` goes on through sleep and is the same for all
    processes of a boot (`boot_id`).
    """

    def __init__(
        self,
        *,
        has_signed: bool,
        wall: Callable[[], float],
        elapsed: Callable[[], float],
        is_synced: Callable[[float], bool],
        boot_id: str = "",
        directory: Path | None = None,
    ) -> None:
        self.trusted = TrustedTime(has_signed=has_signed)
        self._wall = wall
        self._elapsed = elapsed
        self._is_synced = is_synced
        self._boot_id = boot_id
        self._path = None if directory is None else directory / FILE_NAME
        self._offset_s = 0.0
        self._synced = False
        self._synced_at_s: float | None = None
        self._judged: Judgement | None = None
        self._judged_at_s = 0.0
        self._said: Doubt | None = None
        self._kept_strength: int | None = None
        self._kept_at_s = 0.0

    def __call__(self) -> float:
        return self.judge().likely()

    def moment(self) -> float:
        """The time for windows (`model.moment`)."""
        return self.judge().moment()

    def feed_moment(self) -> float:
        """The time for the client of a signed feed."""
        return self.judge().feed_moment()

    def judge(self) -> Judgement:
        """Asked for every flow of a scan: what was judged some milliseconds ago still holds, if nothing was set."""
        elapsed_s, judged = self._elapsed(), self._judged
        is_new = judged is not None and 0 <= elapsed_s - self._judged_at_s < _HOLDS_S
        if judged is not None and is_new and abs(self._wall() - elapsed_s - self._offset_s) < _HOLDS_S:
            return judged
        self._judged, self._judged_at_s = self.trusted.take(self._read()), elapsed_s
        return self._judged

    def instant(self) -> Instant:
        """The likely time, and that which decides within a boot."""
        return Instant(self(), self._elapsed(), self._boot_id)

    def doubt(self) -> Doubt | None:
        return self.judge().doubt

    def expect_signed(self, has_signed: bool) -> None:
        """Whether there is a signed source now, whose word is worth waiting for."""
        self.trusted.has_signed, self._judged = has_signed, None

    def note_last_good(self, issued_at_s: float | None, saved_at_s: float | None) -> None:
        """A source's last good was read from disk."""
        self.trusted.note_last_good(issued_at_s, saved_at_s, self._elapsed())
        self._judged = None

    def witness(self, issued_at_s: float, holds_s: float, since_s: float | None) -> None:
        """A notification was verified and taken, or found unchanged: `TrustedTime.witness`."""
        self.trusted.witness(self._read(), issued_at_s, holds_s, since_s)
        self._judged = None

    def _read(self) -> Reading:
        """The kernel is asked whenever the clock was set, and once a second."""
        elapsed_s, wall_s = self._elapsed(), self._wall()
        offset_s, asked_at_s = wall_s - elapsed_s, self._synced_at_s
        is_old = asked_at_s is None or elapsed_s - asked_at_s >= LOOK_EVERY_S
        if is_old or abs(offset_s - self._offset_s) > 0.1:
            self._synced, self._synced_at_s = self._is_synced(wall_s), elapsed_s
        self._offset_s = offset_s
        return Reading(wall_s, elapsed_s, self._synced)

    # -- said and kept ---------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Say what is doubted, and keep what a restart should know. Until cancelled."""
        try:
            while True:
                self.say()
                if self._is_to_be_kept():
                    await in_thread(self._write, self._kept())
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            self._write(self._kept())

    def say(self) -> None:
        """Log a doubt that is new, and its end."""
        doubt, said = self.doubt(), self._said
        if doubt is None:
            if said is not None:
                log.info("clock.trusted", host=_text(self._wall()))
            self._said = None
            return
        if said is None or said.word != doubt.word or abs(said.offset_s - doubt.offset_s) > _SAY_AGAIN_BY_S:
            log.warning(
                "clock.doubted",
                host=_text(doubt.wall_s),
                used=_text(doubt.used_s),
                seconds=round(doubt.offset_s),
                why=doubt.why,
            )
            self._said = doubt

    def recall(self) -> None:
        """What an earlier run kept; a file that is of no use costs what it knew."""
        if self._path is None:
            return
        try:
            kept = msgspec.json.decode(read_ours(self._path), type=KeptTime)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("clock.not_recalled", path=str(self._path), error=str(error))
            return
        except UNDECODABLE as error:
            log.warning("clock.not_recalled", path=str(self._path), error=why_undecodable(error))
            return
        self.trusted.recall(kept, self._boot_id, self._elapsed())
        self._judged = None

    def _kept(self) -> KeptTime | None:
        return self.trusted.keep(self._read(), self._boot_id)

    def _is_to_be_kept(self) -> bool:
        kept = self._kept()
        if kept is None:
            return False
        return kept.strength != self._kept_strength or kept.elapsed_s - self._kept_at_s >= KEEP_EVERY_S

    def _write(self, kept: KeptTime | None) -> None:
        """A disk that fails costs the next run what this one knows; that it fails is the store's to say."""
        if self._path is None or kept is None:
            return
        self._kept_strength, self._kept_at_s = kept.strength, kept.elapsed_s
        try:
            replace_file(self._path, msgspec.json.encode(kept))
        except OSError as error:
            log.debug("clock.not_kept", path=str(self._path), error=str(error))


class WindowClock:
    """The time that windows go by, and the latest by which something was done. `likely`: for ages and records;
    `ask`: for decisions, a Moment where the time is not certain; None = `likely` is always right."""

    def __init__(self, likely: Callable[[], float], ask: Callable[[], float] | None = None) -> None:
        self.likely = likely
        self._ask = ask or likely
        self._used: float = -inf

    def moment(self) -> float:
        """The time to do something by."""
        now, used = self._ask(), self._used
        # What was done by a later time, however short that was believed, is looked at again.
        earliest = max(earliest_of(now), earliest_of(used))
        latest = max(latest_of(now), latest_of(used))
        self._used = earliest if earliest == latest else Moment(earliest, latest)
        return now

    def certain(self) -> float:
        """The time that has certainly come."""
        earliest = earliest_of(self._ask())
        return earliest if isfinite(earliest) else self.likely()

    def look(self) -> tuple[float, float]:
        """The time, and by how many seconds it went back, if that is more than SET_BACK_S: then a time that
        something was done by was wrong, and is forgotten."""
        now = self._ask()
        seconds = went_back_s(self._used, now)
        if seconds <= SET_BACK_S:
            return now, 0.0
        self._used = now
        return now, seconds


def open_host_time(directory: Path, *, has_signed: bool) -> HostTime:
    """Of this host, with what an earlier run kept in `directory`."""
    made = HostTime(
        has_signed=has_signed,
        wall=time.time,
        elapsed=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        is_synced=is_kernel_synced,
        boot_id=read_boot_id(),
        directory=directory,
    )
    made.recall()
    return made


def _text(at_s: float) -> str:
    try:
        return datetime.fromtimestamp(round(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{at_s:.0f}"
