"""Which lines of gatewayd follow which, while an input is read. Slow: about ten times the time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

Arc = tuple[int, int, int]
_OURS = "/gatewayd/"


class ArcRecorder:
    """Arcs met so far by `record`. A code object is one number, a line the other two: from, to."""

    def __init__(self) -> None:
        self.arcs: set[Arc] = set()
        self._numbers: dict[CodeType, int] = {}
        self._new = 0

    def record(self, work: Callable[[], Any]) -> int:
        """How many arcs it met that none before had met. Of this thread."""
        self._new = 0
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            work()
        finally:
            sys.settrace(before)
        return self._new

    def _enter(self, frame: FrameType, event: str, _: Any) -> Callable[[FrameType, str, Any], Any] | None:
        code = frame.f_code
        if event != "call" or _OURS not in code.co_filename:
            return None
        number = self._numbers.setdefault(code, len(self._numbers))
        last = 0

        def follow(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            if event == "line":
                arc = (number, last, frame.f_lineno)
                last = frame.f_lineno
                if arc not in self.arcs:
                    self.arcs.add(arc)
                    self._new += 1
            elif event == "exception":
                arc = (number, last, -1)
                if arc not in self.arcs:
                    self.arcs.add(arc)
                    self._new += 1
            return follow

        return follow
