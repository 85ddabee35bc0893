"""Files as sources, read in chunks off the event loop and watched; the directory of overrides; durable writes.

Replace a source by rename (`mv new.ndjson lab.ndjson`), never by writing into it: a file that changes while
it is read is refused and read again, but one that a writer left half-done cannot be told from a whole one.

Of the directory every `*.yaml` and `*.yml` counts, in the order of their names. A file with faults, or one that
cannot be read, changes nothing that was in force from it; so does a directory that is gone after it was there. A
file that was removed takes its content with it. At a start there is nothing from before: a start refuses faults, as
it does for the configuration.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from watchfiles import awatch
from watchfiles.main import FileChange

from gatewayd.errors import OverridesInvalid, SettingsInvalid, SourceUnreadable
from gatewayd.filesystem import create_new, open_ours
from gatewayd.settings import open_regular, read_text
from gatewayd.sources.override_file import OverrideFile, parse_overrides
from gatewayd.sources.update import Body

MODE: Final = 0o640
DIRECTORY_MODE: Final = 0o750
TEMPORARY_SUFFIX: Final = ".new"

_T = TypeVar("_T")


async def in_thread(call: Callable[..., _T], *arguments: object) -> _T:
    """The result of a blocking call. A cancelled one is waited for: its files are still in use."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


def temporary(path: Path) -> Path:
    """Where the next content of a file is written, until `put_in_place`."""
    return path.with_name(path.name + TEMPORARY_SUFFIX)


def create_temporary(path: Path) -> Path:
    """An empty file of our mode, and the directory for it."""
    directory, new = path.parent, temporary(path)
    if not directory.is_dir():
        directory.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
        _sync(directory.parent)
    os.close(create_new(new, MODE))
    return new


def put_in_place(path: Path) -> None:
    """What is at `temporary(path)` is durable, and then the file."""
    _sync(temporary(path))
    os.rename(temporary(path), path)
    _sync(path.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Durable, and all of it or nothing."""
    new = create_temporary(path)
    try:
        with open(open_ours(new, os.O_WRONLY), "wb") as file:
            file.write(content)
        put_in_place(path)
    except OSError:
        remove(new)
        raise


def remove(path: Path) -> None:
    """As far as that can be done; nothing happens if it is not there."""
    with suppress(OSError):
        path.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- sources -----------------------------------------------------------------------------------------------

CHUNK_BYTES: Final = 1 << 20
"""Read at a time: a hop to a thread costs about as much as reading this much."""


class FileSignature(NamedTuple):
    """What tells one content of a file from another without reading it."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int


class FileSource:
    """A file as an Origin; `name` is the source's in errors. The validator is the file's FileSignature."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path

    @property
    def place(self) -> str:
        return str(self.path)

    @asynccontextmanager
    async def open(self, previous: Hashable | None = None) -> AsyncIterator[Body | None]:
        """See Origin. Raises SourceUnreadable: no such file, no permission, not a regular file, changing."""
        try:
            descriptor = await in_thread(open_regular, self.path)
        except OSError as error:
            raise self._unreadable(error) from None
        try:
            signature = _signature(os.fstat(descriptor))
            yield None if signature == previous else Body(self._chunks(descriptor, signature), signature)
        finally:
            os.close(descriptor)

    async def _chunks(self, descriptor: int, signature: FileSignature) -> AsyncGenerator[bytes, None]:
        try:
            while chunk := await in_thread(os.read, descriptor, CHUNK_BYTES):
                yield chunk
        except OSError as error:
            raise self._unreadable(error) from None
        status = os.fstat(descriptor)  # not the ctime: a rename over the file changes it, and harms nothing
        if (status.st_size, status.st_mtime_ns) != (signature.size_bytes, signature.modified_ns):
            raise SourceUnreadable(self.name, f"{self.path}: changed while it was being read")

    def _unreadable(self, error: OSError) -> SourceUnreadable:
        return SourceUnreadable(self.name, f"{self.path}: {error.strerror}")


def signature_of(path: Path) -> FileSignature | None:
    """The signature of what `path` leads to, symlinks followed; None if there is nothing to be read."""
    try:
        return _signature(path.stat())
    except OSError:
        return None


async def watch_file(
    path: Path, debounce_ms: int = 50, recheck_s: float = 5.0
) -> AsyncGenerator[FileSignature | None, None]:
    """Yields what `path` leads to, at once and whenever it is another content than before; None: nothing.

    The directories of the path and of where its symlinks lead are watched, so renames over it, its creation
    and removal, and swapped symlinks are noticed at once. What no event tells (the directory itself appearing
    or being replaced, network file systems, no inotify watch left) is noticed after `recheck_s`.
    """
    seen = await asyncio.to_thread(signature_of, path)
    yield seen
    while True:
        directories = await asyncio.to_thread(_directories, path)
        async with aclosing(_wakes(directories, debounce_ms, recheck_s)) as wakes:
            async for _ in wakes:
                signature = await asyncio.to_thread(signature_of, path)
                if signature != seen:
                    seen = signature
                    yield signature
                if await asyncio.to_thread(_directories, path) != directories:
                    break


async def _wakes(directories: dict[str, int], debounce_ms: int, recheck_s: float) -> AsyncGenerator[None, None]:
    """Yields at every event in the directories, and at least every `recheck_s`."""
    try:
        if directories:
            events = _watch(directories, debounce_ms, recheck_s)
            async with aclosing(events):
                async for _ in events:
                    yield
    except (OSError, RuntimeError):  # a directory went away, or the host has no inotify watch left
        pass
    await asyncio.sleep(recheck_s)
    yield


def _watch(directories: Iterable[str], debounce_ms: int, recheck_s: float) -> AsyncGenerator[set[FileChange], None]:
    """Yields at every event in the directories, and at least every `recheck_s`."""
    return awatch(
        *directories,
        watch_filter=None,
        debounce=debounce_ms,
        step=min(debounce_ms, 10),
        rust_timeout=max(1, int(recheck_s * 1000)),
        yield_on_timeout=True,
        recursive=False,
    )


def _directories(path: Path) -> dict[str, int]:
    """The directories, with their inodes, in which an event may change what `path` leads to."""
    found = {}
    for directory in (os.path.abspath(path.parent), os.path.dirname(os.path.realpath(path))):
        with suppress(OSError):
            found[directory] = os.stat(directory).st_ino
    return found


def _signature(status: os.stat_result) -> FileSignature:
    return FileSignature(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


# -- local overrides ---------------------------------------------------------------------------------------

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
        async with aclosing(_wakes_of_directory(self._directory, debounce_ms, recheck_s)) as wakes:
            while True:
                last = self._last
                if await self.read() != last:
                    assert self._last is not None
                    await deliver(self._last)
                await anext(wakes)

    def _read(self) -> OverridesReading:
        faults: list[str] = []
        try:
            names = [path.name for path in _override_files(self._directory)]
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


def paths_of_overrides(directory: Path) -> list[Path]:
    """The files of a directory that count, in their order; none where it cannot be listed."""
    try:
        return _override_files(directory)
    except OSError:
        return []


def _override_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if _is_overrides(path))


def _is_overrides(path: Path) -> bool:
    """Not what editors leave beside a file."""
    return path.suffix.lower() in (".yaml", ".yml") and not path.name.startswith(".")


async def _wakes_of_directory(directory: Path, debounce_ms: int, recheck_s: float) -> AsyncGenerator[None, None]:
    """Yields at every event in the directory, and at least every `recheck_s`; also while it is not there."""
    while True:
        try:
            events = _watch([str(directory)], debounce_ms, recheck_s)
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
