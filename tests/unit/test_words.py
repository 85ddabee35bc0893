"""The trade's word, once, the same everywhere: words that are not used in code, configuration and documents.

In Python files names are read with `tokenize` and taken apart (`crowded_out`, `CrowdedOut`); comments and strings
are prose. Prose can have names in it (`journal.begun_anew`). CONTRIBUTING.md has the words for a reader.
"""

from __future__ import annotations

import re
import tokenize
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

import gatewayd

ROOT = Path(gatewayd.__file__).parent.parent

IN_NAMES = {
    # The pattern of whole words of a name, in lower case with blanks between → what is used.
    "begun anew": "recreated",
    "crowded out": "over_limit",
    "dead man": "element timeout",
    "foreign changes?": "external change",
    "gateway sees": "nat_side",
    "given up": "abandoned",
    "grants?|granted|granting": "what it binds",
    "heard|unheard": "received",
    "helpings?": "batch",
    "left out": "ignored",
    "listings?": "dump",
    "nobodys": "unregistered",
    "notices lost": "notifications_lost",
    "octets?": "bytes",
    "of no use": "ignored",
    "one address": "single_session",
    "outdated": "expired, stale",
    "outdone": "superseded",
    "pictures?": "tracker",
    "rejudged?": "reclassify",
    "roster": "session index",
    "settled": "in sync",
    "sign answers": "response_message_authenticator",
    "silent": "session_timeout",
    "spared?": "retained",
    "stopwatch": "monotonic clock",
    "surveys?": "conntrack scan",
    "sweeps?|sweeper|swept": "conntrack scan",
    "tally": "stats",
    "told": "reported",
    "urged?": "prioritise",
}

IN_PROSE = {
    "begun anew": "recreated",
    "crowded out": "over the limit",
    "dead man": "element timeout",
    "foreign changes?": "external change",
    "helpings?": "batch",
    "octets?": "bytes",
    "outdone": "superseded",
    "rejudged?": "reclassify",
    "roster": "session index",
    "stopwatch": "monotonic clock",
    "surveys?": "conntrack scan",
    "sweeps?|sweeper|swept": "conntrack scan",
    "tally": "stats",
    "told by": "reported by",
    "whoever": "the noun",
}

NOT_FOR_CLASSES = frozenset({"answers", "effective", "owner"})
"""Queries, ActiveSet and Controller are the names; as plain words these are right."""

NAMES_OF_NOTHING = frozenset({"common", "data", "helper", "helpers", "info", "manager", "misc", "util", "utils"})
"""Not in the name of a module or a class."""

NOT_IN_CONSTANTS = r"\b_?(?:LEAST|MOST|LONGEST|LARGEST|FEWEST)_[A-Z0-9_]+\b"
"""MIN and MAX are the words."""

EXCEPTIONS: dict[str, tuple[int, str]] = {
    # How often it may stand there, and why. The number may only become smaller.
    "listings?": (1, "an argument's name of before: dump"),
    "octets?": (6, "the four numbers of an IPv4 address are octets"),
}

BOUNDS_TODAY: set[str] = set()
CLASSES_TODAY: set[str] = set()
"""Both may only become fewer."""

_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_NAME_IN_PROSE = re.compile(r"(?<=`)\w+(?=`)|\w+(?:[_.]\w+)+")
_KEY_IN_YAML = re.compile(r"^[\s#-]*(\w+):(?:\s|$)")
_TEXTS = (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))


def parts_of(name: str) -> str:
    """`CrowdedOut`, `crowded_out` and `journal.crowded_out` have `crowded out` in them."""
    return " ".join(_PART.findall(name)).lower()


def python_files() -> list[Path]:
    return sorted((ROOT / "gatewayd").rglob("*.py"))


def documents() -> list[Path]:
    configuration = [path for path in (ROOT / "config").iterdir() if path.suffix == ".yaml"]
    # What the benchmark writes is a record of a day.
    return sorted([ROOT / "README.md", *configuration, *(ROOT / "docs").glob("*.md")])


@cache
def read() -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """Names, taken apart, with their places; and prose, each with its place. `former="…"` of a settings key is
    neither: it has to say the word that is refused."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    prose = []
    for path in python_files():
        short = str(path.relative_to(ROOT))
        names[path.stem].append(short)
        with path.open("rb") as file:
            before = ("", "")
            for token in tokenize.tokenize(file.readline):
                is_former, before = before == ("former", "="), (before[1], token.string)
                place = f"{short}:{token.start[0]}"
                if token.type == tokenize.NAME:
                    names[token.string].append(place)
                elif token.type in _TEXTS and not is_former:
                    prose.append((place, token.string))
    for path in documents():
        short = str(path.relative_to(ROOT))
        for number, line in enumerate(path.read_text().splitlines(), 1):
            prose.append((f"{short}:{number}", line))
            if path.suffix == ".yaml" and (key := _KEY_IN_YAML.match(line)):
                names[key[1]].append(f"{short}:{number}")
    for place, text in prose:
        for name in _NAME_IN_PROSE.findall(text):
            names[name].append(place)
    apart: defaultdict[str, list[str]] = defaultdict(list)
    for name, places in names.items():
        apart[parts_of(name)] += places
    return apart, prose


def matcher(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b".replace(" ", r"[\s-]+"), re.IGNORECASE)


def places_of(pattern: str) -> list[str]:
    names, prose = read()
    wanted = matcher(pattern)
    found = []
    if pattern in IN_NAMES:
        found += [place for name, places in names.items() if wanted.search(name) for place in places]
    if pattern in IN_PROSE:
        found += [place for place, text in prose for _ in wanted.finditer(text)]
    return sorted(found)


@pytest.mark.parametrize("pattern", sorted({*IN_NAMES, *IN_PROSE}))
def test_a_word_that_is_not_used_is_not_used(pattern: str) -> None:
    found = places_of(pattern)
    limit, _ = EXCEPTIONS.get(pattern, (0, ""))
    instead = IN_NAMES.get(pattern) or IN_PROSE[pattern]
    assert len(found) <= limit, f"instead: {instead}\n" + "\n".join(found)


@pytest.mark.parametrize("pattern", sorted(EXCEPTIONS))
def test_an_exception_is_no_larger_than_it_must_be(pattern: str) -> None:
    limit, why = EXCEPTIONS[pattern]
    assert why
    assert 0 < len(places_of(pattern)) == limit, "write the smaller number, or take the exception off the list"


def test_bounds_are_called_min_and_max() -> None:
    found = {match for path in python_files() for match in re.findall(NOT_IN_CONSTANTS, path.read_text())}
    assert found == BOUNDS_TODAY


def test_modules_and_classes_are_named_for_things() -> None:
    found = set()
    for path in python_files():
        assert not NAMES_OF_NOTHING & set(parts_of(path.stem).split()), path
        for name in re.findall(r"^\s*class (\w+)", path.read_text(), re.MULTILINE):
            if (NAMES_OF_NOTHING | NOT_FOR_CLASSES) & set(parts_of(name).split()):
                found.add(name)
    assert found == CLASSES_TODAY


def test_the_reading_sees_what_it_looks_for() -> None:
    assert parts_of("journal.begun_anew") == "journal begun anew"
    assert parts_of("MOST_OCTETS") == "most octets"
    assert parts_of("HTTPAnswerIPv4") == "http answer i pv 4"
    assert len(matcher("dead man").findall("dead men, the Dead\nman's switch, a dead-man timeout")) == 2
    names, prose = read()
    assert "gatewayd/model/mask.py" in names["mask"]
    assert any(place.startswith("docs/operations.md:") for place, _ in prose)
