"""`gatewayd explain`: why a flow passes or does not, the verdict first."""

from __future__ import annotations

from collections.abc import Iterator

import click

from gatewayd.api.explanation import MATCH_COLUMNS, describe_explanation, match_row, verdict
from gatewayd.api.queries import ParameterRejected, read_flow
from gatewayd.api.views import ExplainView
from gatewayd.cli.client import Endpoint, daemon_options
from gatewayd.cli.nearest import did_you_mean
from gatewayd.cli.output import (
    DOUBTFUL,
    Line,
    print_headline,
    print_json,
    print_lines,
    print_table,
)
from gatewayd.cli.probe import print_probe
from gatewayd.model.service import BUNDLES, PROTOCOL_NUMBERS


@click.command("explain")
@click.argument("src")
@click.argument("dst")
@click.argument("service")
@click.option(
    "--source-port",
    "--sport",
    "sport",
    type=click.IntRange(1, 65535),
    help="Source port; it decides where subscribers share an address (CGNAT), and nowhere else.",
)
@click.option("--in", "incoming", metavar="IF", help="Interface that it comes in by.")
@click.option("--out", "outgoing", metavar="IF", help="Interface that it leaves by.")
@click.option(
    "--probe",
    is_flag=True,
    help="Ask all tables of this host, with a packet in a copy of them. As root; the daemon is not asked.",
)
@daemon_options
def command(
    endpoint: Endpoint,
    src: str,
    dst: str,
    service: str,
    sport: int | None,
    incoming: str | None,
    outgoing: str | None,
    probe: bool,
    as_json: bool,
) -> None:
    """Say why a flow passes or does not.

    SRC opened the flow towards DST. SERVICE is one word, with the destination port where there is one:
    udp/51820, tcp/1194, esp, gre.

    Rules judge what goes between inside and outside (`policy.interfaces`). Without --in and --out the routing table
    of this host says which interfaces these are, and the answer says so.

    --probe asks the tables of other programs too: which chains the packet meets, and which rule has the last word.
    Nothing is sent through this host. All that nf_tables has is copied into a scratch network namespace. There a
    packet is traced through it.
    """
    parameters = _parameters(src, dst, service, sport)
    if (incoming is None) != (outgoing is None):
        raise click.UsageError("give --in and --out, or neither")
    if probe:
        if endpoint.url is not None:
            raise click.UsageError("--probe asks this host, and --url another")
        print_probe(read_flow(parameters), service, incoming, outgoing, as_json=as_json)
        return
    is_routed = incoming is None and endpoint.url is None
    ways = (_route(src), _route(dst)) if is_routed else (incoming, outgoing)
    body = endpoint.get("/v1/explain", {**parameters, "in": ways[0], "out": ways[1]})
    view = endpoint.parse(body, ExplainView)
    if as_json:
        print_json(body)
        return
    uncrossed = f"from {ways[0]} to {ways[1]}" if view.crosses is False else None
    print_headline(*(verdict(view) if uncrossed is None or is_routed else _not_judged(view, uncrossed)))
    print_lines(_describe_way(view, ways, is_routed=is_routed))
    print_lines(describe_explanation(view))
    _print_matches(view)


def _print_matches(view: ExplainView) -> None:
    if view.matches:
        print_table(MATCH_COLUMNS, list(map(match_row, view.matches)))


def _parameters(src: str, dst: str, service: str, sport: int | None) -> dict[str, str]:
    """Raises click.BadParameter."""
    parameters = {"src": src, "dst": dst, "service": service}
    if sport is not None:
        parameters["sport"] = str(sport)
    try:
        read_flow(parameters)
    except ParameterRejected as error:
        name = "--source-port" if error.parameter == "sport" else error.parameter.upper()
        protocol = service.partition("/")[0]
        is_unknown = error.parameter == "service" and protocol not in PROTOCOL_NUMBERS
        near = did_you_mean(protocol, [*PROTOCOL_NUMBERS, *BUNDLES]) if is_unknown else ""
        raise click.BadParameter(f"{error.why}.{near}" if near else error.why, param_hint=f"'{name}'") from None
    return parameters


def _describe_way(view: ExplainView, ways: tuple[str | None, str | None], *, is_routed: bool) -> Iterator[Line]:
    """The interfaces of a flow, where they are known."""
    if view.crosses is False and is_routed:
        why = "which are not inside and outside: then the rules do not judge it (--in, --out)"
        yield Line("interfaces", f"by the routing table it goes from {ways[0]} to {ways[1]}, {why}", DOUBTFUL)
    elif view.crosses is not None:
        yield Line("interfaces", f"{ways[0]} to {ways[1]}{', by the routing table' if is_routed else ''}")


def _route(address: str) -> str | None:
    from gatewayd.kernel.external import read_route

    return read_route(address)


def _not_judged(view: ExplainView, uncrossed: str) -> tuple[str, str]:
    flow = f"{view.service} from {view.src} to {view.dst}"
    why = f"it goes {uncrossed}, and the rules judge what goes between inside and outside alone"
    return f"{flow} PASSES: {why}", DOUBTFUL
