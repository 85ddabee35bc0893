"""Step 8: what the kernel tells us of traffic, matched, attributed and counted.

Two streams come in. *nflog*: packets that a rule logged, mostly of unregistered flows, for late admission
and for the counts. *conntrack*: connections that were marked by our rules, when they begin and when they
end. Both are information: no verdict waits for them, and a lost event cuts no customer off. Losing one unnoticed
would make our counts lie, so the receiving sockets report every loss with its number.

`decode` turns buffers into events, and has the filter that keeps events of other people's flows in the kernel.
`source` owns the sockets. A wakeup reads a bounded number of datagrams into one buffer, decodes them in one go
and calls back once with the whole list. So hundreds of events share the price of a call, and a flood cannot keep
the loop from its other work.

`handler` says what follows from an event: late admission, attribution, counts, a scan after a loss. `attribute`
gives flows their registrations, `aggregate` counts unregistered ones, and `repeats` tells a try from the next.
`surroundings` watches the rules of other programs and the size of conntrack. `links` watches the interfaces that
come and go, and `interfaces` holds them against the names of the policy.

Loss is read from the socket's drop counter (SO_MEMINFO) with ENOBUFS switched off (NETLINK_NO_ENOBUFS).
With ENOBUFS on, an overrun makes the socket poll as *error*, and libuv stops watching such a descriptor. The
first overrun would be the last event ever (seen with uvloop 0.23). The counter also says how many.

Review notes: Is anything behind the ports looked at? Does a malformed message cost
only itself, and is it counted? Is work per wakeup bounded? Does a loss reach `on_lost`? Would this still
work when the reader wakes up ten seconds late?
"""
