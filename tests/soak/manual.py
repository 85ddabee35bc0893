"""The steps of a section of docs/operations.md: commands and files, as an operator would type them.

### Tuesday: who would be affected        the title of a day

```sh
# gatewayd impact --since 1d              a command
```
```yaml
# /etc/gatewayd/local.d/acme.yaml         a file, with what follows as its content
```
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
WEEK = "A week of arming"


@dataclass(frozen=True, slots=True)
class Command:
    """A line after `# `."""

    line: str


@dataclass(frozen=True, slots=True)
class File:
    """To be written at `path`, in the place of what is there."""

    path: str
    content: str


@dataclass(frozen=True, slots=True)
class Day:
    title: str
    steps: tuple[Command | File, ...]


def read_days(text: str, section: str = WEEK) -> list[Day]:
    """The days of the section, in order. Raises ValueError for a block that is neither commands nor a file."""
    whole = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if whole is None:
        raise ValueError(f"there is no section {section!r}")
    titles = re.split(r"^### (.*)\n", whole[1], flags=re.MULTILINE)[1:]
    return [Day(title, tuple(_steps_of(body))) for title, body in zip(titles[::2], titles[1::2], strict=True)]


def _steps_of(body: str) -> Iterator[Command | File]:
    for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```$", body, re.MULTILINE | re.DOTALL):
        lines = block.splitlines()
        if language == "sh":
            yield from (Command(line.removeprefix("# ")) for line in lines if line.startswith("# "))
        elif language in ("yaml", "csv") and lines and lines[0].startswith("# /"):
            yield File(lines[0].removeprefix("# "), "\n".join([*lines[1:], ""]))
        elif language != "":
            raise ValueError(f"neither commands nor a file: {block!r}")
