"""Which sets the rules look into; pure. Here alone is decided that they stop looking into one.

The invariant: **rules never stop looking into a set that may have an element, unless all that it may be needed for
is in the sets that they look into from then on.** So, whatever runs between two steps (the timer, a release,
growth, a reload, a restart, bindings that move, an acknowledgement that was lost):

    complete       every desired element is known to be in a set that will be looked into: any other set may go
    not complete   rules may only look into more sets. A set gives way to its successor alone, and only once the
                   successor is known to have all that the set has

An element that was surplus a moment ago may be the only one that covers a flow whose new element is still missing.
Which it is, nobody has to find out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gatewayd.model.mask import Mask, parse_set_name
from gatewayd.reconcile.set_state import MaskState


def is_complete(masks: Mapping[Mask, MaskState]) -> bool:
    """Whether every desired element is known to be in a set that `choose_hooks` would then take."""
    return all(not state.current.missing or state.successor_is_whole for state in masks.values())


def choose_hooks(masks: Mapping[Mask, MaskState], in_force: Mapping[Mask, str]) -> dict[Mask, str]:
    """The set that the rules shall look into now, for each mask; `in_force`: the sets that they are known to look
    into.

    In order of capacity, the largest first: where most registrations are, most flows are found. It changes only
    with the sets, so an element more or less never asks for other rules.
    """
    complete = is_complete(masks)
    chosen: list[tuple[int, Mask, str]] = []
    for mask, state in masks.items():
        hooked = in_force.get(mask)
        best = state.successor if state.successor is not None and state.successor_is_whole else state.current
        if complete or hooked is None or (hooked == state.current.name and state.successor_has_all):
            chosen.append((best.capacity, mask, best.name))
        else:
            chosen.append((state.current.capacity, mask, hooked))
    if not complete:
        chosen += [(0, mask, name) for mask, name in in_force.items() if mask not in masks]
    chosen.sort(key=lambda each: (-each[0], -each[1].client_length, each[1]))
    return {mask: name for _, mask, name in chosen}


def hooks_of(names: Iterable[str]) -> dict[Mask, str]:
    """The masks of sets that rules look into, which are one a mask."""
    return {parsed[0]: name for name in names if (parsed := parse_set_name(name)) is not None}
