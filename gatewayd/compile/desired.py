"""The desired content of every set: kept up to date registration by registration.

Each element is stored once, as its key. Several registrations may want the same element; only those keys carry
a count.

No bound takes away what is in force. The masks in use are bounded, those of registrations by address and those of
bindings apart; some are left for protected categories, in whatever order they come. At a start those that the
kernel has are kept before anything new gets one. Where a new form of a registration is past a bound, its former
form stays until it is not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass, field

from gatewayd.compile.keys import Keys
from gatewayd.compile.masks import (
    MAX_BOUND_ELEMENTS,
    MAX_ELEMENTS,
    compile_bound,
    compile_elements,
    count_elements,
    is_former,
)
from gatewayd.model.mask import Mask, Role
from gatewayd.model.prefix import Prefix, mask_address
from gatewayd.model.registration import BoundRegistration, Registration

MAX_PREPARED = 32
"""Masks in use without an element: each costs a new flow a look-up."""
MAX_MASKS = 256
"""Masks in use at most, per family: each costs a new flow two look-ups. Registrations beyond are reported."""
MAX_ENDPOINT_MASKS = 32
"""The same of providers' endpoints: each costs a new flow that nothing else registers a look-up."""
MAX_BOUND_MASKS = 320
"""The same of bindings, which have few by construction (compile/masks.py)."""
PROTECTED_MASKS = 64
"""As many more, of either, that only registrations of protected categories are given."""

Subject = tuple[str, Prefix | None, tuple[int, int] | None]
"""A registration, or a subscriber's registration at an address, whatever its form."""
Element = tuple[Mask, bytes]


@dataclass(slots=True)
class DesiredSet:
    """`keys`: what shall be in the kernel. `shared`: how many more registrations want a key than one."""

    keys: Keys = field(default_factory=Keys)
    shared: dict[bytes, int] = field(default_factory=dict)


