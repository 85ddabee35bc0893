"""The view's numbers are metrics of their own family, one for each file."""

from __future__ import annotations

from gatewayd.api.metrics import declared_in
from gatewayd.state_file.view import StateFileView


def test_every_number_is_a_metric() -> None:
    names = {metric.name for _, metrics, _, _ in declared_in(StateFileView) for metric in metrics}
    assert names == {
        "state_file_ok", "state_file_writes", "state_file_failures", "state_file_set_aside", "state_file_lost",
        "state_file_bytes",
    }  # fmt: skip
    assert StateFileView("activity").state == "closed"
