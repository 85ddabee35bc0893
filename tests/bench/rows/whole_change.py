"""One registration changed among N in the whole daemon: from its delta published to its element in the kernel."""

from __future__ import annotations

import time

from gatewayd.demo.cast import FAR
from gatewayd.lab.traffic import flow_of
from tests.bench.clock import Stopwatch, percentile, run_command
from tests.bench.commits import CommitWatch
from tests.bench.daemon import fed_daemon
from tests.bench.row import Context, Figures, Measure, Row, Subject, check
from tests.bench.rows.feed import SCRIPT, script_snapshot
from tests.bench.rows.ready import hash_sets, prefix_texts
from tests.support.feeds import fields_of

CHANGES = 200


def gatewayd(context: Context) -> Figures:
    """Published; the daemon is told to look; the kernel says when it has it, the daemon when it knows that."""
    committed_s, answered_s = [], []
    with fed_daemon(context, customer_prefixes=()) as daemon:
        daemon.start_ready()
        daemon.wait_saved()
        cpu_s = daemon.cpu_s()
        with CommitWatch(daemon.lab.gateway) as commits:
            for number in range(CHANGES):
                client = f"100.64.{number // 250}.{number % 250}"
                fields = fields_of(f"BENCH-{number}", f"{client}/32", services=["wireguard"])
                serial = daemon.registry.publish({"op": "upsert", "registration": fields})
                commits.forget()
                began = time.perf_counter()
                answer = daemon.sync()
                answered_s.append(time.perf_counter() - began)
                committed_s.append(commits.added_at() - began)
                check(not answer["errors"], str(answer["errors"]))
                explained = daemon.explain(flow_of(client, FAR, "udp/51820"))
                check(explained["in_kernel"] is True, f"serial {serial}: {explained}")
        cpu_s = daemon.cpu_s() - cpu_s
    return {
        "p50_s": percentile(committed_s, 0.5),
        "p99_s": percentile(committed_s, 0.99),
        "answer_p50_s": percentile(answered_s, 0.5),
        "answer_p99_s": percentile(answered_s, 0.99),
        "cpu_s": cpu_s / CHANGES,
    }


def script(context: Context) -> Figures:
    """Without deltas: the whole list read again, the whole set loaded again, in the place of the old one."""
    prefixes = prefix_texts(context.size)
    path = context.scratch / "sets.nft"
    path.write_text("".join(hash_sets(prefixes)))
    run_command(["nft", "-f", str(path)])
    took_s = script_snapshot(context)["s"]
    watch = Stopwatch()
    path.write_text("".join(["table inet bench\ndelete table inet bench\n", *hash_sets(prefixes)]))
    run_command(["nft", "-f", str(path)])
    took_s += watch.lap()
    return {"p50_s": took_s, "p99_s": took_s}


CHANGE_WHOLE = Row(
    "change_whole",
    "one registration changed among N, delta published to in the kernel, whole daemon",
    (
        Measure("p50_s", "s", "committed p50"),
        Measure("p99_s", "s", "committed p99"),
        Measure("answer_p50_s", "s", "sync answered p50"),
        Measure("answer_p99_s", "s", "sync answered p99"),
        Measure("cpu_s", "s", "processor time each"),
    ),
    (Subject("gatewayd", gatewayd), Subject(f"{SCRIPT}, nft -f", script, needs="nft")),
    max_runs=2,
)
