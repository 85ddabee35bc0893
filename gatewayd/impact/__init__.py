"""How many unregistered flows there are, of which clients and services, and how many a policy would refuse.

The rules count each flow once, in the kernel (compile.counting): nothing is sampled. Once a minute the differences
go to `state_dir/impact.sqlite`, as counts by hour and day: of client prefixes, services, interfaces. No address is
in it.

- `counting` P  the kernel's counters, read again and again → what came since
- `buckets`  P  hours and days: bounds of what is kept of each
- `report`   P  sums over a time → what happened, and what reject, limit and a canary would do to the same flows
- `store`    IO the SQLite file
- `keeper`   IO reads once a minute, writes, answers

The kernel's counters outlive the daemon. What was counted of each element is in the file too, in one transaction
with the sums. So nothing is counted twice, and what came while no daemon ran is counted by the next.

Review notes: is every flow in the total, whatever failed? Is what could not be placed said? Does any table, list or
row grow with the number of clients beyond its bound? Is an address or a subscriber in what is kept or shown?
"""
