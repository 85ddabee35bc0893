"""An explanation: the view of a decision, the verdict as one sentence, and what is behind it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gatewayd.api.text import BAD, DOUBTFUL, GOOD, IN_KERNEL, Line, place, some, span
from gatewayd.api.views import BoundView, ExplainView, MatchView, Role, flow_service, source_port, words_of
from gatewayd.model import (
    Canary,
    Decision,
    DecisionWord,
    Effect,
    Flow,
    Mode,
    Prefix,
    Registration,
    format_address,
    service_words,
)
from gatewayd.model.moment import format_time

MATCH_COLUMNS: Final = ("registration", "category", "registrant is", "client", "peers", "services", "until")
_EFFECTS: Final = {
    "pass": ("PASSES, but is not registered: an element in the kernel has it", DOUBTFUL),
    "observe": ("PASSES, but is not registered: it is only observed", DOUBTFUL),
    "mark": ("PASSES, but is not registered: it is marked", DOUBTFUL),
    "limit": ("IS LIMITED: it is not registered", BAD),
    "reject": ("IS REJECTED: it is not registered", BAD),
}

_MEANWHILE: Final = {
    "observe": "it passes because it is only observed",
    "mark": "it passes, marked as unregistered",
    "limit": "it is limited",
    "reject": "it is rejected",
}


def match_row(match: MatchView) -> tuple[str, ...]:
    """Of MATCH_COLUMNS."""
    return (
        match.id, match.category, match.role, match.client or "by binding", some(match.peers),
        some(match.services), match.valid_until or "open",
    )  # fmt: skip


def effect_of(word: DecisionWord, mode: Mode, canary: Canary | None) -> Effect:
    """What the rules do to such a flow; a client outside of the canary is only observed. Where one of two ends is
    in it, what is done if that one is the client."""
    if word != "unregistered":
        return "pass"
    return "observe" if canary == "out" else mode


def explain_view(
    flow: Flow,
    decision: Decision,
    *,
    mode: Mode,
    canary: Canary | None,
    in_kernel: bool | None,
    bindings: tuple[BoundView, ...] = (),
) -> ExplainView:
    """`mode`: the effective one. `canary`: of the flow's client."""
    return ExplainView(
        decision=decision.word,
        effect=effect_of(decision.word, mode, canary),
        registrations=tuple(registration.id for registration in decision.registrations),
        in_kernel=in_kernel,
        reason=decision.reason,
        src=format_address(flow.source),
        dst=format_address(flow.destination),
        service=flow_service(flow),
        sport=source_port(flow),
        mode=mode,
        canary=canary,
        matches=tuple(match_view(registration, flow) for registration in decision.registrations),
        bindings=bindings,
    )


def match_view(registration: Registration, flow: Flow) -> MatchView:
    """For a registration that matches the flow. `client` is None when a binding, not a prefix, made it match."""
    role: Role = "destination"
    client = _longest_covering(registration.clients, flow.destination)
    source = _longest_covering(registration.clients, flow.source)
    peers = registration.peers
    if client is None or (source and (not peers or _longest_covering(peers, flow.destination))):
        role, client = "source", source
    return MatchView(
        id=registration.id,
        category=registration.category,
        role=role,
        client=None if client is None else str(client),
        peers=words_of(peers),
        services=service_words(registration.services),
        valid_until=format_time(registration.valid_until_s),
    )


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


def _longest_covering(prefixes: tuple[Prefix, ...], address: bytes) -> Prefix | None:
    covering = (prefix for prefix in prefixes if prefix.covers(address))
    return max(covering, key=lambda prefix: prefix.length, default=None)
