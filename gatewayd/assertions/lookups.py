"""Which elements of the sets that the rules look into would let a flow pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gatewayd.compile.masks import keys_of
from gatewayd.model.flow import Flow
from gatewayd.model.mask import parse_set_name
from gatewayd.model.transaction import RulesTag

Element = tuple[str, bytes]
"""The name of a set, and a key."""


@dataclass(frozen=True, slots=True)
class RulesReading:
    """The rules of our table that the kernel has. `tag`: None where none of them is ours. `set_names`: the sets of
    the allowlist that they look into."""

    tag: RulesTag | None = None
    set_names: frozenset[str] = field(default=frozenset())


class Passage(Protocol):
    """The kernel, asked for what lets a flow pass. Each may raise KernelError."""

    async def read_rules(self) -> RulesReading: ...

    async def find_elements(self, elements: Sequence[Element]) -> frozenset[Element]:
        """Those that are there now. A set that is not there has none."""
        ...


def elements_for(flow: Flow, set_names: Iterable[str]) -> Iterator[Element]:
    """Each once; the flow passes as registered if any of them is there."""
    for name in sorted(set_names):
        parsed = parse_set_name(name)
        if parsed is not None:
            for key in dict.fromkeys(keys_of(parsed[0], flow)):
                yield name, key
