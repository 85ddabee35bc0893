"""The log: an event is a name and fields, and is one line; under systemd it is an entry of the journal with fields.

    logger = get_logger(__name__)
    logger.info("reconcile.applied", added=3, removed=1, duration_ms=4.2, cause=cause)

- `events`   the declarations: name, level, fields and meaning of every event, and the table of docs/operations.md.
- `event`    how one is declared; `provider_events`: those of licensed providers, `host_events`: of the host.
- `logger`   structlog's bound logger over the standard library's; the rate-limited one; where records go.
- `lines`    a record → a line of text or of JSON.
- `journald` a record → the fields of an entry of the journal.
- `ring`     the latest events that a person follows, with ids.
- `tap`      hands these from every logger to readers.
- `queued`   the handlers' thread: an output that does not read never blocks the caller.

Records of other libraries take the same way: the event is the logger's name, the text is a field.

Review notes: is the event declared, with the fields that it has in the code (a test compares)? Can a field carry a
number, a name or a secret of a subscriber? Who could flood it, and is it rate-limited? Does it say who did what?
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _without_rich() -> Iterator[None]:
    """structlog imports rich where it is installed, for tracebacks in colour that are not used here: 5 MB and 50 ms
    of each process. A module that is None in `sys.modules` is as one that is not installed (Python reference,
    §5.3.1)."""
    if "rich" in sys.modules:
        yield
        return
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["rich"]


with _without_rich():
    from gatewayd.log.logger import Format, Level, Logger, RateLimited, get_logger, setup_logging
    from gatewayd.log.queued import LOST, is_any_stuck

__all__ = ["LOST", "Format", "Level", "Logger", "RateLimited", "get_logger", "is_any_stuck", "setup_logging"]