class DesiredSets:
    """All masks in use and their keys. `protected`: categories that some masks are left for."""

    def __init__(
        self,
        max_masks: int = MAX_MASKS,
        *,
        max_bound_masks: int = MAX_BOUND_MASKS,
        max_endpoint_masks: int = MAX_ENDPOINT_MASKS,
        protected_masks: int = PROTECTED_MASKS,
        protected: Container[str] = frozenset(),
    ) -> None:
        self._most: dict[Role, int] = {
            "client": max_masks,
            "bound": max_bound_masks,
            "endpoint": max_endpoint_masks,
        }
        self._protected_masks = protected_masks
        self._protected = protected
        self._sets: dict[Mask, DesiredSet] = {}
        self._in_use = {(family, role): 0 for family in (4, 6) for role in self._most}
        self._only_protected: set[Mask] = set()
        """Of those in use, the ones that no other category has been given. They do not count for others: so
        registrations that all had a mask have it in any order, as after a reboot."""
        # A registration by identity: while one form of it replaces another, both are known here.
        self._unprogrammed: dict[int | BoundRegistration, tuple[Registration | BoundRegistration, str]] = {}
        self._reasons: dict[str, str] | None = None
        """What `unprogrammed` says; None since that changed."""
        self._addresses: dict[bool, _Addresses] | None = None
        """By whether it is endpoints, those of what is past a bound; None since that changed."""
        self._waiting: dict[Subject, int] = {}
        """How many forms of each are past a bound."""
        self._former: dict[Subject, list[Element]] = {}
        """What of an earlier form of it is wanted meanwhile."""
        self._superseded: list[Element] = []
        self._prepared: set[Mask] = set()

    def __contains__(self, mask: Mask) -> bool:
        return mask in self._sets

    def masks(self) -> list[Mask]:
        """Masks in use, sorted; a mask stays in use after its last key went until `drop`."""
        return sorted(self._sets)

    def keys(self, mask: Mask) -> Keys:
        """The keys of a mask in use; not to be changed by the caller."""
        return self._sets[mask].keys

    def count(self) -> int:
        """Elements over all sets that make a flow registered."""
        return sum(len(desired.keys) for mask, desired in self._sets.items() if not mask.is_near)

    def unprogrammed(self) -> dict[str, str]:
        """Ids of the registrations past a bound, at one of their addresses at least, with the reason.

        Not to be changed by the caller. It is asked for every flow, so it is worked out once for each change.
        """
        if self._reasons is None:
            self._reasons = {_registration_of(wanted).id: reason for wanted, reason in self._unprogrammed.values()}
        return self._reasons

    def is_unprogrammed(self, wanted: Registration | BoundRegistration) -> bool:
        """Whether this very registration, or an equal one at an address, is past a bound."""
        return _name_of(wanted) in self._unprogrammed

    def count_unprogrammed(self) -> int:
        return len(self._unprogrammed)

    def take_unprogrammed(self) -> list[Registration | BoundRegistration]:
        """Forget what is past a bound, and return it: it may be added again."""
        taken = [wanted for wanted, _ in self._unprogrammed.values()]
        self._unprogrammed.clear()
        self._reasons = self._addresses = None
        self._waiting.clear()
        # Protected categories come first.
        taken.sort(key=lambda wanted: _registration_of(wanted).category not in self._protected)
        return taken

    def in_former_form(self) -> list[str]:
        """Ids of the registrations whose present form is past a bound and a former one is in force."""
        return list(dict.fromkeys(subject[0] for subject in self._former))

    def keep_found(self, found: Iterable[Element]) -> list[Element]:
        """Want those of the elements found in the kernel and not wanted that are of an address of a
        registration past a bound; returns them. It may be its former form."""
        if not self._unprogrammed:
            return []
        if self._addresses is None:
            waiting = [wanted for wanted, _ in self._unprogrammed.values()]
            self._addresses = {
                is_endpoint: _Addresses(each for each in waiting if (_role_of(each) == "endpoint") is is_endpoint)
                for is_endpoint in (False, True)
            }
        kept = []
        for mask, key in found:
            subject = self._addresses[mask.is_endpoint].overlapping(
                key[: 4 if mask.family == 4 else 16], mask.client_length
            )
            if subject is not None:
                self.want(mask, key)
                self._former.setdefault(subject, []).append((mask, key))
                kept.append((mask, key))
        return kept

    def take_superseded(self) -> list[Element]:
        """Elements of former forms whose present one is programmed, and that nothing wants now."""
        taken, self._superseded = self._superseded, []
        return taken

    def add(self, wanted: Registration | BoundRegistration) -> list[Element]:
        """Want the elements of it; returns those that nothing wanted before."""
        fresh, sets = [], self._sets
        elements = self._admit(wanted)
        if elements is None:
            return []
        for element in elements:
            mask, key = element
            desired = sets[mask]
            if desired.keys.put(key):
                fresh.append(element)
            else:
                desired.shared[key] = desired.shared.get(key, 0) + 1
        if self._former:
            self._superseded += self._drop_former(_subject_of(wanted))
        return fresh

    def remove(self, wanted: Registration | BoundRegistration) -> list[Element]:
        """Take back an `add` of this very registration, or of an equal one at an address; returns elements that
        nothing wants now.

        None, while another form of it is past a bound.
        """
        if self._unprogrammed and self._unprogrammed.pop(_name_of(wanted), None) is not None:
            self._reasons = self._addresses = None
            subject = _subject_of(wanted)
            self._waiting[subject] -= 1
            if self._waiting[subject]:
                return []
            del self._waiting[subject]
            return self._drop_former(subject)
        elements = elements_of(wanted)
        if self._waiting and _subject_of(wanted) in self._waiting:
            self._former.setdefault(_subject_of(wanted), []).extend(elements)
            return []
        return [element for element in elements if self.unwant(*element)]

    def _drop_former(self, subject: Subject) -> list[Element]:
        return [element for element in self._former.pop(subject, ()) if self.unwant(*element)]

    def _refuse(self, wanted: Registration | BoundRegistration, reason: str) -> None:
        self._unprogrammed[_name_of(wanted)] = (wanted, reason)
        self._reasons = self._addresses = None
        subject = _subject_of(wanted)
        self._waiting[subject] = self._waiting.get(subject, 0) + 1

    def protect(self, categories: Iterable[str]) -> None:
        """Some masks are left for these from now on."""
        self._protected = frozenset(categories)

    def prepare(self, mask: Mask) -> bool:
        """Put a mask in use for what is to come, and keep it there; whether it is in use."""
        if len(self._prepared) < MAX_PREPARED and self.adopt(mask):
            self._prepared.add(mask)
        return mask in self._sets

    def adopt(self, mask: Mask, *, past_bound: bool = False) -> bool:
        """Put a mask in use that no registration needs; whether the bound lets it."""
        if mask not in self._sets:
            if not past_bound and self._in_use[mask.family, mask.role] >= self._most[mask.role]:
                return False
            self._put_in_use(mask)
        return True

    def reserve(self, masks: Iterable[Mask]) -> None:
        """Put those in use that the kernel has, before anything else is known: a registration keeps its mask."""
        for mask in masks:
            self.adopt(mask, past_bound=True)

    def want(self, mask: Mask, key: bytes) -> None:
        """Want one element of a mask in use, which nothing wanted before."""
        self._sets[mask].keys.add(key)

    def is_wanted_twice(self, mask: Mask, key: bytes) -> bool:
        """Whether something else wants an element that was wanted by `want`."""
        return key in self._sets[mask].shared

    def count_wanting(self, mask: Mask, key: bytes) -> int:
        """By how many the element is wanted."""
        desired = self._sets.get(mask)
        return 0 if desired is None or key not in desired.keys else 1 + desired.shared.get(key, 0)

    def refusal_of(self, wanted: Registration | BoundRegistration, also: Collection[Mask]) -> str | None:
        """Why it would be past a bound, `also` being in use beside those that are; None: it would not."""
        role, count = _role_of(wanted), count_elements(wanted)
        most = MAX_BOUND_ELEMENTS if isinstance(wanted, BoundRegistration) else MAX_ELEMENTS
        if count > most:
            return f"needs {count} elements, at most {most} are made"
        masks = {mask for mask, _ in elements_of(wanted)}
        needed, beside = {mask for mask in masks if mask not in self._sets}, {*also} - self._sets.keys()
        most, only_protected = self._most[role], self._only_protected
        reason = self._reason_against(needed | beside, (), role, most + self._protected_masks)
        if reason is not None or _registration_of(wanted).category in self._protected:
            return reason if needed - beside else None
        taken = masks & only_protected
        if not (needed - beside or taken):
            return None
        return self._reason_against(needed | taken | beside, only_protected, role, most)

    def unwant(self, mask: Mask, key: bytes) -> bool:
        """Take back a `want`; whether nothing wants the element now."""
        desired = self._sets[mask]
        others = desired.shared.get(key, 0)
        if others == 0:
            desired.keys.remove(key)
        elif others == 1:
            del desired.shared[key]
        else:
            desired.shared[key] = others - 1
        return others == 0

    def unused(self) -> list[Mask]:
        """Masks without keys that are not prepared."""
        return [mask for mask, desired in self._sets.items() if not desired.keys and mask not in self._prepared]

    def drop(self, mask: Mask) -> None:
        """Put an unused mask out of use."""
        assert not self._sets[mask].keys
        del self._sets[mask]
        self._only_protected.discard(mask)
        self._in_use[mask.family, mask.role] -= _is_budgeted(mask)

    def _admit(self, wanted: Registration | BoundRegistration) -> list[Element] | None:
        """The elements of it, a set being there for each; None if a bound is in the way."""
        registration = _registration_of(wanted)
        is_bound = wanted is not registration
        if len(registration.clients) > 1 or registration.peers or registration.services or is_bound:
            count, most = count_elements(wanted), MAX_BOUND_ELEMENTS if is_bound else MAX_ELEMENTS
            if count > most:
                self._refuse(wanted, f"needs {count} elements, at most {most} are made")
                return None
        elements = elements_of(wanted)
        sets = self._sets
        only_protected = self._only_protected
        needed = {mask for mask, _ in elements if mask not in sets}
        taken = {mask for mask, _ in elements if mask in only_protected} if only_protected else set()
        is_protected = bool(needed or taken) and registration.category in self._protected
        if is_protected:
            taken.clear()
        if not (needed or taken):
            return elements
        role = _role_of(wanted)
        reason = self._reason_against(needed, (), role, self._most[role] + self._protected_masks)
        if reason is None and not is_protected:
            reason = self._reason_against(needed | taken, only_protected, role, self._most[role])
        if reason is not None:
            self._refuse(wanted, reason)
            return None
        for mask in needed:
            self._put_in_use(mask)
        if is_protected:
            only_protected |= needed
        else:
            only_protected -= taken
        return elements

    def _reason_against(self, wanting: set[Mask], beside: Collection[Mask], role: Role, most: int) -> str | None:
        """Why these cannot be in use too, those of `beside` not counting; None if they can."""
        for family in (4, 6):
            more = sum(mask.family == family for mask in wanting)
            in_use = self._in_use[family, role]
            in_use -= sum((mask.family, mask.role) == (family, role) for mask in beside)
            if more and in_use + more > most:
                return f"needs {more} new masks for IPv{family}, {in_use} of at most {most} are in use"
        return None

    def _put_in_use(self, mask: Mask) -> None:
        self._sets[mask] = DesiredSet()
        self._in_use[mask.family, mask.role] += _is_budgeted(mask)


