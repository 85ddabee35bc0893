"""One run of one subject: `python -m tests.bench.worker ROW SUBJECT SIZE MATERIAL SCRATCH`, its figures as the
last line of stdout.

Started in a network namespace of its own, whose loopback it brings up. Exits 3 with the reason on stderr when the
subject cannot be run on this machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from gatewayd.errors import MissingPrerequisite
from tests.bench.row import Context
from tests.bench.rows import find_row

CANNOT = 3


def main(arguments: list[str]) -> int:
    row_name, subject_name, size, material, scratch = arguments
    row = find_row(row_name)
    subject = next(each for each in row.subjects if each.name == subject_name)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    try:
        figures = subject.measure(Context(int(size), Path(material), Path(scratch)))
    except MissingPrerequisite as error:
        print(error, file=sys.stderr)
        return CANNOT
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(msgspec.json.encode(dict(figures)).decode(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
