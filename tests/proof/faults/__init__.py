"""The faults of `./run proof`, in the order of the table.

host        the process, its machine and its clock
kernel      other programs and the kernel's tables; kernels without a part
            (without, lacking: a program, or the daemon, on such a kernel)
network     links, connection tracking, floods (flood: what sends them)
"""

from __future__ import annotations

from tests.proof.faults import accounting, clock, disk, host, kernel, network, registry

FAULTS = (
    *host.FAULTS,
    *disk.FAULTS,
    *registry.FAULTS,
    *accounting.FAULTS,
    *clock.FAULTS,
    *kernel.FAULTS,
    *network.FAULTS,
)
