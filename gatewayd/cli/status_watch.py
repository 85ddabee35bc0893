"""`gatewayd status --watch`: the one screen, drawn again every EVERY_S.

What does not fit is not drawn, and the last line says so; what is wrong comes first in a status, so that is there.
A daemon that stops answering leaves its last status, and above it since when.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gatewayd.api.status import StatusView
from gatewayd.cli.client import Endpoint
from gatewayd.cli.output import BAD, DOUBTFUL, count, drawable_console, headline_text
from gatewayd.errors import DaemonNotReachable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.text import Text

EVERY_S: Final = 2.0


def watch(endpoint: Endpoint, texts_of: Callable[[StatusView], list[Text]]) -> None:
    """Until interrupted. Raises DaemonNotReachable where the daemon does not answer the first time."""
    from rich.live import Live

    console = drawable_console("--watch", "use: gatewayd status, or gatewayd events --follow")
    view = endpoint.parse(endpoint.get("/v1/status"), StatusView)
    lost: list[Text] = []
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_Fitting([*lost, *texts_of(view)]), refresh=True)
            time.sleep(EVERY_S)
            try:
                view = endpoint.parse(endpoint.get("/v1/status"), StatusView)
                lost = []
            except DaemonNotReachable as error:
                lost = [headline_text(f"{error}; what follows is of {view.now}", BAD)]


@dataclass(frozen=True, slots=True)
class _Fitting:
    """Texts as far as the screen has lines for them."""

    texts: Sequence[Text]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        lines = [line for text in self.texts for line in text.wrap(console, options.max_width)]
        room = options.max_height
        if len(lines) > room:
            more = len(lines) - room + 1
            lines[room - 1 :] = [headline_text(f"... {count(more, 'line')} more: gatewayd status", DOUBTFUL)]
        yield from lines
