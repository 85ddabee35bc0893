"""`python -m tests.fuzz.minimal INPUTS`: what a campaign kept, as few files as reach the same, into the corpus.

Short inputs come first; one that reaches nothing beyond seeds, corpus and shorter ones is left where it is.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.fuzz.coverage import ArcRecorder
from tests.fuzz.target import CORPUS, Target
from tests.fuzz.targets import TARGETS


def minimal(target: Target, some: Iterable[bytes]) -> list[bytes]:
    """Those that reach a line after another which neither the corpus nor a shorter one reaches."""
    recorder = ArcRecorder()
    for raw in target.corpus():
        recorder.record(lambda raw=raw: target.execute(raw))  # type: ignore[misc]
    ordered = sorted(some, key=lambda raw: (len(raw), raw))
    return [raw for raw in ordered if recorder.record(lambda raw=raw: target.execute(raw))]  # type: ignore[misc]


def main(inputs: Path) -> None:
    logging.getLogger().setLevel(logging.CRITICAL + 1)
    for name, target in TARGETS.items():
        found = minimal(target, (path.read_bytes() for path in (inputs / name).glob("*")))
        directory = CORPUS / name
        for raw in found:
            directory.mkdir(exist_ok=True)
            (directory / hashlib.sha256(raw).hexdigest()[:16]).write_bytes(raw)
        print(f"{name:26} {len(found):>4} of {len(list((inputs / name).glob('*'))):>4}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
