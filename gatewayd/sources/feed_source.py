"""A signed feed: the thin shell around `client.FeedClient`.

It opens URLs, reads key files, feeds bytes in slices and waits; what an answer means is decided by the client.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import aiohttp
from yarl import URL

from gatewayd.errors import FeedFailed, FeedRefused, KeysUnusable, TransferFailed
from gatewayd.settings import RegistrySettings, SourceSettings
from gatewayd.sources.client import FeedClient, Outcome
from gatewayd.sources.client_plan import FeedIntervals, FeedLimits, FeedRequest
from gatewayd.sources.fetch import CHUNK_BYTES, FAILURES, FetchLimits, Route, describe_failure, read_keys, shown_url
from gatewayd.sources.last_good import Restored
from gatewayd.sources.runner import Runner, SourceRunner, Tools, run_in_slices
from gatewayd.sources.update import Deliver, FeedPosition, SourceUpdate


class FeedRunner(Runner):
    """Reads one signed feed: at the start, every `refresh_s`, and when asked to; the feed's own values win.

    The files of public keys are read anew at every attempt. `restored`: the last good of an earlier run.
    """

    def __init__(
        self,
        source: SourceSettings,
        registry: RegistrySettings,
        tools: Tools,
        deliver: Deliver,
        restored: Restored | None = None,
        fetch_limits: FetchLimits | None = None,
    ) -> None:
        super().__init__(source.name, tools, deliver)
        if tools.session is None:
            raise ValueError(f"source {source.name}: no session for its URL")
        self._url = URL(source.url)
        self._key_files = [Path(path) for path in source.keys]
        self._asked_at: float | None = None
        """When the latest question was put that had an answer, by the event loop's clock."""
        limits = fetch_limits or FetchLimits(max_bytes=source.max_bytes)
        self._route = Route(tools.session, limits.timeout(), proxy=source.proxy, ca_file=source.ca_file)
        known = restored or Restored({})
        self.client = FeedClient(
            source.name,
            source.url,
            {},
            limits=FeedLimits(max_bytes=source.max_bytes),
            intervals=FeedIntervals(registry.refresh_s, registry.retry_s, registry.expire_s),
            position=known.position if known.position is not None and known.position.session else None,
            registrations=known.registrations,
        )

    @property
    def place(self) -> str:
        return shown_url(self._url)

    def _wait_s(self) -> float:
        return self.client.wait_s()

    async def _ask(self) -> SourceUpdate:
        before, asked_at = self.client.position, asyncio.get_running_loop().time()
        outcome = await self._read()
        self._witness(outcome, before, asked_at)
        now = self._tools.clock()
        if isinstance(outcome, FeedRefused):
            return SourceUpdate(self.name, now, FeedFailed(self.name, self.place, outcome))
        return replace(outcome, at_s=now)

    def _witness(self, outcome: Outcome, before: FeedPosition | None, asked_at: float) -> None:
        """A notification that was not there at the last question came out since."""
        is_refused, time = isinstance(outcome, FeedRefused), self._tools.time
        last_asked_at, self._asked_at = self._asked_at, None if is_refused else asked_at
        position, stale_after = self.client.position, self.client.stale_after
        if time is None or is_refused or position is None or stale_after is None:
            return
        since_s = None
        if last_asked_at is not None and before is not None and position.issued_at > before.issued_at:
            since_s = asyncio.get_running_loop().time() - last_asked_at
        time.witness(position.issued_at, stale_after - position.issued_at, since_s)

    def _moment(self) -> float:
        return self._tools.clock() if self._tools.time is None else self._tools.time.feed_moment()

    # -- reading -------------------------------------------------------------------------------------------

    async def _read(self) -> Outcome:
        client = self.client
        client.begin()
        try:
            client.use_keys(await asyncio.to_thread(read_keys, self._key_files))
        except KeysUnusable as error:
            client.on_failure(error)
        while (request := client.next_request()) is not None:
            await self._get(request)
        if client.outcome is None:
            raise RuntimeError("the feed has neither a request nor an outcome")
        return client.outcome

    async def _get(self, request: FeedRequest) -> None:
        """One GET, its body fed to the client."""
        try:
            async with await self._route.get(URL(request.url, encoded=True), request.headers) as response:
                headers = {name.lower(): value for name, value in response.headers.items()}
                self.client.on_response(response.status, headers, self._moment())
                if self.client.is_reading:
                    await self._read_body(response)
                if not response.content.is_eof():
                    response.close()
        except FAILURES as error:
            self.client.on_failure(TransferFailed(str(request), describe_failure(error)))

    async def _read_body(self, response: aiohttp.ClientResponse) -> None:
        """The loop turns after every slice; whatever of the body is not wanted any more is not read."""
        client = self.client
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            await run_in_slices(client.on_chunk(chunk))
            if not client.is_reading:
                return
        await run_in_slices(client.on_end(self._moment()))


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