class _Addresses:
    """Who has an address. To hold 4,096 elements of the kernel, in one turn, against 5,000 subjects takes 5 ms, and
    4 ms once before that; to compare each with each took 30 s."""

    def __init__(self, waiting: Iterable[Registration | BoundRegistration]) -> None:
        self._subjects: dict[tuple[int, int], dict[bytes, Subject]] = {}
        """By width and length of the prefix, and its first address."""
        self._firsts: dict[int, dict[bytes, Subject]] = {4: {}, 16: {}}
        """By width, and the first address of the prefix."""
        for wanted in waiting:
            subject = _subject_of(wanted)
            for prefix in _addresses_of(wanted):
                packed = prefix.packed
                self._subjects.setdefault((len(packed), prefix.length), {}).setdefault(packed, subject)
                self._firsts[len(packed)].setdefault(packed, subject)
        self._sorted = {width: sorted(firsts) for width, firsts in self._firsts.items()}

    def overlapping(self, address: bytes, length: int) -> Subject | None:
        """One whose prefix has this one within it, or lies within it."""
        for (width, shorter), subjects in self._subjects.items():
            if width == len(address) and shorter <= length:
                subject = subjects.get(mask_address(address, shorter))
                if subject is not None:
                    return subject
        firsts = self._sorted[len(address)]
        place = bisect_left(firsts, address)
        if place < len(firsts) and mask_address(firsts[place], length) == address:
            return self._firsts[len(address)][firsts[place]]
        return None


