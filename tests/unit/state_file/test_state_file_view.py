"""The view's numbers are metrics of their own family, one for each file."""

from __future__ import annotations

import pytest

from gatewayd.api.metrics import declared_in, samples_of
from gatewayd.state_file.view import FileState, StateFileView


def test_every_number_is_a_metric() -> None:
    names = {metric.name for _, metrics, _, _ in declared_in(StateFileView) for metric in metrics}
    assert names == {
        "state_file_ok", "state_file_writes", "state_file_failures", "state_file_set_aside", "state_file_lost",
        "state_file_bytes",
    }  # fmt: skip
    assert StateFileView("activity").state == "closed"


@pytest.mark.parametrize(("state", "ok"), [("closed", 1), ("ok", 1), ("failing", 0), ("newer", 0)])
def test_a_file_that_is_not_opened_yet_is_in_order(state: FileState, ok: int) -> None:
    """Some are opened at the first row that there is to write, and that may be hours after the start."""
    samples = {metric.name: value for metric, _, value in samples_of(StateFileView("activity", state))}
    assert samples["state_file_ok"] == (ok,)
