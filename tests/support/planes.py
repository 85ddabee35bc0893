"""Dataplanes for tests: the fake with a table to tamper with, and the kernel of a namespace of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gatewayd.kernel.netlink import NetlinkChannel
from gatewayd.kernel.tables import KernelTables
from tests.support.namespace import Namespace

TABLE = "gatewayd"


@contextmanager
def kernel_tables(namespace: Namespace, scratch: Path) -> Iterator[KernelTables]:
    """KernelTables on the namespace's kernel; its `nft` is a script that goes there first."""
    script = scratch / "nft"
    script.write_text(f'#!/bin/sh\nexec nsenter --net={namespace.path} nft "$@"\n')
    script.chmod(0o755)
    with namespace.entered():
        tables = KernelTables(TABLE, NetlinkChannel.open(), NetlinkChannel.open(), str(script))
    try:
        yield tables
    finally:
        tables.close()
