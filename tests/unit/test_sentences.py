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

EXCEPTIONS: dict[str, int] = {
    "gatewayd/allowlist/__init__.py": 3,
    "gatewayd/api/__init__.py": 1,
    "gatewayd/authority/__init__.py": 2,
    "gatewayd/compile/__init__.py": 2,
    "gatewayd/demo/__init__.py": 1,
    "gatewayd/feed/__init__.py": 3,
    "gatewayd/lab/__init__.py": 1,
    "gatewayd/model/__init__.py": 1,
    "gatewayd/reconcile/__init__.py": 1,
    "gatewayd/registry/__init__.py": 3,
    "gatewayd/settings/__init__.py": 1,
    "gatewayd/sources/__init__.py": 3,
    "gatewayd/subscribers/__init__.py": 1,
    "gatewayd/watch/__init__.py": 2,
}
"""How many longer sentences a document may have. The numbers may only become smaller."""

NOT_USED = re.compile(r"\b(?:nobody|somebody|anew|longest_\w*)\b", re.IGNORECASE)
"""The actor is named, and a thing happens again."""

WORDS_TODAY: dict[str, int] = {
    "gatewayd/authority/__init__.py": 1,
    "gatewayd/sources/__init__.py": 4,
    "gatewayd/subscribers/radius/__init__.py": 1,
    "gatewayd/watch/__init__.py": 1,
}
"""How often they stand in a document. The numbers may only become smaller."""

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
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def too_long(text: str) -> list[Sentence]:
    return [sentence for sentence in sentences_of(text) if sentence.size_words > MAX_WORDS]


def unused_words(text: str) -> list[str]:
    """Each with its line. A word between quotation marks, or as code, is spoken of and not used."""
    lines = enumerate(SPOKEN_OF.sub("", text).splitlines(), 1)
    return [f"{number}: {match[0]}" for number, line in lines for match in NOT_USED.finditer(line)]


@pytest.mark.parametrize("name", documents())
def test_a_sentence_has_at_most_25_words(name: str) -> None:
    found = too_long(documents()[name])
    report = "\n".join(f"{name}:{each.line}: {each.size_words} words: {each.text}" for each in found)
    assert len(found) <= EXCEPTIONS.get(name, 0), report


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_an_exception_is_no_larger_than_it_must_be(name: str) -> None:
    assert 0 < len(too_long(documents()[name])) == EXCEPTIONS[name], "write the smaller number, or take it off"


@pytest.mark.parametrize("name", documents())
def test_a_word_that_is_not_used_is_not_used(name: str) -> None:
    found = unused_words(documents()[name])
    assert len(found) <= WORDS_TODAY.get(name, 0), "\n".join(f"{name}:{each}" for each in found)


@pytest.mark.parametrize("name", WORDS_TODAY)
def test_an_exception_of_words_is_no_larger_than_it_must_be(name: str) -> None:
    assert 0 < len(unused_words(documents()[name])) == WORDS_TODAY[name], "write the smaller number, or take it off"


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
