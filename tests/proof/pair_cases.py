"""What may happen to a pair of gateways."""

from __future__ import annotations

from typing import Final

from tests.proof.pair import PairCase, PairWorld


def _stop_and_back(world: PairWorld) -> None:
    world.fail_over()
    world.see_marks()
    world.fail_back()
    world.see_marks()


def _box_gone(world: PairWorld) -> None:
    world.lose_box()
    world.see_marks()


def _box_gone_and_back(world: PairWorld) -> None:
    world.lose_box()
    world.fail_back()
    world.see_marks()


CASES: Final = (
    PairCase("keepalived stopped, and back", "The master leaves in order; later the other does.", _stop_and_back),
    PairCase("box gone", "All processes of the master end by SIGKILL, and its interfaces are down.", _box_gone),
    PairCase("box gone, and back", "It starts from nothing, and takes over again.", _box_gone_and_back),
)
