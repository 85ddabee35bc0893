"""The faults of `./run proof`, in the order of the table.

host        the process: killed, stopped, without memory or files
disk        its state directory; power: as of any earlier write
registry    where registrations come from, and names
accounting  where bindings come from
clock       the host's time
kernel      other programs and the kernel's tables; kernels without a part
            (without, lacking: a program, or the daemon, on such a kernel)
network     links, connection tracking, floods (flood: what sends them)
forms       registrations that change form while other faults happen
"""

from __future__ import annotations

from tests.proof.faults import accounting, clock, disk, forms, host, kernel, network, power, registry
from tests.proof.harness import Fault

FAULTS = (
    *host.FAULTS,
    *disk.FAULTS,
    *power.FAULTS,
    *registry.FAULTS,
    *accounting.FAULTS,
    *clock.FAULTS,
    *kernel.FAULTS,
    *network.FAULTS,
    *forms.FAULTS,
)


def fault_named(name: str) -> Fault:
    """Raises StopIteration."""
    return next(each for each in FAULTS if each.name == name)
