"""What the daemon can see of its host, looked at by a process of its own after the start and every few minutes.

It takes half a second of the processor, at the lowest priority, and some memory for as long. In the daemon it would
be the interpreter's time, which admissions wait for, and memory that stays (pyroute2).
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Final, Protocol

import msgspec

from gatewayd.doctor.facts import question_of
from gatewayd.doctor.findings import HostView, names_of
from gatewayd.log import get_logger
from gatewayd.settings import Settings

log = get_logger(__name__)

FIRST_LOOK_S: Final = 5.0
"""After the start, which has better use for the processor."""
LOOK_EVERY_S: Final = 300.0
TIMEOUT_S: Final = 240.0
"""Of a process that runs when nothing else does, on a busy machine."""
MAX_ERROR: Final = 200
"""Characters of the last line that a failed look said."""


class Configured(Protocol):
    """control.Controller: the settings in force."""

    @property
    def settings(self) -> Settings: ...


class HostKeeper:
    """`view`: of the latest look. One that failed leaves the findings of before, with the error."""

    def __init__(self, configured: Configured, command: tuple[str, ...] = ()) -> None:
        self._configured = configured
        self._command = command or (sys.executable, "-m", "gatewayd.doctor")
        self.view = HostView()

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.sleep(FIRST_LOOK_S)
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        before = names_of(self.view.findings)
        question = question_of(self._configured.settings, is_daemon=True)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                self.view = msgspec.json.decode(await self._ask(msgspec.json.encode(question)), type=HostView)
        except (OSError, TimeoutError, ValueError) as error:
            why = str(error) or f"no answer in {TIMEOUT_S:.0f} s"
            self.view = msgspec.structs.replace(self.view, error=why)
            log.warning("host.look_failed", error=why)
            return
        found = names_of(self.view.findings)
        if found != before:
            log.warning("host.findings", checks=found) if found else log.info("host.mended", checks=before)

    async def _ask(self, question: bytes) -> bytes:
        """Raises OSError, and ValueError with the last line of a look that failed."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            said, complaint = await process.communicate(question)
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            last = complaint.decode(errors="replace").strip().rpartition("\n")[2][:MAX_ERROR]
            raise ValueError(last or f"it ended with status {process.returncode}")
        return said
