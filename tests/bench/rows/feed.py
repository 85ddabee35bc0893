"""The feed: a whole snapshot, and one record changed, from the wire to registrations in memory."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import uvloop

from gatewayd.settings import RegistrySettings, SourceSettings
from gatewayd.sources.fetch import open_session
from gatewayd.sources.runner import FeedRunner, Tools
from tests.bench.clock import Stopwatch, peak_mb, percentile
from tests.bench.registry import Registry, served
from tests.bench.row import Context, Figures, Measure, Row, Subject, check
from tests.support.feeds import fields_of

DELTAS = 200
TICK_S = 0.001


async def _watch_stalls(stalls: list[float]) -> None:
    """How late the loop comes back to something that asks for a millisecond's sleep."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(TICK_S)
        stalls.append(time.perf_counter() - before - TICK_S)


async def _with_runner(registry: Registry, use: Callable[[FeedRunner, list[Any]], Any]) -> Any:
    got: list[Any] = []

    async def deliver(result: Any) -> None:
        got.append(result)

    async with open_session() as session:
        source = SourceSettings("national", registry.url, keys=(str(registry.key_file),))
        runner = FeedRunner(source, RegistrySettings((source,)), Tools(session), deliver)
        return await use(runner, got)


def gatewayd_snapshot(context: Context) -> Figures:
    """Fetched, its signature and hash verified, every record checked, indexed by id."""

    async def use(runner: FeedRunner, got: list[Any]) -> Figures:
        stalls: list[float] = []
        watcher = asyncio.create_task(_watch_stalls(stalls))
        await asyncio.sleep(0)
        watch = Stopwatch()
        await runner.attempt()
        took_s = watch.lap()
        watcher.cancel()
        check(len(got[0].registrations) == context.size, f"{len(got[0].registrations)} registrations")
        return {"s": took_s, "stall_s": percentile(stalls, 0.99), "rss_mb": peak_mb()}

    with served(Registry(context.material, context.scratch, context.size)) as registry:
        figures: Figures = uvloop.run(_with_runner(registry, use))
    return figures


def script_snapshot(context: Context) -> Figures:
    """What a script in cron does: gunzip, json, ipaddress; nothing verified."""
    with served(Registry(context.material, context.scratch, context.size)) as registry:
        snapshot = next(registry.directory.glob("*/snapshot-1.gz")).relative_to(registry.directory)
        watch = Stopwatch()
        with urllib.request.urlopen(registry.url.replace("notification.jws", str(snapshot))) as answer:
            lines = gzip.decompress(answer.read()).splitlines()
        records = {}
        for line in lines:
            record = json.loads(line)
            record["clients"] = [ipaddress.ip_network(each) for each in record["clients"]]
            record["peers"] = [ipaddress.ip_network(each) for each in record["peers"]]
            records[record["id"]] = record
        took_s = watch.lap()
        check(len(records) == context.size, f"{len(records)} records")
        return {"s": took_s, "rss_mb": peak_mb()}


def gatewayd_delta(context: Context) -> Figures:
    """A delta of one record among N held: asked for, verified, applied."""

    async def use(runner: FeedRunner, got: list[Any]) -> Figures:
        await runner.attempt()
        took_s = []
        for number in range(DELTAS):
            client = f"100.64.{number // 250}.{number % 250}/32"
            serial = registry.publish({"op": "upsert", "registration": fields_of(f"BENCH-{number}", client)})
            watch = Stopwatch()
            await runner.attempt()
            took_s.append(watch.lap())
            check(got[-1].position.serial == serial, f"serial {got[-1].position.serial}, not {serial}")
        return {"p50_s": percentile(took_s, 0.5), "p99_s": percentile(took_s, 0.99)}

    with served(Registry(context.material, context.scratch, context.size)) as registry:
        figures: Figures = uvloop.run(_with_runner(registry, use))
    return figures


def script_delta(context: Context) -> Figures:
    """Without deltas, one record changed is the whole list read again."""
    took_s = script_snapshot(context)["s"]
    return {"p50_s": took_s, "p99_s": took_s}


SCRIPT = "script: urllib, gzip, json, ipaddress"

SNAPSHOT = Row(
    "snapshot",
    "snapshot of N fetched, verified, parsed",
    (
        Measure("s", "s", "wire to registrations"),
        Measure("stall_s", "s", "loop stall p99"),
        Measure("rss_mb", "MB", "peak memory"),
    ),
    (Subject("gatewayd", gatewayd_snapshot), Subject(SCRIPT, script_snapshot)),
)
DELTA = Row(
    "delta",
    "one record changed among N, wire to registrations",
    (Measure("p50_s", "s", "p50"), Measure("p99_s", "s", "p99")),
    (Subject("gatewayd", gatewayd_delta), Subject(f"{SCRIPT}, whole", script_delta)),
    max_runs=3,
)
