"""The numbers of "Sizing" in docs/operations.md are those of the benchmark."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_memory_and_start_are_as_they_were_measured() -> None:
    section = (ROOT / "docs/operations.md").read_text().partition("\n## Sizing\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+ [kM]) \| ([\d.]+ MB) \| ([\d.]+ m?s) \|$", section, re.MULTILINE)
    assert [size for size, _, _ in rows] == ["1 k", "31 k", "100 k", "1 M"]
    measured = (ROOT / "docs/bench/bench.md").read_text()
    for size, memory, start in rows:
        found = re.search(rf"^\| {size} \| gatewayd \| ([^|]+) \| [^|]+ \| ([^|]+) \|", measured, re.MULTILINE)
        assert found
        assert (found[2].strip(), found[1].strip()) == (memory, start)
