"""What is published: the sources, with parties in their present forms, and the directory of local files."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Final

from gatewayd.model import Registration
from gatewayd.model.assertion import Assertion, AssertionKind
from gatewayd.model.prefix import parse_address
from gatewayd.model.service import parse_service
from gatewayd.sources.override_file import Filter, OverrideFile, Pin
from tests.simulation.life import Lives
from tests.simulation.parties import FLOWS, PARTIES, SOURCES
from tests.simulation.truth import Truth
from tests.support.reconciling import registered

_PINNED: Final = [
    registered("pin-1", "203.0.113.10", services=["ipsec"]),
    registered("pin-2", "10.0.0.0/30"),
    registered("pin-3", "198.18.0.1"),
]
_WORDS: Final[tuple[tuple[AssertionKind, str, str, str], ...]] = (
    ("must_pass", "bank", "203.0.113.8", "udp/500"),
    ("must_pass", "host", "10.0.0.5", "udp/51820"),
    ("must_not_pass", "stranger", "198.18.0.3", "udp/500"),
)
_ASSERTED: Final = [
    Assertion(
        kind, name, parse_address(source), parse_address("192.0.2.1"), parse_service(service), "ticket", inf, 1
    )
    for kind, name, source, service in _WORDS
]
_FILTERED: Final = ("", "bank", "h-10.0.0.5", "net")


class Registries:
    """`published`: by source, each state never changed; `failing`: sources that answer with an error, `silent`:
    that do not answer."""

    def __init__(self, truth: Truth, lives: Lives) -> None:
        self.published: Mapping[str, Mapping[str, Registration]] = {name: {} for name in SOURCES}
        self.serials = dict.fromkeys(SOURCES, 0)
        self.files: tuple[OverrideFile, ...] = ()
        self.failing: set[str] = set()
        self.silent: set[str] = set()
        self._truth, self._lives = truth, lives
        self._forms: dict[str, int] = {}
        self._pins: set[int] = set()
        self._filter = 0
        self._laid: tuple[OverrideFile, ...] = ()
        self._asserted: set[int] = set()

    def publish(self, *moves: tuple[str, int]) -> None:
        """`moves`: parties, each with its next form."""
        self._forms.update(moves)
        for source in SOURCES:
            now = {
                each.id: each
                for name, form in sorted(self._forms.items())
                if PARTIES[name][0] == source
                for each in PARTIES[name][1][form % len(PARTIES[name][1])]
            }
            if now != self.published[source]:
                self.published = {**self.published, source: now}
                self.serials[source] += 1
                self._truth.note_published(source, now)
                if (life := self._lives.life) is not None:
                    life.pokes[source].set()

    def change_files(self, pin: int, filter: int) -> None:
        """A pin comes or goes, and another filter stands."""
        self._pins ^= {pin}
        self._filter = filter
        self._write_files()

    def change_assertions(self, number: int) -> None:
        """One comes or goes."""
        self._asserted ^= {number}
        self._write_files()

    def note_laid(self, files: tuple[OverrideFile, ...]) -> None:
        """The process goes by these."""
        self._laid = files

    def asserted(self) -> int:
        """Flows that must pass by files that are as the process has them."""
        if self._laid is not self.files:
            return 0
        flows = {(each.source, each.services[0].low) for file in self.files for each in file.assertions
                 if each.kind == "must_pass"}  # fmt: skip
        return sum(1 << n for n, each in enumerate(FLOWS) if (each.source, each.destination_port) in flows)

    def drop_assertions(self) -> None:
        """All of them go: nothing is refused for one."""
        if self._asserted:
            self._asserted = set()
            self._write_files()

    def _write_files(self) -> None:
        pins = tuple(Pin(_PINNED[each], "ticket", inf, 1, "a.yaml") for each in sorted(self._pins))
        id = _FILTERED[self._filter]
        filters = (Filter(id, None, "ticket", inf, 1, "a.yaml"),) if id else ()
        assertions = tuple(_ASSERTED[each] for each in sorted(self._asserted))
        self.files = (OverrideFile("a.yaml", pins, filters, assertions),)
        self._truth.note_files(self.files)
        if (life := self._lives.life) is not None:
            life.files_changed.set()

    def fail_source(self, number: int, is_failing: bool) -> None:
        self.failing = {*self.failing, SOURCES[number]} if is_failing else self.failing - {SOURCES[number]}

    def silence_source(self, number: int, is_silent: bool) -> None:
        self.silent = {*self.silent, SOURCES[number]} if is_silent else self.silent - {SOURCES[number]}

    def answer_all(self) -> None:
        self.failing, self.silent = set(), set()
