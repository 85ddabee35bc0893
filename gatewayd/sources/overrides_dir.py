"""The directory of local overrides: every `*.yaml` in it, in the order of their names, watched for change.

A file with faults changes nothing that was in force from it, and is said; so is a file that cannot be read,
and a directory that is gone after it was there. A file that was removed takes what it said with it. At a start
there is nothing from before: a start shall refuse faults then, as for the configuration.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from watchfiles import awatch

from gatewayd.errors import OverridesInvalid, SettingsInvalid
from gatewayd.settings import read_text
from gatewayd.sources.file_source import FileSignature, signature_of
from gatewayd.sources.override_file import OverrideFile, parse_overrides

MAX_FILES: Final = 1000


@dataclass(frozen=True, slots=True)
class OverridesReading:
    """`files` to be in force, in order. `faults`: one line for every problem of every file, as SettingsInvalid
    has them; what they are about is in force as it was before."""

    files: tuple[OverrideFile, ...]
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Seen:
    """One file as it was last looked at: `file` is the last of it without faults."""

    signature: FileSignature | None
    file: OverrideFile | None
    faults: tuple[str, ...] = ()


class OverridesDir:
    """Reads the directory again and again. Owned by one task."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: dict[str, _Seen] = {}
        self._last: OverridesReading | None = None

    async def read(self) -> OverridesReading:
        """What is there now; files that did not change are not read again."""
        self._last = await asyncio.to_thread(self._read)
        return self._last

    async def watch(
        self,
        deliver: Callable[[OverridesReading], Awaitable[None]],
        debounce_ms: int = 50,
        recheck_s: float = 5.0,
    ) -> None:
        """Delivers at once, and whenever it is another reading than before. Until cancelled."""
        async with aclosing(_wakes(self._directory, debounce_ms, recheck_s)) as wakes:
            while True:
                last = self._last
                if await self.read() != last:
                    assert self._last is not None
                    await deliver(self._last)
                await anext(wakes)

    def _read(self) -> OverridesReading:
        faults: list[str] = []
        try:
            names = sorted(path.name for path in self._directory.iterdir() if _is_overrides(path))
        except OSError as error:
            if self._seen or not isinstance(error, FileNotFoundError):
                faults.append(f"{self._directory}: cannot be read: {error.strerror}, expected a directory")
            names = sorted(self._seen)
        else:
            if len(names) > MAX_FILES:
                faults.append(f"{self._directory}: has {len(names)} files, expected at most {MAX_FILES}")
                names = sorted(self._seen)
            self._seen = {name: self._look(name) for name in names}
        seen = [self._seen[name] for name in names]
        return OverridesReading(
            tuple(each.file for each in seen if each.file is not None),
            (*faults, *(fault for each in seen for fault in each.faults)),
        )

    def _look(self, name: str) -> _Seen:
        path = self._directory / name
        signature = signature_of(path)
        before = self._seen.get(name, _Seen(None, None))
        if signature is not None and signature == before.signature:
            return before
        try:
            file = parse_overrides(read_text(path), name, str(path))
        except (OverridesInvalid, SettingsInvalid) as error:
            return _Seen(signature, before.file, error.faults)
        return _Seen(signature, file)


def read_overrides(directory: Path) -> OverridesReading:
    """What a directory says by itself, blocking: for `check` and `plan`."""
    return OverridesDir(directory)._read()


def _is_overrides(path: Path) -> bool:
    """Not what editors leave beside a file."""
    return path.suffix == ".yaml" and not path.name.startswith(".")


async def _wakes(directory: Path, debounce_ms: int, recheck_s: float) -> AsyncGenerator[None, None]:
    """Yields at every event in the directory, and at least every `recheck_s`; also while it is not there."""
    while True:
        try:
            events = awatch(
                directory,
                watch_filter=None,
                debounce=debounce_ms,
                step=min(debounce_ms, 10),
                rust_timeout=max(1, int(recheck_s * 1000)),
                yield_on_timeout=True,
                recursive=False,
            )
            inode = await asyncio.to_thread(_inode_of, directory)
            async with aclosing(events):
                async for _ in events:
                    yield
                    if await asyncio.to_thread(_inode_of, directory) != inode:
                        break
        except (OSError, RuntimeError):  # it is not there, or the host has no inotify watch left
            await asyncio.sleep(recheck_s)
            yield


def _inode_of(directory: Path) -> int | None:
    try:
        return directory.stat().st_ino
    except OSError:
        return None
