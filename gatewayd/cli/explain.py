"""`gatewayd explain`: why a flow passes or does not, the verdict first."""

from __future__ import annotations

from collections.abc import Iterator

import click

from gatewayd.api.queries import ParameterRejected, read_flow
from gatewayd.api.views import ExplainView, effect_of
from gatewayd.cli.client import Endpoint, daemon_options
from gatewayd.cli.nearest import did_you_mean
from gatewayd.cli.output import (
    BAD,
    DOUBTFUL,
    GOOD,
    IN_KERNEL,
    Line,
    place,
    print_headline,
    print_json,
    print_lines,
    print_table,
    some,
    span,
)
from gatewayd.model.service import BUNDLES, PROTOCOL_NUMBERS

_EFFECTS = {
    "pass": ("PASSES, but is not registered: an element in the kernel has it", DOUBTFUL),
    "observe": ("PASSES, but is not registered: it is only observed", DOUBTFUL),
    "mark": ("PASSES, but is not registered: it is marked", DOUBTFUL),
    "limit": ("IS LIMITED: it is not registered", BAD),
    "reject": ("IS REJECTED: it is not registered", BAD),
}

_MEANWHILE = {
    "observe": "it passes because it is only observed",
    "mark": "it passes, marked as unregistered",
    "limit": "it is limited",
    "reject": "it is rejected",
}


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
@daemon_options
def command(
    endpoint: Endpoint,
    src: str,
    dst: str,
    service: str,
    sport: int | None,
    incoming: str | None,
    outgoing: str | None,
    as_json: bool,
) -> None:
    """Say why a flow passes or does not.

    SRC opened the flow towards DST. SERVICE is one word, with the destination port where there is one:
    udp/51820, tcp/1194, esp, gre.

    Rules judge what goes between inside and outside (`policy.interfaces`). Without --in and --out the routing table
    of this host says which interfaces these are, and the answer says so.
    """
    parameters = _parameters(src, dst, service, sport)
    if (incoming is None) != (outgoing is None):
        raise click.UsageError("give --in and --out, or neither")
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
    if view.matches:
        print_table(
            ("registration", "category", "registrant is", "client", "peers", "services", "until"),
            [
                (
                    match.id,
                    match.category,
                    match.role,
                    match.client or "by binding",
                    some(match.peers),
                    some(match.services),
                    match.valid_until or "open",
                )
                for match in view.matches
            ],
        )


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


def verdict(view: ExplainView) -> tuple[str, str]:
    """A sentence and its style."""
    flow = f"{view.service} from {view.src} to {view.dst}"
    if view.decision == "out_of_scope":
        return f"{flow} PASSES: the policy does not look at this service", GOOD
    if view.decision == "registered":
        if view.in_kernel is False:
            effect = view.effect if view.effect != "pass" else effect_of("unregistered", view.mode, view.canary)
            return f"{flow} is registered, but NOT IN THE KERNEL: until it is there, {_MEANWHILE[effect]}", BAD
        if view.in_kernel is None:
            return f"{flow} is registered; WHETHER THE KERNEL HAS IT IS NOT KNOWN", DOUBTFUL
        return f"{flow} PASSES: it is registered and in the kernel", GOOD
    words, style = _EFFECTS[view.effect]
    if view.canary in ("source", "destination") and view.effect != "observe":
        other = view.dst if view.canary == "source" else view.src
        return f"{flow} {words}; but if {other} is the end inside, it is only observed", DOUBTFUL
    return f"{flow} {words}", style


def describe_explanation(view: ExplainView) -> Iterator[Line]:
    """Everything under the verdict but the table."""
    yield Line("reason", view.reason)
    for number, note in enumerate(view.notes):
        yield Line("" if number else "note", note, DOUBTFUL)
    yield Line("decision", view.decision)
    yield Line("effect", view.effect)
    yield Line("in kernel", IN_KERNEL[view.in_kernel])
    for binding in view.bindings:
        when = f"{span(binding.age_s)} ago"
        restored = ", before a restart of gatewayd and not since" if binding.restored else ""
        where = place(binding.prefix, binding.ports)
        yield Line("through", f"{where}, reported by {binding.nas} {when}{restored}", DOUBTFUL if restored else "")
    canary = {
        "in": ", this client is in the canary",
        "out": ", this client is outside of the canary",
        "source": f", the canary goes by the end inside: {view.src} is in it, {view.dst} is not",
        "destination": f", the canary goes by the end inside: {view.dst} is in it, {view.src} is not",
    }
    yield Line("mode", view.mode + canary.get(view.canary or "", ""))
