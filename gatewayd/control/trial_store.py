"""The state of changes of the mode: in memory for whom it concerns, and on disk for a restart.

state_dir/trial.json    the record (`trial.record`); not there while there is nothing to keep
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from gatewayd.filesystem import read_ours
from gatewayd.log import get_logger
from gatewayd.model.flow import Mode
from gatewayd.model.policy import Stage
from gatewayd.sources.files import in_thread, replace_file
from gatewayd.trial.record import MAX_BYTES, RecordUnusable, decode_state, encode_state
from gatewayd.trial.state import Instant, TrialState, Trip, restore

log = get_logger(__name__)

FILE_NAME: Final = "trial.json"
RECORD_DAMAGED: Final = "record_damaged"
"""Cause of the trip where the record cannot be read: whether the gateway had tripped is not known then."""


class TrialStore:
    """`state`: in force. `error`: why the record on disk is older; None: it is not. `replace`: for a test.

    What arms waits for the disk (`save_first`), and what disarms does not. A record that would arm what the state
    does not is removed where it cannot be written: that needs no room.
    """

    def __init__(
        self, directory: Path | None, *, replace_file: Callable[[Path, bytes], None] = replace_file
    ) -> None:
        self.state = TrialState()
        self.error: str | None = None
        self._path = None if directory is None else directory / FILE_NAME
        self._replace = replace_file
        self._saved: TrialState | None = TrialState()
        """What is on disk; None: not known."""
        self._writing = asyncio.Lock()
        self._is_foreign = False
        """The file is of a later version, and is left untouched."""

    @property
    def is_saved(self) -> bool:
        return self.state == self._saved

    def recall(self, file: Stage, now: Instant, found: Mode | None) -> TrialState:
        """At a start: the state as an earlier run left it, judged again. Returns what was on disk. `found`: the
        mode of the rules in the kernel."""
        kept = self._read(now)
        self.state = restore(kept, file, now, found)
        return kept

    def _read(self, now: Instant) -> TrialState:
        if self._path is None:
            return TrialState()
        try:
            content = read_ours(self._path)
            if len(content) > MAX_BYTES:
                raise RecordUnusable("it is too long")
            self._saved = decode_state(content)
            return self._saved
        except FileNotFoundError:
            return TrialState()
        except (OSError, RecordUnusable) as error:
            log.error("trial.unreadable", file=str(self._path), error=str(error))
            self._is_foreign = isinstance(error, RecordUnusable) and error.is_newer
            if not self._is_foreign:
                with suppress(OSError):
                    self._path.rename(self._path.with_suffix(".damaged"))
            self._saved = None
            # Had it tripped? Was it to observe? Nothing is armed on a guess.
            return TrialState(trip=Trip(RECORD_DAMAGED, now.wall_s, 1, 0))

    def take(self, state: TrialState) -> None:
        """From now on; `save` puts it on disk."""
        self.state = state

    async def save_first(self, state: TrialState) -> None:
        """Put a state on disk that is not in force yet. Raises OSError; the record on disk is what it was then."""
        async with self._writing:
            if self._path is not None:
                await in_thread(self._write, state)
            self._saved = state

    async def save(self) -> bool:
        """Put the state in force on disk; whether it is there. `error` says why not."""
        async with self._writing:
            state = self.state
            if state == self._saved or self._path is None:
                self._saved, self.error = state, None
                return True
            try:
                await in_thread(self._write, state)
            except OSError as error:
                self._note_failure(error)
                await in_thread(self._remove_what_arms, state)
                return False
            self._saved, self.error = state, None
            return True

    def _write(self, state: TrialState) -> None:
        if self._path is None:
            return
        if self._is_foreign:
            raise OSError(f"{self._path} is of a later version of gatewayd")
        if state == TrialState():
            self._path.unlink(missing_ok=True)
        else:
            self._replace(self._path, encode_state(state))

    def _remove_what_arms(self, state: TrialState) -> None:
        """A restart must not go on with a trial that is over."""
        may_arm = self._saved is None or (self._saved.trial is not None and self._saved.trial != state.trial)
        if may_arm and self._path is not None and not self._is_foreign:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
                self._saved = None

    def _note_failure(self, error: OSError) -> None:
        text = error.strerror or str(error)
        if text != self.error:
            log.error("trial.not_saved", file=str(self._path), error=text)
        self.error = text
