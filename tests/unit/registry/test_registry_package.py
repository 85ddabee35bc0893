"""The package's design note."""

from __future__ import annotations

import re
from pathlib import Path

from gatewayd import registry

NOTE = registry.__doc__ or ""


def test_the_design_note_names_every_module_and_nothing_that_is_none() -> None:
    directory = Path(registry.__file__).parent
    modules = {path.stem for path in directory.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    listed = NOTE[NOTE.index("Modules, in the order of the data") : NOTE.index("Decisions.")]
    assert set(re.findall(r"`(\w+)`", listed)) == modules - {"__init__"}


def test_the_design_note_ends_with_its_review_notes() -> None:
    assert NOTE.rstrip().rpartition("\n\n")[2].startswith("Review notes: ")
