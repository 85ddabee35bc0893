"""`gatewayd` on a kernel that lacks a part which no system call by itself shows.

    python -m tests.proof.faults.lacking PART PYTHON -m gatewayd ARGUMENT…

The daemon's own decoder, or its question for a part, meets what such a kernel answers.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import Final

from gatewayd.cli import main
from gatewayd.kernel import netlink, tables_codec
from gatewayd.watch import source

NEEDED: Final = {
    "nfnetlink": "no netfilter netlink socket",
    "ctnetlink": "no ctnetlink",
    "nflog": "no nfnetlink_log",
}
"""Parts without which the daemon does not start, and how it names them."""


def lack_counts() -> None:
    """NFTA_SET_COUNT, before Linux 6.17."""
    tables_codec._SET_COUNT = -1


def lack_nfnetlink() -> None:
    netlink.NETLINK_NETFILTER = 99


def lack_ctnetlink() -> None:
    """nfnetlink_rcv_msg answers EINVAL for a subsystem that it does not know."""
    _refuse_questions({"conntrack"})


def lack_nflog() -> None:
    _refuse_questions({"nflog", "near"})


def _refuse_questions(names: set[str]) -> None:
    really = source._Intake.ask

    def ask(intake: source._Intake[object], request: bytes) -> int:
        return errno.EINVAL if intake._name in names else really(intake, request)

    source._Intake.ask = ask  # type: ignore[method-assign, assignment]


PARTS: Final[dict[str, Callable[[], None]]] = {
    "counts": lack_counts,
    "nfnetlink": lack_nfnetlink,
    "ctnetlink": lack_ctnetlink,
    "nflog": lack_nflog,
}


if __name__ == "__main__":
    PARTS[sys.argv[1]]()
    main(sys.argv[5:], prog_name="python -m gatewayd")
