"""Desired against observed, and the way from one to the other: bounded transactions, make before break.

    tracker          the desired and the observed state, as differences
    set_state        one set of the kernel, its larger successor; which sets the rules look into: the invariant of
                     make before break
    findings         elements that a start finds and nothing desires: which stay, and until when
    steps            the next safe step, and the steps on paper; when elements of bindings are asserted again
    loop             the reconciler: takes the steps, and says how far it is
    verify           reads, follows external changes, compares
    dataplane        the interface to a kernel, the numbers, the generations that are accounted for; writer: takes
                     steps into it, and keeps the ledger
    connections      ct marks against the registry, behind a protocol of its own; scan_requests: what it waits for

Observed is what was read or acknowledged, never what was sent. After a failure the loop reads again. Everything in
our table is ours, and nothing else is touched. A restart recognises its own sets by their names.

Review notes: can the kernel ever hold fewer registered addresses between two steps than before them? Is a step
bounded? What if the process dies right after it, or right before its acknowledgement? Does a late admission wait
for more than one step? Is anything gone through whole that may have a million keys?
"""

from gatewayd.reconcile.dataplane import Stats
from gatewayd.reconcile.loop import Reconciler
from gatewayd.reconcile.steps import Commit, PutRules, acknowledge, next_step
from gatewayd.reconcile.tracker import SetTracker

__all__ = ["Commit", "PutRules", "Reconciler", "SetTracker", "Stats", "acknowledge", "next_step"]
