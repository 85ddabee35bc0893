"""A registry in which changes are made that are not made: the guard, the overrides and the merge answer themselves.

What is large in a registry never changes: readings are replaced, and registrations are values. So a fork shares
them, and copies the rest, which is small while nothing is held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from copy import copy
from typing import Any, TypeVar, cast

from gatewayd.model.registration import Changes, Slices
from gatewayd.registry.layers import SourceSet
from gatewayd.registry.state import RegistryState

_T = TypeVar("_T")
_CONTAINERS = (dict, set, list, deque)

Rehearsed = Callable[[RegistryState], Generator[None, None, Changes | None]]
"""A call of a registry, such as `accept` or `use_overrides`."""


def fork_registry(state: RegistryState) -> RegistryState:
    """Of the same content, for changes of its own. To be made in one turn, between two calls of `state`."""
    return _fork(state)


def rehearse_in_slices(fork: RegistryState, calls: Sequence[Rehearsed]) -> Slices[tuple[Changes, ...]]:
    """What is to change of what is in force when the calls are made, one after the other."""
    found: list[Changes] = []
    for call in calls:
        changes = yield from call(fork)
        if changes is not None:
            found.append(changes)
    return tuple(found)


def _fork(thing: _T) -> _T:
    """An object of this package, with its own parts and containers; other values are shared.

    The values of a container are all of one kind, so the first tells whether they change: a million held
    registrations are copied as one dict.
    """
    if isinstance(thing, _CONTAINERS):
        return cast("_T", _fork_container(thing))
    if not _changes(thing):
        return thing
    other = copy(thing)
    # Readings, and what stands for one, are large and replaced as a whole.
    own: Callable[[Any], Any] = copy if isinstance(thing, SourceSet) else _fork
    for name in _names_of(thing):
        value = getattr(thing, name)
        object.__setattr__(other, name, value if name == "_rest" else own(value))
    return other


def _fork_container(thing: Any) -> Any:
    """Lists and sets hold values alone."""
    if isinstance(thing, dict) and _changes(next(iter(thing.values()), None)):
        return type(thing)({key: _fork(each) for key, each in thing.items()})
    return copy(thing)


def _changes(thing: object) -> bool:
    """Whether it is a container, or an object of this package that is no value."""
    if isinstance(thing, _CONTAINERS):
        return True
    kind = type(thing)
    parameters = getattr(kind, "__dataclass_params__", None)
    is_value = parameters is not None and parameters.frozen
    return kind.__module__.startswith("gatewayd.registry.") and not is_value and not callable(thing)


def _names_of(thing: object) -> list[str]:
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*getattr(thing, "__dict__", {}), *slots]
