"""Between any two writes: the program against everything that may happen around it, a seed for each run.

loop      an event loop with a time of its own, whose order of callbacks the seed decides
parties   who may be registered, in which forms; the flows that are looked at
oracle    which flows a registration and a set let pass, in the dumbest way
host_clock    what it may take for the time
truth     what is registered, and what the running process has to know of it
kernel, disk    what outlives a process: tables, connections, the state directory after each of its writes
asking    how a life asks its sources
life      one process, of the real parts; small: its bounds, such that few registrations meet all of them
script    what happens, as data; world: it happens
registries, nas, operators, outsiders    who makes it happen: sources and files, records, orders, other programs
wanted    the modes that operators want; watch, rest: what must hold after every write and event, and at the end
told      what a run tells: trace and counts
runs      many runs; the shortest form of one that failed
planted   faults that the search has to find; kept: runs that once found one

The order is decided by a loop rather than step by step from outside: asyncio's own tasks, locks and timeouts run on
it as they are, so a point at which others may run is every await of the program, and none that a test invents. A
call to the kernel waits before its effect, and between effect and answer; in each wait the process may be killed.
"""
