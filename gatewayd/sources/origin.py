"""What a source is read from, as the runner sees it: a place that is opened and gives chunks of bytes.

`fetch.HttpSource` and `file_source.FileSource` are origins. An origin raises SourceFailed and nothing else of
its own, and a body that ends without an error is whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Hashable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Body:
    """The opened content of a source.

    `validator` says which content it is, to be given to the next `open`; None where the origin cannot say.
    `chunks` raises SourceFailed if the content is cut short; only what ends without an error may be used.
    """

    chunks: AsyncGenerator[bytes, None]
    validator: Hashable | None = None
    content_type: str | None = None


class Origin(Protocol):
    """A place from which a source is read again and again. `place` names it for people, without secrets."""

    @property
    def place(self) -> str: ...

    def open(self, previous: Hashable | None) -> AbstractAsyncContextManager[Body | None]:
        """Opens the content; None if it is still that of the `previous` validator. Raises SourceFailed."""
        ...
