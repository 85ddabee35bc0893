"""A process whose wall clock is wrong: Debian's libfaketime. Its monotonic clocks stay the host's."""

from __future__ import annotations

from pathlib import Path

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
NOT_INSTALLED = "libfaketime is not installed (apt-get install faketime)"


class WrongClock:
    """`environment` for the process; `set_by` while it runs, too."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set_by(0)

    def set_by(self, seconds: int) -> None:
        """From now on its clock is off by this."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
