"""Every good answer ends a failure, whatever kind of source gave it and though it has nothing new to say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gatewayd.settings.model import SourceSettings
from tests.support.bad_input import MAX_BYTES, published_register
from tests.support.bad_registry import Special, bad_registry
from tests.support.fed_gateway import SOURCE, HostClock, Place, fed_gateway
from tests.support.feeds import KEY


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    clock = HostClock()
    with bad_registry(published_register(clock()), clock) as registry:
        lines = [json.dumps(record) for record in registry.publisher.records.values()]
        registry.publisher.files["plain.ndjson"] = "\n".join([*lines, ""]).encode()
        yield Place(tmp_path / "state", registry, clock)


Switch = Callable[[], object]


def signed(place: Place, tmp_path: Path) -> tuple[SourceSettings, Switch, Switch]:
    key = tmp_path / "national.pub"
    key.write_text(KEY.public_text())
    source = SourceSettings(SOURCE, place.registry.url, (str(key),), max_bytes=MAX_BYTES)
    return source, place.registry.go_away, place.registry.come_back


def keyless(place: Place, tmp_path: Path) -> tuple[SourceSettings, Switch, Switch]:
    """The key file is gone for a while."""
    source, _, _ = signed(place, tmp_path)
    key, aside = tmp_path / "national.pub", tmp_path / "aside"
    return source, lambda: key.rename(aside), lambda: aside.rename(key)


def plain(place: Place, _: Path) -> tuple[SourceSettings, Switch, Switch]:
    url = place.registry.url.replace("notification.jws", "plain.ndjson")
    source = SourceSettings(SOURCE, url, allow_unsigned=True, max_bytes=MAX_BYTES)
    return source, place.registry.go_away, place.registry.come_back


def busy(place: Place, tmp_path: Path) -> tuple[SourceSettings, Switch, Switch]:
    """It answers 503 for a while."""
    source, _, _ = plain(place, tmp_path)
    special = place.registry.special
    return source, lambda: special.update(plain=Special(503, b"busy", "text/plain")), special.clear


def file(place: Place, tmp_path: Path) -> tuple[SourceSettings, Switch, Switch]:
    """A symlink that leads nowhere for a while, and then to the same file again."""
    path, link = tmp_path / "real.ndjson", tmp_path / "plain.ndjson"
    path.write_bytes(place.registry.publisher.files["plain.ndjson"])
    link.symlink_to(path)
    source = SourceSettings(SOURCE, f"file:{link}", allow_unsigned=True, max_bytes=MAX_BYTES)
    return source, link.unlink, lambda: link.symlink_to(path)


@pytest.mark.parametrize("is_restarted", [False, True], ids=["one life", "a restart"])
@pytest.mark.parametrize("kind", [signed, keyless, plain, busy, file])
async def test_a_failure_ends_with_the_next_good_answer(
    kind: Callable[[Place, Path], tuple[SourceSettings, Switch, Switch]],
    is_restarted: bool,
    place: Place,
    tmp_path: Path,
) -> None:
    source, fail, mend = kind(place, tmp_path)
    if is_restarted:
        async with fed_gateway(place, source) as it:
            await it.attempt()
    async with fed_gateway(place, source) as it:
        if not is_restarted:
            await it.attempt()
        before = it.in_force()
        for _ in range(2):
            fail()
            await it.attempt()
            assert it.facts.error is not None
            mend()
            began_s = it.clock()
            await it.attempt()
            assert it.facts.error is None
            assert it.runner.failures == 0
            assert it.facts.confirmed_at >= began_s
        it.check_in_force(before)
