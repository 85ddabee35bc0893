"""A live process that talks to nf_tables through libnftables with commands in JSON, as firewalld does. Run with
Debian's Python, which python3-nftables is for; nothing of gatewayd is imported.

    fill FLAGS FILE FIGURES              make the set and add a line of FILE an element, 1000 a command
    change COUNT BUDGET_S SET FILE FIGURES
                                         one element of FILE added and removed again, each a command, COUNT times
                                         or as often as BUDGET_S allows

Table `inet bench`. FIGURES is written with what it took, measured from when libnftables is loaded and FILE read.
firewalld: src/firewall/core/nftables.py, set_restore and build_set_add_rules.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nftables

FAMILY, TABLE = "inet", "bench"
CHUNK = 1000
LEAST = 5


class Client:
    def __init__(self) -> None:
        self._nft = nftables.Nftables()

    def run(self, *commands: dict[str, Any]) -> None:
        """One transaction. Raises RuntimeError."""
        payload = {"nftables": [{"metainfo": {"json_schema_version": 1}}, *commands]}
        code, _, error = self._nft.json_cmd(payload)
        if code != 0:
            raise RuntimeError(error.strip().splitlines()[0] if error.strip() else f"libnftables says {code}")


def element(line: str) -> Any:
    address, slash, length = line.partition("/")
    return {"prefix": {"addr": address, "len": int(length)}} if slash else address


def elements(word: str, set_name: str, lines: list[str]) -> dict[str, Any]:
    body = {"family": FAMILY, "table": TABLE, "name": set_name, "elem": [element(line) for line in lines]}
    return {word: {"element": body}}


def fill(flags: str, file: str, figures: str) -> None:
    """FLAGS: `interval`, or `size=N` for a hash set with room for N."""
    lines = Path(file).read_text().split()
    shape: dict[str, Any] = {"family": FAMILY, "table": TABLE, "name": "hosts", "type": "ipv4_addr"}
    if flags == "interval":
        shape["flags"] = ["interval"]
    else:
        shape["size"] = int(flags.removeprefix("size="))
    client = Client()
    client.run({"add": {"table": {"family": FAMILY, "name": TABLE}}}, {"add": {"set": shape}})
    started = time.perf_counter()
    for start in range(0, len(lines), CHUNK):
        client.run(elements("add", "hosts", lines[start : start + CHUNK]))
    write(figures, {"took_s": time.perf_counter() - started, "peak_mb": peak_mb()})


def change(count: str, budget_s: str, set_name: str, file: str, figures: str) -> None:
    lines = Path(file).read_text().split()
    client = Client()
    added: list[float] = []
    removed: list[float] = []
    ends_at = time.monotonic() + float(budget_s)
    for number, line in enumerate(lines[: int(count)]):
        if number >= LEAST and time.monotonic() > ends_at:
            break
        for word, took_s in (("add", added), ("delete", removed)):
            started = time.perf_counter()
            client.run(elements(word, set_name, [line]))
            took_s.append(time.perf_counter() - started)
    write(figures, {"added": added, "removed": removed})


def peak_mb() -> float:
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def write(path: str, figures: dict[str, Any]) -> None:
    Path(path).write_text(json.dumps(figures))


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"fill": fill, "change": change}
    commands[sys.argv[1]](*sys.argv[2:])
