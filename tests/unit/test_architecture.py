"""docs/architecture.md says what is: its names exist, steps are called where it says, its tables are whole.

A step is called from the function of another row, perhaps through functions of that row's module; a function that
is called back is named where it is handed on. Types are not looked at: a call is the name of the function.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.unit.test_imports import COMPOSITION, IO, MAY_IMPORT, MODULES, PURE, package_of, tree_of

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "architecture.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")

MAX_LINES = 60
"""Of a walk: one screen."""
MAX_STEPS = 35
FILES = {
    "one signed delta": 23,
    "one RADIUS Start": 18,
    "one packet event": 12,
    "one explain": 12,
    "one reload": 18,
}
"""The files of each walk. The numbers may only become smaller."""

GROUND = {"gatewayd", "errors", "log", "model"}
"""Not in the table's column of imports: they are for all."""
MAP = {"gatewayd", "__main__"}
"""Modules without a row: the version, and the way into `cli`."""

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
ROW = re.compile(
    r"^\| (?P<number>\d+) \|(?P<origin>[^|]*)\|(?P<step>[^|]*)\|[^|]*\|(?P<shape>[^|]*)\|$", re.MULTILINE
)
DOTTED = re.compile(r"`([a-z]\w*(?:\.\w+)+)`")
CLASS = re.compile(r"`([A-Z]\w+)`")


@dataclass(frozen=True, slots=True)
class Step:
    """`origin`: the number of the row that calls it, the name of what hands it on, or nothing: the first."""

    number: int
    origin: str
    name: str
    shapes: tuple[str, ...]

    @property
    def module(self) -> str:
        return split_name(self.name)[0]


def steps_of(section: str) -> list[Step]:
    return [
        Step(
            int(row["number"]),
            row["origin"].strip().strip("`"),
            row["step"].strip().strip("`"),
            tuple(CLASS.findall(row["shape"])),
        )
        for row in ROW.finditer(section)
    ]


def sections_of(text: str) -> dict[str, str]:
    """The walks, each from its heading to the next one."""
    parts = re.split(r"^(#{2,3} .+)$", text, flags=re.MULTILINE)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return {title.removeprefix("### Walk: "): body for title, body in pairs if title.startswith("### Walk: ")}


WALKS = sections_of(TEXT)
each_walk = pytest.mark.parametrize("walk", WALKS)


def split_name(name: str) -> tuple[str, list[str]]:
    """The module of a dotted name, and what is named within it. KeyError where no module begins so."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        if module in MODULES:
            return module, parts[length:]
    raise KeyError(name)


def children_of(node: ast.Module | ast.ClassDef) -> Iterator[tuple[str, Definition]]:
    for each in node.body:
        if isinstance(each, FUNCTIONS | ast.ClassDef):
            yield each.name, each
        elif isinstance(each, ast.Assign):
            yield from ((ast.unparse(target), each) for target in each.targets)
        elif isinstance(each, ast.AnnAssign):
            yield ast.unparse(each.target), each


def find(name: str) -> ast.Module | Definition:
    """What a dotted name stands for. KeyError where there is nothing of that name."""
    module, rest = split_name(name)
    found: ast.Module | Definition = tree_of(module)
    for part in rest:
        if not isinstance(found, ast.Module | ast.ClassDef):
            raise KeyError(name)
        found = dict(children_of(found))[part]
    return found


@cache
def functions_in(module: str) -> dict[str, list[ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Functions and methods of a module by their own names."""
    found: dict[str, list[ast.FunctionDef | ast.AsyncFunctionDef]] = {}
    for node in ast.walk(tree_of(module)):
        if isinstance(node, FUNCTIONS):
            found.setdefault(node.name, []).append(node)
    return found


@cache
def names_used(name: str) -> frozenset[str]:
    """All names in a function, and in the functions of its module that it leads to."""
    functions = functions_in(split_name(name)[0])
    waiting: list[ast.AST] = [find(name)]
    seen: set[int] = set()
    used: set[str] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        for each in ast.walk(node):
            word = each.attr if isinstance(each, ast.Attribute) else each.id if isinstance(each, ast.Name) else None
            if word is not None and word not in used:
                used.add(word)
                waiting += functions.get(word, ())
    return frozenset(used)


def called_as(name: str) -> str:
    """A method `__call__` is called by an object of its class."""
    *_, owner, last = name.split(".")
    return owner if last == "__call__" else last


def faults_of(section: str) -> list[str]:
    """What is wrong with the steps of a walk."""
    steps = {step.number: step for step in steps_of(section)}
    faults = []
    if list(steps) != list(range(1, len(steps) + 1)) or len(steps) != section.count("\n| ") - 2:
        faults.append("the rows are not numbered from 1 on, or one of them is no row of a walk")
    for step in steps.values():
        try:
            if not isinstance(find(step.name), FUNCTIONS):
                faults.append(f"{step.number}: {step.name} is no function")
            elif step.origin.isdigit():
                origin = steps[int(step.origin)].name if int(step.origin) < step.number else ""
                if not origin or called_as(step.name) not in names_used(origin):
                    faults.append(f"{step.number}: {step.name} is not called from row {step.origin}")
            elif step.origin:
                if called_as(step.name) not in names_used(step.origin):
                    faults.append(f"{step.number}: {step.name} is not handed on in {step.origin}")
            elif step.number > 1:
                faults.append(f"{step.number}: it does not say from where")
        except KeyError as error:
            faults.append(f"{step.number}: there is no {error}")
    return faults


