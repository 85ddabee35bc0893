"""The faults of `./run proof`, in the order of the table.

host        the process, its machine and its clock
"""

from __future__ import annotations

from tests.proof.faults import host

FAULTS = (*host.FAULTS,)
