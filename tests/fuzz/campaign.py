"""Hours of fuzzing in several processes, guided by coverage: `./run soak --fuzz HOURS`."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz.coverage import ArcRecorder
from tests.fuzz.mutating import Mutator
from tests.fuzz.target import Finding, Target, bounded_memory
from tests.fuzz.targets import TARGETS

SLICE_S = 60.0
"""A process stays with a target for so long."""
TRACED_EVERY = 4
"""One input of so many runs with its lines recorded, which takes ten times as long."""
MAX_KEPT_BYTES = 4096
"""A longer input may reach something new, and is not kept: each of its children would be as long."""


@dataclass(slots=True)
class Harvest:
    """What came of a slice. `kept`: inputs that reached new arcs; `findings`: the shortest of each kind."""

    target: str
    executed: int = 0
    kept: list[bytes] = field(default_factory=list)
    findings: dict[str, bytes] = field(default_factory=dict)

    def note(self, found: Finding | None) -> None:
        if found is not None:
            before = self.findings.get(found.why)
            if before is None or len(found.raw) < len(before):
                self.findings[found.why] = found.raw


def run_slice(name: str, seed: int, seconds: float, inputs: Path) -> Harvest:
    """One target for a while. Blocks; a process of its own, whose memory is bounded."""
    # Not `disable`: what a server logs of an error of its own is a finding.
    logging.getLogger().setLevel(logging.CRITICAL + 1)
    target, random = TARGETS[name], Random(seed)
    harvest, recorder = Harvest(name), ArcRecorder()
    with bounded_memory():
        corpus = target.corpus(inputs)
        for raw in corpus:
            recorder.record(partial(_execute, target, raw, harvest))
        mutator = Mutator(random, corpus, target.words)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            raw = mutator.mutate(random.choice(corpus))
            if harvest.executed % TRACED_EVERY:
                _execute(target, raw, harvest)
            elif recorder.record(partial(_execute, target, raw, harvest)) and len(raw) <= MAX_KEPT_BYTES:
                corpus.append(raw)
                harvest.kept.append(raw)
    for why, raw in harvest.findings.items():
        harvest.findings[why] = shortened(target, raw, why)
    return harvest


def _execute(target: Target, raw: bytes, harvest: Harvest) -> None:
    harvest.executed += 1
    harvest.note(target.execute(raw))


def shortened(target: Target, raw: bytes, why: str, tries: int = 2000) -> bytes:
    """An input that breaks the same rule, without parts that it can do without."""
    size = len(raw) // 2
    while size >= 1 and tries > 0:
        at = 0
        while at < len(raw) and tries > 0:
            tries -= 1
            less = raw[:at] + raw[at + size :]
            found = target.execute(less)
            if found is not None and found.why == why:
                raw = less
            else:
                at += size
        size //= 2
    return raw


def run_campaign(
    hours: float, inputs: Path, processes: int, say: Callable[[str], None]
) -> tuple[Counter[str], int]:
    """Executions by target, and how many findings. New inputs and findings go to `inputs`, by target."""
    executed: Counter[str] = Counter()
    found: set[tuple[str, str]] = set()
    end, seed = time.monotonic() + hours * 3600, int.from_bytes(os.urandom(4), "big")
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        while (left_s := end - time.monotonic()) > 0:
            seconds = min(SLICE_S, max(1.0, left_s * processes / len(TARGETS)))
            seeds = range(seed, seed := seed + len(TARGETS))
            some = pool.map(run_slice, TARGETS, seeds, [seconds] * len(TARGETS), [inputs] * len(TARGETS))
            for harvest in some:
                executed[harvest.target] += harvest.executed
                _save(inputs / harvest.target, harvest.kept)
                for why, raw in harvest.findings.items():
                    if (harvest.target, why) not in found:
                        found.add((harvest.target, why))
                        (path,) = _save(inputs / "findings" / harvest.target, [raw])
                        say(f"{harvest.target}: {why}: {path}")
    return executed, len(found)


def _save(directory: Path, some: Sequence[bytes]) -> list[Path]:
    """Each under its digest."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / hashlib.sha256(raw).hexdigest()[:16] for raw in some]
    for path, raw in zip(paths, some, strict=True):
        path.write_bytes(raw)
    return paths
