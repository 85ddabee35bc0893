"""A plain source: a file or URL of NDJSON or CSV, read whole; and the right runner for a configured source."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from contextlib import aclosing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gatewayd.errors import SourceFailed, SourceUnusable
from gatewayd.feed.files import SLICE_BYTES
from gatewayd.feed.reading import Format, ReadLimits, RecordReader, format_of, reader_for
from gatewayd.model import Registration
from gatewayd.settings import RegistrySettings, SourceSettings
from gatewayd.sources.client_plan import back_off_s
from gatewayd.sources.fetch import FetchLimits, HttpSource, Session
from gatewayd.sources.files import FileSource, watch_file
from gatewayd.sources.last_good import Restored
from gatewayd.sources.runner import FeedRunner, Runner, Tools
from gatewayd.sources.update import Body, Deliver, Origin, SourceUpdate


class SourceRunner(Runner):
    """Reads one source: at the start, every `refresh_s`, when its file changes, and when asked to.

    After a failure it tries again after `retry_s`, doubled each time up to `refresh_s`. `previous`: the
    registrations of an earlier run (the last good); they make an empty answer an error too.
    """

    def __init__(
        self,
        source: SourceSettings,
        registry: RegistrySettings,
        tools: Tools,
        deliver: Deliver,
        previous: Mapping[str, Registration] | None = None,
    ) -> None:
        super().__init__(source.name, tools, deliver)
        self._origin = open_origin(source, tools.session)
        self._source = source
        self._limits = ReadLimits(max_bytes=source.max_bytes)
        self._refresh_s = registry.refresh_s
        self._retry_s = registry.retry_s
        self._registrations: Mapping[str, Registration] = previous or {}
        self._validator: Hashable | None = None

    @property
    def place(self) -> str:
        return self._origin.place

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            if isinstance(self._origin, FileSource):
                group.create_task(self._watch(self._origin.path))
            await super().run()

    async def _watch(self, path: Path) -> None:
        async with aclosing(watch_file(path)) as changes:
            async for signature in changes:
                if signature != self._validator:
                    self.request_now()

    def _wait_s(self) -> float:
        if not self.failures:
            return self._refresh_s
        return back_off_s(self.failures, self._retry_s, max(self._refresh_s, self._retry_s))

    async def _ask(self) -> SourceUpdate:
        try:
            async with self._origin.open(self._validator) as body:
                if body is None:
                    return SourceUpdate(self.name, self._tools.clock())
                reader = await self._read_records(body)
            self._check_usable(reader)
        except SourceFailed as error:
            return SourceUpdate(self.name, self._tools.clock(), error)
        self._registrations, self._validator = reader.registrations, body.validator
        return SourceUpdate(
            self.name,
            self._tools.clock(),
            registrations=reader.registrations,
            rejected=dict(reader.rejected),
            rejections=tuple(reader.rejections),
            retained=reader.retained,
        )

    async def _read_records(self, body: Body) -> RecordReader:
        """All records of a body, the event loop turning after every slice."""
        reader: RecordReader | None = None
        async with aclosing(body.chunks) as chunks:
            async for chunk in chunks:
                if reader is None:
                    reader = self._reader(format_of(self.place, body.content_type, chunk))
                for start in range(0, len(chunk), SLICE_BYTES):
                    reader.feed(chunk[start : start + SLICE_BYTES])
                    await asyncio.sleep(0)
        if reader is None:
            reader = self._reader("ndjson")
        reader.finish()
        return reader

    def _reader(self, found: Format) -> RecordReader:
        format = found if self._source.format == "auto" else self._source.format
        allows = self._source.allow_endpoints
        return reader_for(format, self.name, self._limits, self._registrations, allows_endpoints=allows)

    def _check_usable(self, reader: RecordReader) -> None:
        """An empty allowlist never comes about by accident. Raises SourceUnusable."""
        if reader.registrations:
            return
        if reader.rejections:
            first = reader.rejections[0]
            raise SourceUnusable(
                self.name, f"{self.place}: none of its {reader.records} records is usable; line {first}"
            )
        if self._registrations:
            raise SourceUnusable(
                self.name, f"{self.place}: is empty and had {len(self._registrations)} registrations before"
            )
        if not self._source.allow_empty:
            raise SourceUnusable(self.name, f"{self.place}: is empty; `allow_empty: true` says that it may be")


def open_origin(source: SourceSettings, session: Session | None) -> Origin:
    """The origin a source's URL stands for: `file:PATH`, `http://…`, `https://…`. ValueError for another."""
    parts = urlsplit(source.url)
    if parts.scheme == "file":
        return FileSource(source.name, Path(unquote(parts.path)))
    if parts.scheme in ("http", "https") and session is not None:
        limits = FetchLimits(max_bytes=source.max_bytes)
        return HttpSource(source.name, source.url, session, limits, proxy=source.proxy, ca_file=source.ca_file)
    raise ValueError(f"source {source.name}: {parts.scheme or 'no'} URL, or no session for it")


def make_runner(
    source: SourceSettings,
    registry: RegistrySettings,
    tools: Tools,
    deliver: Deliver,
    restored: Restored | None = None,
) -> Runner:
    """The runner of a configured source. `restored`: its last good, to go on from."""
    if source.is_signed:
        return FeedRunner(source, registry, tools, deliver, restored)
    return SourceRunner(source, registry, tools, deliver, None if restored is None else restored.registrations)
