"""The threat model names tests, and each of them is there and is collected."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import __file__ as support

TESTS = Path(support).parent.parent
PAGE = (TESTS.parent / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:unit|lab|contract|property|fuzz|host|golden)/[\w/]+\.py)::(test_\w+)`", PAGE)))


def rows() -> list[list[str]]:
    section = PAGE.partition("## Threat model")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[2:]]


def test_every_boundary_has_all_columns_and_a_test() -> None:
    assert len(rows()) >= 18
    for row in rows():
        assert len(row) == 6, row
        assert all(row), row
        assert "::test_" in row[5], row


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_each_test_that_is_named_is_collected(file: str, name: str) -> None:
    path = TESTS / file
    assert path.name.startswith("test_")
    text = path.read_text()
    assert re.search(rf"^(?:async )?def {name}\(", text, re.MULTILINE), f"{file} has no {name}"
    assert not re.search(rf"pytest\.mark\.(?:skip|xfail)[^\n]*\n(?:@[^\n]*\n)*(?:async )?def {name}\(", text)