def test_there_are_five_walks() -> None:
    assert WALKS.keys() == FILES.keys()


@each_walk
def test_each_step_is_a_function_that_is_called_where_the_walk_says(walk: str) -> None:
    assert faults_of(WALKS[walk]) == []


@each_walk
def test_a_walk_is_on_one_screen(walk: str) -> None:
    assert WALKS[walk].strip().count("\n") + 3 <= MAX_LINES
    assert "```" in WALKS[walk], "it has no picture"


@each_walk
def test_a_walk_does_not_become_longer(walk: str) -> None:
    steps = steps_of(WALKS[walk])
    assert len(steps) <= MAX_STEPS
    assert len({step.module for step in steps}) == FILES[walk]


@each_walk
def test_each_shape_is_a_type_of_ours(walk: str) -> None:
    types = {name for module in MODULES for name, _ in children_of(tree_of(module))}
    shapes = {shape for step in steps_of(WALKS[walk]) for shape in step.shapes}
    assert shapes
    assert shapes <= types


def test_every_name_of_ours_in_the_document_exists() -> None:
    packages = {package_of(module) for module in MODULES}
    named = {name for name in DOTTED.findall(TEXT) if package_of(name) in packages}
    missing = []
    for name in sorted(named):
        try:
            find(name)
        except KeyError:
            missing.append(name)
    assert len(named) > 100
    assert missing == []


def test_every_file_and_folder_that_is_named_exists() -> None:
    named = set(re.findall(r"`((?:tests|config|systemd|docs|requirements|gatewayd)/[\w./]*)`", TEXT))
    assert len(named) > 10
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_every_folder_of_the_repository_is_named() -> None:
    folders = {path.parent.name for path in ROOT.glob("tests/*/*.py")} | {
        path.name for path in ROOT.glob("docs/*/")
    }
    assert {name for name in folders if not re.search(rf"\b{name.removesuffix('-example')}\b", TEXT)} == set()


# The table of packages


def packages_listed() -> dict[str, tuple[str, set[str]]]:
    """Name → its kind, and what it may import."""
    section = TEXT.partition("\n## Packages\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|[^|]+\| (\w+) \| ([^|]+) \|$", section, re.MULTILINE)
    return {name: (kind, set(imports.replace("–", "").split())) for name, kind, imports in rows}


def test_every_package_is_in_the_table_in_the_order_of_the_imports() -> None:
    assert list(packages_listed()) == [package for package in MAY_IMPORT if package not in MAP]


@pytest.mark.parametrize("package", packages_listed())
def test_a_package_has_its_kind_and_its_imports(package: str) -> None:
    kind, imports = packages_listed()[package]
    assert imports == set(MAY_IMPORT[package].split()) - GROUND
    modules = {each for each in MODULES if package_of(each) == package}
    modules -= {package} if len(modules) > 1 else set()
    is_pure, is_shell = bool(modules & set(PURE.split())), bool(modules & {*IO.split(), *COMPOSITION.split()})
    assert kind == ("both" if is_pure and is_shell else "pure" if is_pure else "IO")


# The tests of the walks see what they look for

HEAD = "\n| # | from | function | what happens | shape |\n| --- | --- | --- | --- | --- |\n"
FIRST = "| 1 | | `registry.state.RegistryState.apply` | … | |\n"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("| 2 | 1 | `registry.guard.RemovalGuard.take_in_slices` | … | |", None),
        ("| 2 | 1 | `registry.guard.RemovalGuard.take_slices` | … | |", "there is no 'take_slices'"),
        ("| 2 | 1 | `registry.gate.RemovalGuard.take_in_slices` | … | |", "there is no"),
        ("| 2 | 1 | `registry.guard.RemovalGuard` | … | |", "is no function"),
        ("| 2 | 1 | `kernel.nft.run_script` | … | |", "is not called from row 1"),
        ("| 2 | 2 | `registry.guard.RemovalGuard.take_in_slices` | … | |", "is not called from row 2"),
        ("| 2 | | `registry.guard.RemovalGuard.take_in_slices` | … | |", "does not say from where"),
        ("| 2 | `daemon.Daemon._build` | `kernel.nft.run_script` | … | |", "is not handed on in"),
        ("| 3 | 1 | `registry.guard.RemovalGuard.take_in_slices` | … | |", "not numbered"),
        ("| two | 1 | `registry.guard.RemovalGuard.take_in_slices` | … | |", "is no row of a walk"),
    ],
)
def test_a_wrong_step_is_found(row: str, fault: str | None) -> None:
    faults = faults_of(f"{HEAD}{FIRST}{row}\n")
    assert len(faults) == (fault is not None)
    assert fault is None or fault in faults[0]
