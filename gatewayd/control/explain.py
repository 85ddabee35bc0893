"""Why a flow passes or does not: the decision, what the rules do to it, and the elements in the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from gatewayd.allowlist import Allowlist, decide, registered_by
from gatewayd.api.explanation import effect_of, explain_view
from gatewayd.api.views import ExplainView, bound_view
from gatewayd.compile.effects import judge_canary
from gatewayd.control.controller import Controller
from gatewayd.control.status import incompleteness_of
from gatewayd.errors import AllowlistIncomplete
from gatewayd.model import Binding, BoundRegistration, Decision, Effect, Flow, Registration
from gatewayd.model.mask import Mask, describe_key
from gatewayd.model.service import PROTOCOLS_WITH_PORTS
from gatewayd.reconcile import Reconciler
from gatewayd.registry.state import KERNEL
from gatewayd.subscribers.service import SubscriberService

Wanted = Registration | BoundRegistration
Notes = Callable[[Flow, Decision], tuple[str, ...]]


class Explainer:
    """Over the allowlist, and the sessions behind its bindings where there are any."""

    def __init__(self, controller: Controller, subscribers: SubscriberService | None, notes: Notes) -> None:
        """`notes`: what else is known of the registrations behind a decision."""
        self._controller = controller
        self._notes = notes
        self._reconciler = controller.reconciler
        self._subscribers = subscribers

    def explain(self, flow: Flow) -> ExplainView:
        """With notes. Raises AllowlistIncomplete where a source that was not read yet may register the flow."""
        decision, view = self._explain(flow)
        notes = self._notes(flow, decision)
        if decision.word == "unregistered" and notes:
            view = _but(view, notes[0].partition(", but ")[2])
        return msgspec.structs.replace(view, notes=notes)

    def _explain(self, flow: Flow) -> tuple[Decision, ExplainView]:
        """Raises AllowlistIncomplete where a source that was not read yet may register the flow."""
        controller, reconciler, now = self._controller, self._reconciler, self._controller.moment()
        # New settings may wait for a source; until then the old rules are what a flow meets.
        policy = reconciler.policy_in_force or controller.policy(now)
        decision = decide(self._covering(), policy.scope, flow, now)
        incomplete = incompleteness_of(controller)
        if decision.word == "unregistered" and not controller.loaded:
            raise AllowlistIncomplete(incomplete[0])
        alternatives = list(programmed_for(flow, decision, now))
        view = explain_view(
            flow,
            decision,
            mode=reconciler.mode_in_force,
            canary=judge_canary(policy, flow),
            in_kernel=are_in_kernel(reconciler, alternatives) if decision.word == "registered" else None,
            bindings=tuple(bound_view(each, now) for each in decision.bindings),
        )
        if decision.word == "out_of_scope" or view.in_kernel:
            return decision, view
        if decision.word == "unregistered":
            view = self._unregistered(view, flow, incomplete)
        elif alternatives and all(map(reconciler.is_unprogrammed, alternatives)):
            reasons = reconciler.unprogrammed()
            why = next(reasons[each.id] for each in decision.registrations if each.id in reasons)
            effect = effect_of("unregistered", view.mode, view.canary)
            view = _but(view, f"the kernel cannot be told: {why}", effect=effect)
        element = reconciler.element_for(flow)
        if element is None:
            return decision, view
        reason = f"{view.reason}; it passes by {self._describe(*element)}"
        return decision, msgspec.structs.replace(view, effect="pass", in_kernel=True, reason=reason)

    def _covering(self) -> Allowlist | ConfirmedAllowlist:
        allowlist = self._controller.allowlist
        return allowlist if self._subscribers is None else ConfirmedAllowlist(allowlist, self._subscribers)

    def _unregistered(self, view: ExplainView, flow: Flow, incomplete: list[str]) -> ExplainView:
        if is_for_ports_to_decide(self._controller.allowlist, flow):
            reason = f"{view.reason}; the source address is shared, and the source port decides: it was not given"
            view = msgspec.structs.replace(view, reason=reason)
        if self._reconciler.stats.found is not None:
            view = _but(
                view, "the kernel was not read yet since the start: what it has from before may let it pass"
            )
        return _but(view, incomplete[0]) if incomplete else view

    def _describe(self, mask: Mask, key: bytes) -> str:
        """An element that no matching registration needs: where it is from, how long it stays."""
        name = f"{describe_key(str(mask), key)} of {mask}"
        presence = self._reconciler.presence_of(mask, key)
        if presence == "left":
            return f"{name}, a binding that the journal does not know, until its time is over"
        if presence == "surplus":
            return f"{name}, which is about to be taken out"
        held = next((each for each in self._controller.holds() if KERNEL in each.by_cause), None)
        if held is not None:
            return f"{name}, which a start found and nobody registers, until gatewayd accept {held.serial}"
        if presence == "retained":
            return f"{name}, which a start found in the kernel, until every source has been read"
        return f"{name}, which is there for another form or registration"


def _but(view: ExplainView, why: str, **changed: Effect) -> ExplainView:
    return msgspec.structs.replace(view, reason=f"{view.reason}, but {why}", **changed)


def are_in_kernel(reconciler: Reconciler, alternatives: Iterable[Wanted]) -> bool | None:
    """Whether the kernel is known to have all elements of one of them; None before it was ever read."""
    if any(map(reconciler.holds, alternatives)):
        return True
    return False if reconciler.stats.last_verified_at else None


def are_all_in_kernel(reconciler: Reconciler, wanted: Sequence[Wanted]) -> bool | None:
    """Whether the kernel is known to have all elements of all of them; None also where there are none."""
    states = [are_in_kernel(reconciler, (each,)) for each in wanted]
    if False in states:
        return False
    return None if None in states or not states else True


def programmed_for(flow: Flow, decision: Decision, now: float) -> Iterator[Wanted]:
    """What makes a registered flow pass, if all elements of one of these are in the kernel."""
    for registration in decision.registrations:
        if registered_by(flow, registration, now):
            yield registration
            continue
        for binding in decision.bindings:
            if binding.subscriber == registration.subscriber:
                yield BoundRegistration(registration, binding.prefix, binding.ports)


def is_for_ports_to_decide(allowlist: Allowlist, flow: Flow) -> bool:
    """Whether registered subscribers share the flow's source with others, and its port is not known."""
    return (
        flow.source_port == 0
        and flow.protocol in PROTOCOLS_WITH_PORTS
        and any(binding.ports is not None for binding in allowlist.bindings_at(flow.source))
    )


class ConfirmedAllowlist:
    """What `decide` asks of an allowlist, with bindings as they are confirmed now; the allowlist's own are as they
    were when they were made."""

    def __init__(self, allowlist: Allowlist, subscribers: SubscriberService) -> None:
        self._allowlist = allowlist
        self._subscribers = subscribers
        self.covering = allowlist.covering
        self.registrations_of = allowlist.registrations_of
        self.endpoints_at = allowlist.endpoints_at

    def bindings_at(self, address: bytes) -> Sequence[Binding]:
        return tuple(map(self._subscribers.confirmed, self._allowlist.bindings_at(address)))
