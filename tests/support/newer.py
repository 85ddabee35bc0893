"""A state directory that a later version of gatewayd has written, and what is in it byte for byte."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from gatewayd.sources.last_good import seal, unseal


def contents_of(directory: Path) -> dict[str, bytes]:
    """By name. Not the index of a log (`-shm`), which SQLite makes anew whenever it reads one."""
    files = (each for each in directory.rglob("*") if each.is_file() and not each.name.endswith("-shm"))
    return {str(each.relative_to(directory)): each.read_bytes() for each in files}


def make_newer(path: Path, statements: Sequence[str], *, killed: bool) -> None:
    """Run `statements` on a database. `killed`: its writer was, and its log lies beside it."""
    aside = path.with_name(f"{path.name}.aside")
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    if killed:
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", f"{aside}{suffix}")
    connection.close()
    if killed:
        for suffix in ("", "-wal"):
            Path(f"{aside}{suffix}").replace(f"{path}{suffix}")


def make_newer_last_good(path: Path) -> None:
    """The head of a source's last good, as of a format that comes after this one."""
    connection = sqlite3.connect(path, isolation_level=None)
    ((row,),) = connection.execute("SELECT content FROM row WHERE kind = 'head'").fetchall()
    head = msgspec.msgpack.decode(unseal("head", 0, "", row))
    sealed = seal("head", 0, "", msgspec.msgpack.encode({**head, "format": head["format"] + 1, "more": 1}))
    connection.execute("UPDATE row SET content = ? WHERE kind = 'head'", (sealed,))
    connection.close()


def newer_guard(content: bytes) -> bytes:
    """What the guard knows, likewise."""
    _, _, rest = content.partition(b"\n")
    first, _, lines = rest.partition(b"\n")
    head = msgspec.json.decode(first)
    rest = msgspec.json.encode({**head, "format": head["format"] + 1}) + b"\n" + lines
    return hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest
