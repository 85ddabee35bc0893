"""`pytest tests/golden --update-golden` writes what comes out in the place of what was expected."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew; look at the diff")


@pytest.fixture
def is_update(pytestconfig: pytest.Config) -> bool:
    """The option is known only where tests/golden was named on the command line."""
    return bool(pytestconfig.getoption("--update-golden", default=False))
