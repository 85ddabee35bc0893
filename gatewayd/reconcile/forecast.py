"""What the reconciler would do from a picture, without doing it: the steps, taken on paper."""

from __future__ import annotations

from dataclasses import dataclass, field

from gatewayd.model.policy import Policy
from gatewayd.model.transaction import AddElements, CreateSet, CreateTable, DeleteSet, RemoveElements
from gatewayd.reconcile.picture import Picture
from gatewayd.reconcile.steps import PutRules, acknowledge, next_step


@dataclass(slots=True)
class Forecast:
    """`added`, `removed`: elements by set. `ruleset`: the new text, None if the rules stay.

    `unprogrammed`: ids of the registrations past a bound, with the reason; `in_former_form`: of them, those of
    whose addresses something is in the kernel, which stays.
    """

    creates_table: bool = False
    created_sets: list[str] = field(default_factory=list)
    deleted_sets: list[str] = field(default_factory=list)
    added: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    ruleset: str | None = None
    transactions: int = 0
    unprogrammed: dict[str, str] = field(default_factory=dict)
    in_former_form: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return self.transactions == 0


def forecast(picture: Picture, policy: Policy, table: str) -> Forecast:
    """Uses the picture up: it says afterwards that all is done."""
    desired = picture.desired
    result = Forecast(unprogrammed=desired.unprogrammed(), in_former_form=desired.in_former_form())
    while (step := next_step(picture, policy, table)) is not None:
        result.transactions += 1
        if isinstance(step, PutRules):
            result.ruleset = step.ruleset.text
        else:
            for operation in step.transaction.operations:
                match operation:
                    case CreateTable():
                        result.creates_table = True
                    case CreateSet(name, _, _, _):
                        result.created_sets.append(name)
                    case DeleteSet(name):
                        result.deleted_sets.append(name)
                    case AddElements(name, keys):
                        result.added[name] = result.added.get(name, 0) + len(keys)
                    case RemoveElements(name, keys):
                        result.removed[name] = result.removed.get(name, 0) + len(keys)
        acknowledge(picture, step)
    return result
