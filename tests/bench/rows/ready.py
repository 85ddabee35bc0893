"""From the start of the daemon to everything in the kernel, read back, and armed in mode reject.

Of the registrations' own prefixes an interval set takes few: most of a million lie under another, and overlaps are
refused. nft is given as many prefixes as there are registrations, of the same lengths, none within another;
gatewayd has more elements than that to put: IPv6, far ends, services.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from tests.bench.clock import run_command
from tests.bench.daemon import BenchDaemon, HealthWatch, fed_daemon
from tests.bench.material import disjoint_prefixes, nft_set
from tests.bench.row import Context, Figures, Measure, Row, Subject, check

CALM_S = 5.0
"""After it is ready; what it holds then is what it holds from day to day."""


def gatewayd(context: Context) -> Figures:
    """Nothing on disk: fetched, verified, parsed, indexed, compiled, committed and read back."""
    with fed_daemon(context, customer_prefixes=()) as daemon:
        return _measure(daemon, context.size)


def gatewayd_last_good(context: Context) -> Figures:
    """The last good on disk, nothing in the kernel: after a reboot."""
    with fed_daemon(context, customer_prefixes=()) as daemon:
        _lay_last_good(daemon, context)
        return _measure(daemon, context.size)


def gatewayd_restart(context: Context) -> Figures:
    """The last good on disk, and the kernel as the daemon before left it."""
    with fed_daemon(context, customer_prefixes=()) as daemon:
        _lay_last_good(daemon, context)
        daemon.start_ready()
        daemon.end()
        return _measure(daemon, context.size)


def _measure(daemon: BenchDaemon, size: int) -> Figures:
    with HealthWatch(daemon.lab) as health:
        took_s = daemon.start_ready()
    cpu_s, peak_mb = daemon.cpu_s(), daemon.memory_mb()["VmHWM"]
    lag_s = daemon.longest_lag_s()
    time.sleep(CALM_S)
    status = daemon.status()
    check(status["registrations"]["total"] == size, f"{status['registrations']['total']} registrations")
    rss_mb = daemon.memory_mb()["VmRSS"]
    return {
        "s": took_s,
        "cpu_s": cpu_s,
        "peak_mb": peak_mb,
        "rss_mb": rss_mb,
        "lag_s": lag_s,
        **health.figures(),
    }


def _lay_last_good(daemon: BenchDaemon, context: Context) -> None:
    """As a daemon of before has left it, made once."""
    kept = context.material / f"last-good-{context.size}"
    if not kept.exists():
        daemon.start_ready()
        daemon.wait_saved()
        daemon.end()
        daemon.lab.gateway.run(["nft", "flush", "ruleset"])
        fresh = kept.with_suffix(".new")
        shutil.copytree(daemon.state_path, fresh)
        fresh.rename(kept)
        shutil.rmtree(daemon.state_path)
    shutil.copytree(kept, daemon.state_path)


def nft_interval(context: Context) -> Figures:
    """N prefixes as one interval set, the usual way to write an allowlist."""
    return _load(context, nft_set("clients", "flags interval", prefix_texts(context.size)))


def nft_hashes(context: Context) -> Figures:
    """The same as a hash set for each length."""
    return _load(context, "".join(hash_sets(prefix_texts(context.size))))


def prefix_texts(count: int) -> list[str]:
    return [str(each) for each in disjoint_prefixes(count)]


def hash_sets(prefixes: list[str]) -> Iterator[str]:
    """A ruleset of one hash set for each prefix length."""
    pairs = sorted((each.partition("/")[2], each.partition("/")[0]) for each in prefixes)
    for length, group in groupby(pairs, key=lambda pair: pair[0]):
        addresses = [address for _, address in group]
        yield nft_set(f"clients_{length}", f"size {len(addresses)}", addresses)


def _load(context: Context, script: str) -> Figures:
    path: Path = context.scratch / "sets.nft"
    path.write_text(script)
    ran = run_command(["nft", "-f", str(path)])
    return {"s": ran.took_s, "peak_mb": ran.peak_mb}


LAST_GOOD = "gatewayd, last good on disk"
INTERVAL = "nft -f, interval set"

READY = Row(
    "ready",
    "start to N registrations in the kernel, read back, armed",
    (
        Measure("s", "s", "ready"),
        Measure("cpu_s", "s", "processor time"),
        Measure("peak_mb", "MB", "peak memory"),
        Measure("rss_mb", "MB", "5 s later"),
        Measure("lag_s", "s", "longest stall"),
        Measure("health_p99_s", "s", "/healthz p99"),
        Measure("health_max_s", "s", "/healthz slowest"),
    ),
    (
        Subject("gatewayd", gatewayd),
        Subject(LAST_GOOD, gatewayd_last_good),
        Subject("gatewayd, restart, kernel filled", gatewayd_restart),
        Subject(INTERVAL, nft_interval, needs="nft"),
        Subject("nft -f, hash set per length", nft_hashes, needs="nft"),
    ),
    max_runs=3,
)
