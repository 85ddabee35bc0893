"""Desired against observed, and the way from one to the other: bounded transactions, make before break.

    picture      what is desired and what the kernel is known to have, as differences
    set_state    one set of the kernel, and the larger one that is to follow it
    missing      the desired keys that are not known to be there
    hooks        which sets the rules look into: the invariant of make before break
    steps        the next safe step; pure
    loop         takes the steps
    verify       reads, hears what others do, compares
    dead_man     when elements of bindings are asserted again, which go by themselves
    generations  whether anybody did something that we were not told of
    forecast     the steps on paper
    tally        what was done, in numbers
    dataplane    what it needs of a kernel

Observed is what was read or acknowledged, never what was sent; a failure means read again; everything in our table
is ours and nothing else is touched; a restart recognises its own sets by their names.

Review notes: can the kernel ever hold fewer registered addresses between two steps than before them? Is a step
bounded? What if the process dies right after it, or right before its acknowledgement? Does a late admission wait
for more than one step? Is anything gone through whole that may have a million keys?
"""

from gatewayd.reconcile.loop import Reconciler
from gatewayd.reconcile.picture import Picture
from gatewayd.reconcile.steps import Commit, PutRules, acknowledge, next_step
from gatewayd.reconcile.tally import Tally

__all__ = ["Commit", "Picture", "PutRules", "Reconciler", "Tally", "acknowledge", "next_step"]
