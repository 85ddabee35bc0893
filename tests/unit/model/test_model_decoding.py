"""Bytes that are no value: each kind of error is caught, by every decoder, and its words are fit to be shown."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Literal

import msgspec
import pytest

import gatewayd
from gatewayd.model.decoding import MAX_SHOWN, UNDECODABLE, printable, why_undecodable

ROOT = Path(gatewayd.__file__).parent


class Setting(msgspec.Struct, forbid_unknown_fields=True):
    mode: Literal["observe", "reject"]


def why(raw: bytes) -> str:
    with pytest.raises(UNDECODABLE) as caught:
        msgspec.json.decode(raw, type=Setting)
    return why_undecodable(caught.value)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{", "Input data was truncated"),
        (b'{"mode": "refuse"}', "Invalid enum value 'refuse' - at `$.mode`"),
        (b'{"mode": "+923009876543"}', "Invalid enum value … - at `$.mode`"),
        (b'{"moed": "reject"}', "Object contains unknown field `moed`"),
        (b'{"\xe2\x80\xae": 1}', "Object contains unknown field …"),
        (b'{"mode": "\xff"}', "Invalid UTF-8"),
    ],
)
def test_the_words_have_names_and_no_values(raw: bytes, words: str) -> None:
    assert why(raw).startswith(words)


def test_errors_of_the_interpreter_have_words_too() -> None:
    with pytest.raises(UNDECODABLE) as caught:
        msgspec.json.decode(b'{"a":' * 100_000)
    assert why_undecodable(caught.value) == "nested too deeply"
    assert why_undecodable(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")) == "not UTF-8"


def test_a_text_of_another_is_cut_and_can_be_printed() -> None:
    assert printable("nft") == "nft"
    assert printable("a\x1b[2Jb\n") == "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}"
    assert printable("x" * 500) == "x" * (MAX_SHOWN - 1) + "…"
    assert printable("abcd", 3) == "ab…"


def caught_in(path: Path) -> list[str]:
    """Errors of msgspec that are named where something is caught."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        caught: list[ast.expr] = []
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            caught = [node.type]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "suppress":
            caught = node.args
        names = (name for each in caught for name in ast.walk(each) if isinstance(name, ast.Attribute))
        found += [name.attr for name in names if isinstance(name.value, ast.Name) and name.value.id == "msgspec"]
    return found


def test_no_decoder_catches_a_part_of_them() -> None:
    """RecursionError is forgotten, and 5 kB of `[[[[` in a file stop the daemon at its start."""
    assert {str(path.relative_to(ROOT)): caught for path in ROOT.rglob("*.py") if (caught := caught_in(path))} == {}
