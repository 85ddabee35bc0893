"""No strings between rooms, read with `ast`: nobody sets an attribute of another room's object, hands out a lambda
over `self` to be told later, reaches through two objects to a third, or takes more arguments than one can follow.

A room is a package; what its own classes declare is its own to set and to reach for. A name that two rooms declare
is given the benefit of the doubt, as types are not looked at. The lists of what is left may only become shorter.
"""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import gatewayd

ROOT = Path(gatewayd.__file__).parent
MAX_ARGUMENTS = 10
"""Of a constructor, beside `self`."""
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
BUILT_IN = frozenset(
    name for each in (dict, list, set, str, bytes, asyncio.Event, asyncio.Lock, Path) for name in dir(each)
)
"""Methods of these say nothing of a room."""

SET_FROM_OUTSIDE: set[str] = set()
LAMBDAS: set[str] = set()
CHAINS: set[str] = set()
LONG_CONSTRUCTORS: set[str] = set()


def room_of(path: Path) -> str:
    """`reconcile`, `subscribers.sessions`; a module of the root is a room of its own."""
    parent = path.relative_to(ROOT).parent
    return ".".join(parent.parts) or path.stem


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


MODULES = sorted(ROOT.rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def declared() -> dict[str, frozenset[str]]:
    """What the classes of each room have: methods, fields, what they set of `self`."""
    found: dict[str, set[str]] = {}
    for path in MODULES:
        names = found.setdefault(room_of(path), set())
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                names |= {each.name for each in node.body if isinstance(each, FUNCTIONS)}
                names |= {ast.unparse(each.target) for each in node.body if isinstance(each, ast.AnnAssign)}
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node.value):
                names.add(node.attr)
    return {room: frozenset(names) for room, names in found.items()}


def is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def functions_of(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, FUNCTIONS))


def set_from_outside(tree: ast.Module, room: str) -> Iterator[str]:
    """`x.y = …` where y is not of this room, and x not made in this function."""
    for function in functions_of(tree):
        made = {
            target.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                is_made_here = isinstance(node.value, ast.Name) and node.value.id in made
                if not (is_own(node.value) or is_made_here or node.attr in declared()[room]):
                    yield ast.unparse(node)


def lambdas_handed_out(tree: ast.Module) -> Iterator[str]:
    """A lambda that names `self`, given to a constructor."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2][:1].isupper():
            for given in [*node.args, *(each.value for each in node.keywords)]:
                if isinstance(given, ast.Lambda) and any(map(is_own, ast.walk(given.body))):  # type: ignore[arg-type]
                    yield f"{ast.unparse(node.func)}({ast.unparse(given)})"


def chains(tree: ast.Module, room: str) -> Iterator[str]:
    """`a.b.c.d()` where d is of another room."""
    elsewhere = frozenset().union(*(names for other, names in declared().items() if other != room))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            parts = ast.unparse(node.func).split(".")
            is_plain = all(part.isidentifier() for part in parts)
            last = parts[-1]
            if is_plain and len(parts) > 3 and last in elsewhere - declared()[room] - BUILT_IN:
                yield ".".join(parts)


def long_constructors(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for each in node.body:
            if isinstance(each, FUNCTIONS) and each.name == "__init__":
                arguments = [*each.args.args, *each.args.kwonlyargs]
                if len(arguments) - 1 > MAX_ARGUMENTS:
                    yield node.name


def listed(found: dict[str, Iterator[str]]) -> set[str]:
    return {f"{module}: {each}" for module, all_of_it in found.items() for each in all_of_it}


def test_nobody_sets_an_attribute_of_another_rooms_object() -> None:
    found = {module_of(path): set_from_outside(tree_of(path), room_of(path)) for path in MODULES}
    assert listed(found) == SET_FROM_OUTSIDE


def test_nobody_hands_out_a_lambda_over_itself() -> None:
    assert listed({module_of(path): lambdas_handed_out(tree_of(path)) for path in MODULES}) == LAMBDAS


def test_nobody_reaches_through_two_objects_into_another_room() -> None:
    assert listed({module_of(path): chains(tree_of(path), room_of(path)) for path in MODULES}) == CHAINS


def test_no_constructor_takes_more_than_one_can_follow() -> None:
    assert listed({module_of(path): long_constructors(tree_of(path)) for path in MODULES}) == LONG_CONSTRUCTORS


def test_these_readings_see_what_they_look_for() -> None:
    strings = ast.parse(
        "class A:\n"
        "    def run(self, other):\n"
        "        other.unheard_of = 1\n"
        "        self._other.unheard_of += 1\n"
        "        self.heard_of = 1\n"
        "        made = B(on_done=lambda: self.done())\n"
        "        made.unheard_of = 1\n"
        "        self._owner.reconciler.unready()\n"
        "        self._reconciler.unready()\n"
    )
    assert set(set_from_outside(strings, "watch")) == {"other.unheard_of", "self._other.unheard_of"}
    assert list(lambdas_handed_out(strings)) == ["B(lambda: self.done())"]
    assert list(chains(strings, "watch")) == ["self._owner.reconciler.unready"]
    many = ast.parse(f"class A:\n    def __init__(self, {', '.join('abcdefghijk')}): ...\n")
    assert list(long_constructors(many)) == ["A"]
    assert "unready" in declared()["reconcile"]
    assert room_of(ROOT / "daemon.py") == "daemon"
