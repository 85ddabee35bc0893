"""Near misses: flows that no registration lets pass, from addresses that a registration has or had.

A stranger's flow is a count in an aggregate. A near miss is a customer who will call: it names a registration, a
reason, and the one change that mends it.

    former     addresses that registrations and subscribers had until a moment ago
    reasons    a flow → the registration that it misses by least, and why
    findings   one line for each registration and reason: first and last seen, how often
    store      these lines on disk
    keeper     what happens when: fed by the registry, by sessions and by the kernel's log

Pure but for `store` and `keeper`. No address of a client is kept: a line has the service, and the /24 or /48 of the
far end.

The kernel has a group of its own for packets from prefixes that clients lie in (compile.near), so strangers do not
crowd out a customer. These prefixes may have neighbours of customers in them; `reasons` makes the exact test.

Review notes: does a reason come apart from the rule (allowlist.match)? A property test compares them. Is work for
one packet bounded, also where 50,000 registrations have one prefix? Does an address of a client reach a line, the
disk or the log? Is each bound counted?
"""
