"""The interface to a kernel, and the numbers of the work on it. Pure.

`kernel.tables` is the real one, `kernel.fake` the one in memory; both pass the same contract tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from gatewayd.model.flow import Mode
from gatewayd.model.mask import parse_set_name
from gatewayd.model.metric import counter, gauge, summary
from gatewayd.model.transaction import CounterReading, ExternalChanges, Ruleset, TableReading, Transaction


class Dataplane(Protocol):
    """One nf_tables table. Every method raises KernelError when the kernel's answer is a no or is missing."""

    async def read_table(self) -> TableReading:
        """Sets, rules and generation; no elements. Begins again where another program's commit came in between, and
        raises DumpInterrupted where one always does."""
        ...

    def read_elements(self, set_name: str) -> AsyncIterator[Sequence[bytes]]:
        """Keys of a set, piece by piece. Raises DumpInterrupted where the kernel says that it changed meanwhile.

        Linux 6.18 never says so of elements: a dump during which the generation rose may be out of date.
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
        """Receive commits of others from now on; call back, from the running loop, when `take_changes` has some."""
        ...

    def unwatch(self) -> None:
        """Receive nothing more."""
        ...

    def take_changes(self) -> ExternalChanges:
        """Commits of others since the last call, as far as they were received, in their order; never ours.

        A bounded batch: `on_change` comes again while there is more.
        """
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """What a start finds of an earlier run, which goes on to be in force until the kernel is read.

    `mode`: of the rules, None without rules of ours. `elements`: None from kernels that do not count them.
    """

    mode: Mode | None
    sets: int
    elements: int | None


def found_in(reading: TableReading) -> Found | None:
    """None where there is no table."""
    if not reading.present:
        return None
    counts = [each.count for each in reading.sets if parse_set_name(each.name) is not None]
    elements = None if None in counts else sum(each or 0 for each in counts)
    return Found(reading.tag.mode if reading.tag is not None else None, len(counts), elements)


@dataclass(slots=True)
class Stats:
    """The table in the kernel, and the work of the reconciler on it since the start.

    Counters rise in place; `Reconciler.report` fills in `table` and the state of the sets. Times are RFC 3339, None
    = never. `generation`: the kernel's ruleset generation at the last reading.
    """

    table: str = ""
    not_in_kernel: Annotated[int, gauge("registered_not_in_kernel",
        "Elements of effective registrations that are not known to be in the kernel; 0 in peace.",
        "`> 0` for 1 min: **the** alert")] = 0  # fmt: skip
    surplus: Annotated[int, gauge("kernel_surplus_elements", "Elements in the kernel that no registration wants.",
        "`> 0` for 10 min")] = 0  # fmt: skip
    retained: Annotated[int, gauge("kernel_retained_elements",
        "Elements found at the start beyond the last good. They stay until every source has answered.",
        "`> 0` for a day: which source does not answer?")] = 0  # fmt: skip
    elements_desired: Annotated[int, gauge("kernel_elements", "Elements that should be in the kernel.")] = 0
    masks: Annotated[int, gauge("kernel_masks", "Masks in use, of both families and of bindings.")] = 0
    sets: Annotated[int, gauge("kernel_sets", "Allowlist sets in the kernel.")] = 0
    pending: Annotated[int, gauge("kernel_pending_operations", "Operations that wait to be sent.",
        "does not come back to 0")] = 0  # fmt: skip
    transactions: Annotated[int, counter("kernel_transactions", "Transactions that the kernel took.")] = 0
    elements: int = 0
    """Added or removed by them."""
    commit_seconds: Annotated[float, summary("kernel_commit_seconds",
        "Time from sending a transaction to the kernel's acknowledgement.",
        "the mean, `rate(…_sum) / rate(…_count)`, is over 0.1 s", times="transactions")] = 0.0  # fmt: skip
    failures: Annotated[int, counter("kernel_failures",
        "Transactions and readings that the kernel refused or lost.", "rises for 5 min")] = 0  # fmt: skip
    last_error: str | None = None
    last_commit_at: str | None = None
    last_verified_at: Annotated[str | None, gauge("kernel_last_verified_timestamp_seconds",
        "When the kernel was last read back whole, Unix time; absent before the first time.",
        "older than three times `kernel.verify_every`")] = None  # fmt: skip
    repairs: Annotated[int, counter("kernel_repairs", "Changes by other programs that were undone.",
        "rises: find the program")] = 0  # fmt: skip
    notifications_lost: Annotated[int, counter("kernel_notifications_lost",
        "Times that changes by other programs were lost; everything was compared again.")] = 0  # fmt: skip
    late_admissions: int = 0
    found: Found | None = None
    """None once the kernel was read."""
    generation: int = 0


class Generations:
    """The generation that the kernel should have by now, between `low` and `high`."""

    def __init__(self) -> None:
        self._base = self._low = self._high = 0
        self.unreported = 0
        """Commits of others that we were not told of, or not yet: the kernel tells after the fact."""

    def read(self, generation: int) -> None:
        """All that was committed up to this generation is known from a reading."""
        self._base = self._low = self._high = generation

    def committed(self, *, surely: bool) -> None:
        """We did. Not `surely`: the kernel counts no transaction that changes nothing, as adding what is there."""
        self._low += surely
        self._high += 1

    def reported(self, generation: int) -> None:
        """Somebody else did. From before the last reading it says nothing new, unless it was waited for."""
        if generation > self._base:
            self._low += 1
            self._high += 1
        elif self.unreported:
            self.unreported -= 1

    def explain(self, generation: int) -> bool:
        """Whether the kernel's generation is what it should be."""
        explained = self._low <= generation <= self._high
        self.unreported = max(0, generation - self._high)
        self.read(generation)
        return explained