def _is_budgeted(mask: Mask) -> bool:
    """Sets of an earlier version's bindings go as soon as what took over is there. `compile.near` has few."""
    return not (mask.is_near or is_former(mask))


def _registration_of(wanted: Registration | BoundRegistration) -> Registration:
    return wanted.registration if isinstance(wanted, BoundRegistration) else wanted


def _name_of(wanted: Registration | BoundRegistration) -> int | BoundRegistration:
    return wanted if isinstance(wanted, BoundRegistration) else id(wanted)


def _subject_of(wanted: Registration | BoundRegistration) -> Subject:
    if isinstance(wanted, BoundRegistration):
        return wanted.registration.id, wanted.prefix, wanted.ports
    return wanted.id, None, None


def _addresses_of(wanted: Registration | BoundRegistration) -> tuple[Prefix, ...]:
    if isinstance(wanted, BoundRegistration):
        return (wanted.prefix,)
    return wanted.clients or wanted.endpoints


def _role_of(wanted: Registration | BoundRegistration) -> Role:
    if isinstance(wanted, BoundRegistration):
        return "bound"
    return "endpoint" if wanted.endpoints else "client"


def elements_of(wanted: Registration | BoundRegistration) -> list[Element]:
    return compile_bound(wanted) if isinstance(wanted, BoundRegistration) else compile_elements(wanted)
