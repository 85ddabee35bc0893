"""A registration in words: what it is, where it is from, and whether the kernel has it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gatewayd.api.standing import StandingView
from gatewayd.api.text import BAD, DOUBTFUL, IN_KERNEL, Line, count, size
from gatewayd.api.views import RegistrationView


def _mark(standing: StandingView | None) -> str:
    """A word or two for a table; "" in peace."""
    if standing is None:
        return ""
    words = ["held"] if standing.held_since else []
    words += ["dropped by a filter"] if standing.is_out_of_force else []
    words += ["trimmed by a filter"] if standing.trimmed else []
    words += ["pinned"] if standing.pin is not None else []
    return ", ".join(words)


def describe_standing(standing: StandingView) -> Iterator[Line]:
    also = f", and {', '.join(standing.also_in)}, which does not count" if standing.also_in else ""
    yield Line("source", f"{standing.source or 'no source; a local file alone'}{also}")
    if standing.pin is not None:
        yield Line("pinned", f"{standing.pin}: it counts, not what a source says")
    for override in standing.filters:
        what = "takes it away" if standing.is_out_of_force else "takes prefixes away" if standing.trimmed else ""
        yield Line("FILTER", f"{override}{f': {what}' if what else ''}", BAD if what else "")
    if standing.trimmed:
        yield Line("", f"the source has {', '.join(standing.clients)}")
    if standing.held_since:
        what = f"its removal by {standing.held_cause} is held since {standing.held_since}"
        yield Line("HELD", f"{what}; gatewayd held", BAD)


def describe_registration(view: RegistrationView) -> Iterator[Line]:
    """All that is known of one."""
    yield Line("id", view.id)
    yield Line("category", view.category)
    if view.registrant is not None:
        yield Line("registrant", view.registrant)
    yield Line("status", condition(view))
    yield Line("window", f"{view.valid_from or 'open'} to {view.valid_until or 'open'}")
    if view.standing is not None:
        yield from describe_standing(view.standing)
    if view.endpoints:
        yield Line("PROVIDER", "every client's flow to these endpoints is registered, and none from them", DOUBTFUL)
        yield from _listed("endpoints", view.endpoints, "none")
    else:
        yield from _listed("clients", view.clients, "by subscriber alone")
    if view.subscriber and view.clients:
        yield Line("", "and the addresses of a subscriber")
    yield from _listed("peers", view.peers, "any")
    yield Line("services", ", ".join(view.services) or "any")
    missing = view.effective and view.in_kernel is False
    yield Line("in kernel", presence(view), BAD if missing or view.unprogrammed else "")
    seen = f", last seen {view.last_seen_at}" if view.last_seen_at else ", not seen yet"
    yield Line("traffic", f"{count(view.flows, 'flow')}, {size(view.bytes)}{seen}")


def condition(view: RegistrationView) -> str:
    """The status, whether the window is closed, and what a local file or the guard makes of it."""
    is_dropped = view.standing is not None and view.standing.is_out_of_force
    closed = view.status == "active" and not view.effective and not is_dropped
    provisional = "provisional" if view.provisional else ""
    words = (view.status, provisional, "outside of its window" if closed else "", _mark(view.standing))
    return ", ".join(filter(None, words))


def presence(view: RegistrationView) -> str:
    """Whether the kernel has it, and why not."""
    if view.unprogrammed:
        return f"NO: {view.unprogrammed}"
    return "no" if view.in_kernel is False and not view.effective else IN_KERNEL[view.in_kernel]


def _listed(label: str, words: tuple[str, ...], none: str) -> Iterator[Line]:
    yield Line(label, words[0] if words else none)
    for word in words[1:]:
        yield Line("", word)
