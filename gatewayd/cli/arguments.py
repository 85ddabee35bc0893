"""Arguments that mean the same in every command: durations, shares and addresses as in the configuration file, and
pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import click

from gatewayd.api.queries import DEFAULT_LIMIT, HIGHEST_LIMIT
from gatewayd.settings.values import ListenAddress, parse_duration, parse_listen_address, parse_percent

MAX_TIMER_S: Final = 366 * 86400.0
_Function = TypeVar("_Function", bound=Callable[..., object])


def limit_options(function: _Function) -> _Function:
    """`--limit` and `--offset`, each None where it is not given."""
    limit = click.option(
        "--limit", type=click.IntRange(1, HIGHEST_LIMIT), help=f"At most.  [default: {DEFAULT_LIMIT}]"
    )
    return limit(click.option("--offset", type=click.IntRange(0), help="Leave out so many.")(function))


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


class Listen(click.ParamType[ListenAddress]):
    """An address and a port; names are not resolved."""

    name = "address:port"

    def convert(
        self, value: str | ListenAddress, param: click.Parameter | None, ctx: click.Context | None
    ) -> ListenAddress:
        if isinstance(value, ListenAddress):
            return value
        try:
            return parse_listen_address(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}, expected one such as 127.0.0.1:9480 or [::1]:9480", param, ctx)
