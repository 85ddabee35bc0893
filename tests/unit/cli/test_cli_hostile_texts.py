"""Texts of a stranger in files of the registry: they move no cursor, add no line, are no formula."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from gatewayd.cli import main
from gatewayd.demo.cast import BANK

HOSTILE: Final = (
    "\x1b[2J\x1b]0;owned\x07", "a\nOK: all records are usable", "a\r\x9b2K", "\u202eevil", "\x00", "\x7f\x08\x08",
    "=cmd|'/C calc'!A0", "+1+1", "@SUM(1)", "-1+cmd()", "<script>alert(1)</script>", "\u2028", "a\tb",
)  # fmt: skip
FIELDS: Final = ("id", "category", "status", "registrant", "subscriber", "valid_from", "valid_until", "msisdn")
FORMULA: Final = ("=", "+", "@", "\t", "\r")


def records() -> bytes:
    lines = [json.dumps({**BANK, "id": "GOOD", "clients": ["39.32.0.0/28"]})]
    for number, each in enumerate(HOSTILE):
        one = {**BANK, "id": f"H-{number}", "clients": [f"39.34.{number}.0/28"]}
        lines += [json.dumps({**one, field: each}, ensure_ascii=False).replace("\n", "\\n") for field in FIELDS]
        lines += [json.dumps({**one, field: [each]}) for field in ("clients", "peers", "services", "endpoints")]
        lines += [json.dumps({**one, each: each}), '{"id": "' + each.replace("\n", " ")]
    return "\n".join(lines).encode() + b"\n"


def rows() -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["id", "category", "status", "clients", "services", "registrant"])
    writer.writerow(["C-GOOD", "bank", "active", "39.33.0.0/28", "ipsec", "ACME"])
    for number, each in enumerate(HOSTILE):
        good = [f"C-{number}", "bank", "active", f"39.35.{number}.0/28", "ipsec", "ACME"]
        for at in range(len(good)):
            writer.writerow([*good[:at], each, *good[at + 1 :]])
    return out.getvalue().encode()


def is_plain(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize(("suffix", "content"), [(".ndjson", records()), (".csv", rows())], ids=["ndjson", "csv"])
@pytest.mark.parametrize("name", ["feed", "\x1b[2J\x9bfeed", "a\u202efeed"])
def test_a_hostile_file_moves_no_cursor_and_adds_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, content: bytes, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name += suffix
    Path(name).write_bytes(content)
    database = ["--database", "registry.db"]
    said = []
    for words in (
        ["check", name], ["import", name, "--dry-run", *database], ["import", name, *database],
        ["list", "--all", *database], ["history", *database], ["check", f"{name}.missing"],
        ["import", f"{name}.missing", *database],
        ["export", f"{name}.out.csv", *database], ["check", f"{name}.out.csv"],
        ["keygen", f"{name}.key", "--kid", "k"],
        ["keygen", f"{name}.key", "--kid", "k"],
        ["publish", "--key", f"{name}.key", "--directory", "feed", *database],
        ["publish", "--key", f"{name}.none", "--directory", "f", *database],
        ["list", "--database", f"{name}.none"], ["show", HOSTILE[0], *database], ["revoke", HOSTILE[1], *database],
    ):  # fmt: skip
        done = CliRunner().invoke(main, ["registry", *words])
        assert done.exception is None or isinstance(done.exception, SystemExit), words
        said.append((words[0], done.output))
    assert [(word, text[:300]) for word, text in said if not is_plain(text)] == []
    assert not [word for word, text in said if "\nOK: all" in text]
    exported = list(csv.reader(io.StringIO(Path(f"{name}.out.csv").read_text())))
    assert len(exported) > 1, said[1]
    assert not [cell for row in exported for cell in row if cell.startswith(FORMULA)]
