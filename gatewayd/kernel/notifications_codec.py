"""The kernel's notifications of nf_tables changes → what somebody else committed to our table; pure.

A transaction is told object by object, at commit and in order, each message with the netlink port of its sender
(nlmsg_pid); a NEWGEN with generation, process id and name of the program ends it
(net/netfilter/nf_tables_api.c: nf_tables_commit, nf_tables_gen_notify).
"""

from __future__ import annotations

from collections.abc import Iterator

from gatewayd.kernel import attributes as nl
from gatewayd.kernel import tables_codec as codec
from gatewayd.model.external import ElementChange, ExternalCommit

NFNLGRP_NFTABLES = 7
MAX_CHANGES = 4096
"""Elements remembered of one transaction. Of a larger one it is only known that there was one."""

_TABLE, _SET_NAME = 1, 2
_GEN_ID, _GEN_PROC_PID, _GEN_PROC_NAME = 1, 2, 3
_FAMILY = bytes((codec.NFPROTO_INET,))
_HARMLESS = frozenset({codec.NEWOBJ, codec.SUBSYSTEM | 20})
"""Counters that came (NFT_MSG_NEWOBJ) or went (NFT_MSG_DELOBJ): no packet's fate hangs on them alone."""


class NoticeDecoder:
    """Fed with datagrams in their order. `own_ports`: netlink ports whose transactions are ours."""

    def __init__(self, table: str) -> None:
        self.own_ports: set[int] = set()
        self._table = table
        # The table's name is attribute 1 of every object.
        self._marker = nl.text(_TABLE, table)
        self._elements: dict[tuple[str, bytes], bool] = {}
        self._others = self._unlisted = False

    def feed(self, datagram: bytes) -> Iterator[ExternalCommit]:
        """The transactions that end in this datagram. Raises EventMalformed; then `reset` is due.

        What another table is about costs one search for our table's name.
        """
        if (self._unlisted or self._marker not in datagram) and not _is_end(datagram):
            return
        for kind, _, _, start, end in nl.iter_messages(datagram):
            port = nl.MESSAGE_HEADER.unpack_from(datagram, start - nl.MESSAGE_HEADER.size)[4]
            if port in self.own_ports:
                continue
            if kind == codec.NEWGEN:
                yield self._finish(nl.attributes_of(datagram, start + 4, end))
            elif kind not in _HARMLESS and datagram[start : start + 1] == _FAMILY and not self._unlisted:
                self._take(kind, datagram, start + 4, end)

    def reset(self) -> None:
        """Forget the transaction that is under way: some of it was lost."""
        self._elements = {}
        self._others = self._unlisted = False

    def _take(self, kind: int, datagram: bytes, start: int, end: int) -> None:
        fields = nl.attributes_of(datagram, start, end)
        if nl.string_of(fields.get(_TABLE, b"")) != self._table:
            return
        if kind not in (codec.NEWSETELEM, codec.DELSETELEM):
            self._others = True
            return
        if len(self._elements) >= MAX_CHANGES:
            self._others = self._unlisted = True
            return
        name = nl.string_of(fields.get(_SET_NAME, b""))
        for key in codec.decode_elements(datagram, start, end):
            self._elements[(name, key)] = kind == codec.NEWSETELEM

    def _finish(self, fields: dict[int, bytes]) -> ExternalCommit:
        changes = (ElementChange(name, key, present) for (name, key), present in self._elements.items())
        commit = ExternalCommit(
            nl.uint_of(fields.get(_GEN_ID, b"")),
            nl.uint_of(fields.get(_GEN_PROC_PID, b"")),
            nl.string_of(fields.get(_GEN_PROC_NAME, b"")),
            tuple(changes),
            self._others,
            self._unlisted,
        )
        self.reset()
        return commit


def _is_end(datagram: bytes) -> bool:
    """Whether it begins with the NEWGEN that ends a transaction: the kernel sends that by itself."""
    return len(datagram) >= 16 and nl.MESSAGE_HEADER.unpack_from(datagram)[1] == codec.NEWGEN
