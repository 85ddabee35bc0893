"""One file of `state_dir`, replaced whole: what the guard knows. Blocking calls in a thread."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gatewayd.log import get_logger
from gatewayd.sources.disk import Files, write_durably
from gatewayd.sources.last_good_sink import in_thread

log = get_logger(__name__)

READ_BYTES = 1 << 20


class GuardFile:
    """Written only when its content is another. Never raises for the disk's sake."""

    def __init__(self, files: Files, path: Path) -> None:
        self.path = path
        self.error: str | None = None
        """Why the latest save failed; None if it did not."""
        self._files = files
        self._saved: bytes | None = None
        self._saving = asyncio.Lock()

    async def load(self) -> bytes | None:
        """What was saved; None if there is nothing that can be read."""
        try:
            self._saved = await in_thread(self._read)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("guard.unreadable", file=str(self.path), error=error.strerror or str(error))
            return None
        return self._saved

    async def save(self, content: bytes) -> bool:
        """Make it durable, after what was to be saved before; whether it is."""
        async with self._saving:
            if content == self._saved:
                return True
            try:
                await in_thread(self._write, content)
            except OSError as error:
                why = error.strerror or str(error)
                if why != self.error:
                    log.error("guard.not_saved", file=str(self.path), error=why)
                self.error = why
                return False
            self._saved, self.error = content, None
            return True

    def _read(self) -> bytes:
        descriptor = self._files.open_to_read(self.path)
        try:
            chunks = []
            while chunk := self._files.read(descriptor, READ_BYTES):
                chunks.append(chunk)
            return b"".join(chunks)
        finally:
            self._files.close(descriptor)

    def _write(self, content: bytes) -> None:
        self._files.make_directory(self.path.parent)
        write_durably(self._files, self.path, content)
        self._files.sync_directory(self.path.parent)
