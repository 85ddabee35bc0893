"""What the reconciler needs of a kernel. `kernel.tables` is the real one, `kernel.fake` the one in memory; both
pass the same contract tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gatewayd.model.external import ExternalChanges
from gatewayd.model.transaction import CounterReading, Ruleset, TableReading, Transaction


@dataclass(slots=True)
class Stats:
    """What the reconciler did since start; times are unix seconds, 0 = never."""

    transactions: int = 0
    elements: int = 0
    commit_seconds: float = 0.0
    failures: int = 0
    last_error: str = ""
    last_commit_at: float = 0.0
    last_verified_at: float = 0.0
    repairs: int = 0
    notifications_lost: int = 0
    """Times that others committed more than we were told of."""
    late_admissions: int = 0
    generation: int = 0
    turned_at: float = 0.0
    """By the monotonic clock: when the task last got somewhere."""


class Dataplane(Protocol):
    """One nf_tables table. Every method raises KernelError when the kernel's answer is a no or is missing."""

    async def read_table(self) -> TableReading:
        """Sets, rules and generation; no elements. Begins again where another program's commit came in between, and
        raises DumpInterrupted where one always does."""
        ...

    def read_elements(self, set_name: str) -> AsyncIterator[Sequence[bytes]]:
        """Keys of a set, piece by piece. Raises DumpInterrupted where the kernel says that it changed meanwhile.

        Linux 6.18 never says so of elements: a listing during which the generation rose may be out of date.
        """
        ...

    async def commit(self, transaction: Transaction) -> None:
        """All operations or none. Raises OperationRefused naming the one that was refused."""
        ...

    async def replace_rules(self, ruleset: Ruleset) -> None:
        """Put the ruleset in place of all chains that are there, in one transaction."""
        ...

    async def read_counters(self) -> dict[str, CounterReading]:
        """Named counters of the table; empty if there is no table."""
        ...

    async def read_generation(self) -> int:
        """The kernel's ruleset generation; it goes up by one with every transaction of any program."""
        ...

    async def delete_table(self) -> bool:
        """Remove the table and all in it; whether there was one."""
        ...

    def watch(self, on_change: Callable[[], None]) -> None:
        """Hear what others commit from now on; call back, from the running loop, when `take_changes` has some."""
        ...

    def unwatch(self) -> None:
        """Hear nothing more."""
        ...

    def take_changes(self) -> ExternalChanges:
        """What others committed since the last call, as far as it was heard and in its order; never ours.

        A bounded batch: `on_change` comes again while there is more.
        """
        ...
