"""All targets, by name. One module for each kind of input."""

from __future__ import annotations

from tests.fuzz.target import Target
from tests.fuzz.targets import files, http, kernel, registry, subscribers

TARGETS: dict[str, Target] = {
    target.name: target for module in (kernel, registry, subscribers, files, http) for target in module.TARGETS
}
