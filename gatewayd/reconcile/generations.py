"""Which of the kernel's ruleset generations are accounted for; pure.

Every transaction of any program raises the generation by one. Ours we know, others' we are told of; a generation
that is neither is a commit that nobody told us of.
"""

from __future__ import annotations


class Generations:
    """The generation that the kernel should have by now, between `low` and `high`."""

    def __init__(self) -> None:
        self._base = self._low = self._high = 0
        self.untold = 0
        """Commits that somebody did and that we were not told of, or not yet: the kernel tells after the fact."""

    def read(self, generation: int) -> None:
        """All that was committed up to this generation is known from a reading."""
        self._base = self._low = self._high = generation

    def committed(self, *, surely: bool) -> None:
        """We did. Not `surely`: the kernel counts no transaction that changes nothing, as adding what is there."""
        self._low += surely
        self._high += 1

    def told(self, generation: int) -> None:
        """Somebody else did. From before the last reading it says nothing new, unless it was waited for."""
        if generation > self._base:
            self._low += 1
            self._high += 1
        elif self.untold:
            self.untold -= 1

    def explain(self, generation: int) -> bool:
        """Whether the kernel's generation is what it should be."""
        explained = self._low <= generation <= self._high
        self.untold = max(0, generation - self._high)
        self.read(generation)
        return explained
