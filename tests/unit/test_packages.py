"""The docstring of each package: it names every module, and ends with its review notes."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import gatewayd

ROOT = Path(gatewayd.__file__).parent
PACKAGES = sorted(
    ".".join(path.parent.relative_to(ROOT.parent).parts)
    for path in ROOT.rglob("__init__.py")
    if path.parent != ROOT
)


def modules_of(directory: Path) -> set[str]:
    files = {path.stem for path in directory.glob("*.py")} - {"__init__", "__main__"}
    return files | {path.parent.name for path in directory.glob("*/__init__.py")}


def note_of(package: str) -> str:
    return importlib.import_module(package).__doc__ or ""


@pytest.mark.parametrize("package", PACKAGES)
def test_the_docstring_names_every_module(package: str) -> None:
    modules = modules_of(ROOT.parent / package.replace(".", "/"))
    words = set(re.findall(r"\w+", note_of(package)))
    assert package == "gatewayd.cli" or modules - words == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_the_docstring_ends_with_its_review_notes(package: str) -> None:
    assert note_of(package).rstrip().rpartition("\n\n")[2].startswith("Review notes: ")


def test_the_map_names_every_package_in_the_order_of_the_data() -> None:
    named = [name for name in re.findall(r"`(\w+)`", gatewayd.__doc__ or "") if name in modules_of(ROOT)]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - set(named) == set()


MAX_MODULE_LINES, MAX_FUNCTION_LINES = 400, 50


def test_no_module_and_no_function_is_too_long_to_be_read_at_once() -> None:
    modules = {path: path.read_text() for path in ROOT.rglob("*.py")}
    assert [str(path) for path, text in modules.items() if len(text.splitlines()) > MAX_MODULE_LINES] == []
    long = [
        f"{path}: {node.name}"
        for path, text in modules.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert long == []
