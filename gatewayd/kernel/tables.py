"""The real dataplane: one nf_tables table over netlink, rules through `nft -f`."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self

from gatewayd.compile.ruleset import parse_tag, replace_script
from gatewayd.errors import DumpInterrupted, MissingPrerequisite, OperationRefused, RulesetAbsent
from gatewayd.kernel import attributes as nl
from gatewayd.kernel import nft
from gatewayd.kernel import tables_codec as codec
from gatewayd.kernel.external import NotificationSocket, read_generation
from gatewayd.kernel.netlink import NetlinkChannel, RefusedAt
from gatewayd.model.mask import describe_key, parse_set_name
from gatewayd.model.transaction import (
    CounterReading,
    ElementOperation,
    ExternalChanges,
    ObservedSet,
    Ruleset,
    RulesTag,
    TableReading,
    Transaction,
    describe_operation,
)

INTERRUPTIONS = 5
"""Times that a dump begins again because another program committed in between."""


class KernelTables:
    """Dataplane on the kernel of the network namespace in which `open` was called.

    Two sockets: a long dump on one never holds up a commit on the other. A third receives commits of others.
    """

    def __init__(self, table: str, commits: NetlinkChannel, dumps: NetlinkChannel, nft_path: str) -> None:
        self._table = table
        self._commits = commits
        self._dumps = dumps
        self._nft = nft_path
        self._notifications = NotificationSocket(table, commits.port)

    @classmethod
    def open(cls, table: str) -> Self:
        """Raises MissingPrerequisite: nft, netfilter netlink."""
        return cls(table, NetlinkChannel.open(), NetlinkChannel.open(), nft.find_nft())

    def close(self) -> None:
        self._notifications.close()
        self._commits.close()
        self._dumps.close()

    def watch(self, on_change: Callable[[], None]) -> None:
        self._notifications.start(on_change)

    def unwatch(self) -> None:
        self._notifications.stop()

    def take_changes(self) -> ExternalChanges:
        return self._notifications.take()

    async def check(self) -> None:
        """Raises MissingPrerequisite when this process may not, or this kernel cannot, do nf_tables."""
        await nft.check_nft_version(self._nft)
        try:
            await self.read_generation()
        except OperationRefused as error:
            if error.errno == errno.EPERM:
                raise MissingPrerequisite(
                    "this process may not change the firewall",
                    "run it as root or with the capability CAP_NET_ADMIN",
                ) from None
            raise MissingPrerequisite(
                f"this kernel has no nf_tables ({error})", "load the module nf_tables (CONFIG_NF_TABLES)"
            ) from None

    async def read_table(self) -> TableReading:
        generation = await self.read_generation()
        if not await self._table_exists():
            return TableReading(False, generation=generation)
        sets: list[ObservedSet] = []
        for buffer, start, end in await self._list_whole(codec.GETSET, "list sets"):
            found = codec.decode_set(buffer, start, end)
            if found is not None:
                sets.append(found)
        chains = await self._list_whole(codec.GETCHAIN, "list chains")
        rules = await self._list_whole(codec.GETRULE, "list rules")
        return TableReading(True, tuple(sets), codec.fingerprint_rules(chains, rules), _find_tag(rules), generation)

    async def read_elements(self, set_name: str) -> AsyncIterator[Sequence[bytes]]:
        parsed = parse_set_name(set_name)
        is_bound, seen, rows = parsed is not None and parsed[0].is_bound, set[bytes](), 0
        sequence = self._dumps.take_sequences(1)
        request = codec.encode_dump(codec.GETSETELEM, self._table, sequence, set_name)
        async for datagram in self._dumps.dump(request, sequence, f"list elements of {set_name}"):
            for kind, _, _, start, end in nl.iter_messages(datagram):
                if kind == codec.NEWSETELEM:
                    keys = codec.decode_elements(datagram, start + 4, end)
                    if is_bound:
                        seen.update(keys)
                        rows += len(keys)
                    yield keys
        if rows != len(seen):
            # The table of a set with timeouts grows and shrinks. Where it did so between two pieces of the dump
            # elements come twice, and for each of them another does not come (6.18, without NLM_F_DUMP_INTR).
            raise DumpInterrupted(f"list elements of {set_name}")

    async def commit(self, transaction: Transaction) -> None:
        first = self._commits.take_sequences(1)
        batch = codec.encode_batch(transaction, self._table, first)
        if not batch.operations:
            return
        self._commits.take_sequences(len(batch.operations) - 1)
        try:
            await self._commits.exchange(
                batch.payload,
                batch.first_sequence,
                batch.last_sequence,
                transaction.cause,
                self._notifications.without_ours(transaction.count_elements()),
            )
        except RefusedAt as error:
            operation = batch.operations[error.sequence - batch.first_sequence]
            detail = error.detail
            if error.offset is not None and isinstance(operation, ElementOperation):
                key = codec.element_at(batch.payload, error.sequence, error.offset)
                shown = describe_key(operation.set_name, key) if key is not None else ""
                detail = ", ".join(filter(None, (shown, detail)))
            raise OperationRefused(describe_operation(operation), error.errno, detail) from None

    async def replace_rules(self, ruleset: Ruleset) -> None:
        listed = await self._list_whole(codec.GETCHAIN, "list chains")
        chains = [codec.decode_chain_name(*item) for item in listed]
        await nft.run_script(self._nft, replace_script(ruleset, self._table, chains), self._notifications.own_port)
        await self._find_rules_of(ruleset)

    async def _find_rules_of(self, ruleset: Ruleset) -> None:
        """An exit status is no proof: the kernel must list each chain with its rules and our tag, no less and no
        more. Raises RulesetAbsent."""
        rules = await self._list_whole(codec.GETRULE, "list rules")
        tag = _find_tag(rules)
        if tag is None or tag != parse_tag(ruleset.tag):
            raise RulesetAbsent("none carries their tag" if tag is None else f"they are tagged rules={tag.digest}")
        expected = codec.count_rules(ruleset.text)
        found = Counter(codec.decode_rule_chain(*rule) for rule in rules)
        for chain in sorted(expected.keys() | found.keys()):
            if expected[chain] != found[chain]:
                raise RulesetAbsent(f"chain {chain} has {found[chain]} rules instead of {expected[chain]}")

    async def read_counters(self) -> dict[str, CounterReading]:
        listed = await self._list_whole(codec.GETOBJ, "list counters")
        return dict(codec.decode_counter(buffer, start, end) for buffer, start, end in listed)

    async def read_generation(self) -> int:
        return await read_generation(self._commits)

    async def delete_table(self) -> bool:
        sequence = self._commits.take_sequences(1)
        request = codec.encode_delete_table(self._table, sequence)
        return await self._unless_missing(request, sequence, f"delete table {self._table}")

    async def _table_exists(self) -> bool:
        sequence = self._commits.take_sequences(1)
        request = codec.encode_get_table(self._table, sequence)
        return await self._unless_missing(request, sequence, f"read table {self._table}")

    async def _unless_missing(self, request: bytes, sequence: int, name: str) -> bool:
        try:
            await self._commits.exchange(request, sequence, sequence, name)
        except OperationRefused as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    async def _list_whole(self, kind: int, name: str) -> list[tuple[bytes, int, int]]:
        """All of `_objects`, begun again where another program's commit came in between. Raises DumpInterrupted
        where one always does."""
        for _ in range(INTERRUPTIONS - 1):
            try:
                return [item async for item in self._objects(kind, name)]
            except DumpInterrupted:
                await asyncio.sleep(0)
        return [item async for item in self._objects(kind, name)]

    async def _objects(self, kind: int, name: str) -> AsyncIterator[tuple[bytes, int, int]]:
        """(datagram, start, end) of the attributes of each listed object of our table."""
        sequence = self._commits.take_sequences(1)
        answer = kind - 1
        request = codec.encode_dump(kind, self._table, sequence)
        try:
            async for datagram in self._commits.dump(request, sequence, name):
                for number, _, _, start, end in nl.iter_messages(datagram):
                    # The kernel lists the chains of every table of the family, whichever was asked for.
                    if number == answer and codec.decode_table_name(datagram, start + 4, end) == self._table:
                        yield datagram, start + 4, end
        except OperationRefused as error:
            if error.errno != errno.ENOENT:
                raise


def _find_tag(rules: list[tuple[bytes, int, int]]) -> RulesTag | None:
    for buffer, start, end in rules:
        comment = codec.decode_rule_comment(buffer, start, end)
        tag = parse_tag(comment) if comment else None
        if tag is not None:
            return tag
    return None
