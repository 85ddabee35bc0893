"""Sentences of the documents have at most 25 words, and some words are not used.

A sentence ends at a full stop, a question mark or an exclamation mark, and with its paragraph, list item, heading
or table cell. A stretch of `code` is one word, and a link is the words that are shown. Package docstrings are
documents too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import gatewayd

ROOT = Path(gatewayd.__file__).parent.parent

MAX_WORDS = 25

NOT_USED = re.compile(
    r"\b(?:nobody|somebody|anybody|everybody|anyone|everyone|whoever|anew|longest_\w*)\b", re.IGNORECASE
)
"""The actor is named, and a thing happens again."""

SPOKEN_OF = re.compile(r"`[^`\n]*`|\"[^\"\n]*\"")

FENCE = re.compile(r"^\s*```")
ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+")
RULE = re.compile(r"^\s*\|?[\s:|-]+\|?\s*$")
CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
CELL = re.compile(r"(?<!\\)\|")
NAME = r"(?:nft|gatewayd|systemd|conntrackd|conntrack)\b"
"""A name in lower case can begin a sentence."""
END = re.compile(rf'(?<=[.!?])(?P<close>[")*_]*)\s+(?=[*_("\[]*(?:[A-Z0-9`…]|{NAME}))')
ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|vs|cf|approx)|§ ?\d*)\.$")
WORD = re.compile(r"[^\W_](?:[\w'’.,:/@+%-]*\w)?")
HOLE = "Xcode"
"""What stands for a stretch of code."""


@dataclass(frozen=True, slots=True)
class Sentence:
    line: int
    text: str

    @property
    def size_words(self) -> int:
        return len(WORD.findall(LINK.sub(r"\1", CODE.sub(HOLE, self.text))))


def blocks_of(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs, items, headings and cells with the number of their first line. Inner line ends stay."""
    started, lines, fenced, empty_before, in_list = 0, list[str](), False, True, False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        fence = bool(FENCE.match(line))
        item = ITEM.match(line)
        code = empty_before and not in_list and line.startswith("    ")
        table = line.lstrip().startswith("|")
        if lines and (fence or fenced or item or table or not line.strip() or line.startswith("#")):
            yield started, "\n".join(lines)
            lines = []
        if (fence or table) and not line.startswith(" "):
            in_list = False
        if fence:
            fenced = not fenced
        elif fenced or not line.strip():
            pass
        elif table:
            if not RULE.match(line):
                yield from ((number, cell.strip()) for cell in CELL.split(CODE.sub(without_bars, line.strip())))
        elif line.startswith("#"):
            yield number, line.lstrip("# ")
        elif not code:
            started = started if lines else number
            lines.append(line[item.end() :] if item else line)
            in_list = bool(item) or (in_list and (line.startswith(" ") or not empty_before))
        if not code:
            empty_before = not line.strip()


def without_bars(code: re.Match[str]) -> str:
    return code[0].replace("|", "/")


def sentences_of(text: str) -> Iterator[Sentence]:
    for number, block in blocks_of(text):
        hidden = CODE.sub(blanked, block)
        start = 0
        for match in [*END.finditer(hidden), None]:
            end = len(block) if match is None else match.end("close")
            if match is not None and ABBREVIATION.search(hidden[:end]):
                continue
            yield Sentence(number + block.count("\n", 0, start), " ".join(block[start:end].split()))
            start = end if match is None else match.end()


def blanked(code: re.Match[str]) -> str:
    """As long as the code, and a sentence may begin with it. No full stop within ends one."""
    return "`" + "x" * (len(code[0]) - 2) + "`"


def documents() -> dict[str, str]:
    found = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in markdown()}
    for path in sorted((ROOT / "gatewayd").rglob("__init__.py")):
        found[str(path.relative_to(ROOT))] = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return found


def markdown() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def too_long(text: str) -> list[Sentence]:
    return [sentence for sentence in sentences_of(text) if sentence.size_words > MAX_WORDS]


def unused_words(text: str) -> list[str]:
    """Each with its line. A word between quotation marks, or as code, is spoken of and not used."""
    lines = enumerate(SPOKEN_OF.sub("", text).splitlines(), 1)
    return [f"{number}: {match[0]}" for number, line in lines for match in NOT_USED.finditer(line)]


@pytest.mark.parametrize("name", documents())
def test_a_sentence_has_at_most_25_words(name: str) -> None:
    found = too_long(documents()[name])
    assert not found, "\n".join(f"{name}:{each.line}: {each.size_words} words: {each.text}" for each in found)


@pytest.mark.parametrize("name", documents())
def test_a_word_that_is_not_used_is_not_used(name: str) -> None:
    found = unused_words(documents()[name])
    assert not found, "\n".join(f"{name}:{each}" for each in found)


def test_the_reading_sees_what_it_looks_for() -> None:
    text = """# A heading without an end
Words of a line
go on. `a. B` is one word, e.g. 1.5 s; a [link here](https://example.net/x) too (so). *Next* one.

- an item
  with two lines
- **a second.** And more

| a cell | of `x | y` another. More |
| --- | --- |
```
not. Prose.
```

    code. Of a docstring.
"""
    assert [(each.line, each.size_words) for each in sentences_of(text) if each.size_words] == [
        (1, 5),
        (2, 6),
        (3, 12),
        (3, 2),
        (5, 5),
        (7, 2),
        (7, 2),
        (9, 2),
        (9, 3),
        (9, 1),
    ]
