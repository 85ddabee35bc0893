"""What other programs commit to nf_tables, as the kernel tells it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


class ElementChange(msgspec.Struct, frozen=True, gc=False):
    """An element of one of our sets came (`present`) or went."""

    set_name: str
    key: bytes
    present: bool


@dataclass(frozen=True, slots=True)
class ForeignCommit:
    """One transaction of somebody else; of changes outside our table only that there was one.

    `generation`: of the kernel's ruleset after it. `pid` is of the initial pid namespace. `elements`: the last
    that happened to each key; `unlisted`: there were more. `others`: chains, rules, sets or the table may have
    changed too, only a reading tells.
    """

    generation: int
    pid: int = 0
    program: str = ""
    elements: tuple[ElementChange, ...] = ()
    others: bool = False
    unlisted: bool = False


@dataclass(frozen=True, slots=True)
class ForeignChanges:
    """Since the last call, oldest first. `lost`: there were more, and nobody knows which."""

    commits: tuple[ForeignCommit, ...] = ()
    lost: bool = False
