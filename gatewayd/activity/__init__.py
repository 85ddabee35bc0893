"""Which registration is used, day by day, and what happened to the registry: what a report of months is made of.

- `days`   P days, the rows that wait for the file, and which events are kept
- `rows`   P what is read of the file
- `verify` P what an ISP signs of each registration
- `store`    the tables of `activity.sqlite`

Of a registration the file has its id, and of each day flows, bytes and when it was last seen. It has no address, no
subscriber and nothing of unregistered traffic.

Days are days of UTC. A day is not deleted because the clock says so: a clock that is set ahead by a year would take
all of them away. The newest 400 days that have anything stay.

Review notes: does a fault of the file cost more than its content, and is it said? Is what waits in memory bounded?
Can a flow be counted twice, over a restart too? Is there an identity in a row?
"""
