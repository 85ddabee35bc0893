"""`python -m gatewayd.doctor`: one look at the host, for the daemon. A question on standard input, a view on
standard output, both JSON.

A process of its own: what the look takes of memory and of the interpreter's time is not the daemon's.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

import msgspec

from gatewayd.doctor.diagnosis import diagnose
from gatewayd.doctor.facts import Question
from gatewayd.doctor.readings import read_facts
from gatewayd.model.moment import format_time

if __name__ == "__main__":
    with suppress(OSError):
        os.nice(19)
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    view = diagnose(read_facts(question), format_time(time.time()) or "")
    print(msgspec.json.encode(view).decode())
