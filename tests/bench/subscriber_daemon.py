"""The whole daemon with subscribers, in the lab's gateway, its journal on the disk of the scratch directory."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from gatewayd.lab.lab import Lab
from gatewayd.lab.world import DEMO_PEPPER
from gatewayd.model import Prefix
from gatewayd.model.mask import parse_set_name
from tests.bench.accounting import on_server_core
from tests.bench.counting import count_elements
from tests.bench.daemon import MeasuredDaemon
from tests.bench.gateways import SCOPE
from tests.bench.numbered import Numbered
from tests.bench.row import Context, check
from tests.support.lab_daemon import TABLE
from tests.support.nas import write_secrets

MOBILE = Prefix(bytes([10, 0, 0, 0]), 8)
"""Where the sender's sessions are (radius_sender.c)."""
_LOOK_EVERY_S = 0.005


class SubscriberDaemon(MeasuredDaemon):
    """In mode reject on one registry of a file."""

    def start_pinned(self) -> float:
        """On the servers' core; seconds to ready and armed."""
        return self.start_ready(wrapper=on_server_core())

    def count_elements(self) -> int:
        """In the sets of the allowlist, by the kernel's own count."""
        with self.lab.gateway.entered():
            listed = subprocess.run(
                ["nft", "-t", "list", "table", "inet", TABLE], capture_output=True, text=True, check=False
            )
            names = [line.split()[1] for line in listed.stdout.splitlines() if line.startswith("\tset ")]
            parsed = [(name, parse_set_name(name)) for name in names]
            allowlist = [name for name, found in parsed if found is not None and not found[0].is_near]
            return sum(count_elements(TABLE, name) or 0 for name in allowlist)

    def wait_elements(self, count: int, patience_s: float = 60.0) -> float:
        """Seconds until there are so many."""
        began = time.perf_counter()
        while (found := self.count_elements()) != count:
            waited_s = time.perf_counter() - began
            check(waited_s < patience_s, f"{found} elements after {waited_s:.0f} s, and not {count}")
            time.sleep(_LOOK_EVERY_S)
        return time.perf_counter() - began

    def steady_elements(self, quiet_s: float = 0.5) -> int:
        """How many there are once they stay as many."""
        seen, since = self.count_elements(), time.monotonic()
        while time.monotonic() - since < quiet_s:
            time.sleep(_LOOK_EVERY_S)
            if (now := self.count_elements()) != seen:
                seen, since = now, time.monotonic()
        return seen

    def subscribers(self) -> dict[str, Any]:
        """What the status says of sessions, their journal and RADIUS."""
        found: dict[str, Any] = self.status()["subscribers"]
        return found


@contextmanager
def subscriber_daemon(context: Context, numbered: Numbered, *, grace: str = "2m") -> Iterator[SubscriberDaemon]:
    """Configured and not started. `grace`: after Accounting-On."""
    directory = context.scratch / "daemon"
    directory.mkdir()
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(customer_prefixes=(MOBILE,)))
        daemon = SubscriberDaemon(lab, directory)
        stack.callback(daemon.stop_for_good)
        source = {"name": "national", "url": f"file:{numbered.registry}", "allow_unsigned": True}
        subscribers = write_secrets(directory, pepper=DEMO_PEPPER) | {"profile": {"restart_grace": grace}}
        policy = {"scope": list(SCOPE), "interfaces": {"inside": ["inside0"], "outside": ["outside0"]}}
        daemon.configure("reject", sources=[source], subscribers=subscribers, policy=policy)
        yield daemon
