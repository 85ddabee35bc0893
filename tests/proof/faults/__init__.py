"""The faults of `./run proof`, in the order of the table.

host        the process, its machine and its clock
"""

from __future__ import annotations

from tests.proof.faults import accounting, clock, disk, host, registry

FAULTS = (*host.FAULTS, *disk.FAULTS, *registry.FAULTS, *accounting.FAULTS, *clock.FAULTS)
