"""Arguments in the words of the configuration file: durations and shares. They mean the same in every command."""

from __future__ import annotations

from typing import Final

import click

from gatewayd.settings.values import parse_duration, parse_percent

MAX_TIMER_S: Final = 366 * 86400.0


class Duration(click.ParamType[float]):
    """Seconds, from 1 s to MAX_TIMER_S."""

    name = "duration"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_duration(value, 1.0, MAX_TIMER_S)
        except ValueError as error:
            self.fail(f"{value!r} {error}, expected a duration from 1s to 366d such as 10m", param, ctx)


class Percent(click.ParamType[int]):
    """A whole share of 0 to 100, with its sign."""

    name = "percent"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_percent(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}, expected a share from 0% to 100%", param, ctx)
