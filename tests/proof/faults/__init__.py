"""The faults of `./run proof`, in the order of the table.

host        the process, its machine and its clock
kernel      other programs and the kernel's tables; kernels without a part
            (without, lacking: a program, or the daemon, on such a kernel)
"""

from __future__ import annotations

from tests.proof.faults import host, kernel

FAULTS = (*host.FAULTS, *kernel.FAULTS)
