"""Dataplanes for tests: the name of the table to tamper with, and the kernel of a fresh network namespace."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gatewayd.errors import MissingPrerequisite
from gatewayd.kernel.netlink import NetlinkChannel
from gatewayd.kernel.tables import KernelTables
from gatewayd.lab.namespace import Namespace

TABLE = "gatewayd"


@contextmanager
def fresh_namespace(*scripts: str) -> Iterator[Namespace]:
    """A namespace with `lo` up in which each nft script has been applied, or pytest.skip with what is missing."""
    try:
        namespace = Namespace("test")
    except MissingPrerequisite as error:
        pytest.skip(str(error))
    try:
        try:
            namespace.run(["ip", "link", "set", "lo", "up"])
            for script in scripts:
                run_nft(namespace, script)
        except (subprocess.CalledProcessError, OSError) as error:
            pytest.skip(f"nft in a namespace does not work here: {error}")
        yield namespace
    finally:
        namespace.close()


def run_nft(namespace: Namespace, script: str) -> None:
    """Apply an nft script inside, in one transaction."""
    namespace.run(["nft", "-f", "-"], input=script)


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
