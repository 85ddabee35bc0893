"""What the status says of a SQLite file in the state directory that no traffic depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from gatewayd.model.metric import counter, gauge

FileState = Literal["closed", "ok", "failing", "newer"]


def takes_writes(state: FileState) -> bool:
    """A file that is not opened yet has refused nothing."""
    return state in ("closed", "ok")


@dataclass(slots=True)
class StateFileView:
    """`state`: `closed`: not opened yet; `failing`: what is to be written waits in memory, within a bound; `newer`:
    another version of gatewayd wrote the file, and this one leaves it alone. `last_error`: of the latest failure.
    `lost`: what no longer fitted into memory while the file failed."""

    name: str
    state: Annotated[FileState, gauge("state_file_ok", "0 while the file does not take what is written.",
        "`== 0` for 10 min: see `gatewayd status`", read=takes_writes)] = "closed"  # fmt: skip
    last_error: str | None = None
    writes: Annotated[int, counter("state_file_writes", "Times that something was written.")] = 0
    failures: Annotated[int, counter("state_file_failures", "Times that the file could not be used.", "rises")] = 0
    set_aside: Annotated[int, counter("state_file_set_aside",
        "Times that the file was damaged, renamed, and begun again.", "rises: look at the disk")] = 0  # fmt: skip
    lost: Annotated[int, counter("state_file_lost", "Rows that were lost while the file failed.", "rises")] = 0
    size_bytes: Annotated[int, gauge("state_file_bytes", "Size of the file.")] = 0
