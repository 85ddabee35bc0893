"""Work in a thread of its own, for as long as a `with` lasts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer
from typing import Self


class Background:
    """`_run` until `_stopping` is set, and then `_close`. An error of the thread is raised at the end."""

    def __init__(self, name: str) -> None:
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def _run(self) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        """Give back what the thread had."""

    def _work(self) -> None:
        try:
            self._run()
        except BaseException as failure:
            self._failure = failure

    def _finish(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._close()
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()


@contextmanager
def serving(server: HTTPServer, poll_s: float = 0.01) -> Iterator[None]:
    """The server answers, and is closed at the end. `poll_s`: after which it sees that it shall end."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": poll_s})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
