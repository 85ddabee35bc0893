"""gatewayd keeps registered VPN traffic passing. The way of the data, a package a step:

1. `feed`         the format of the registry: records, snapshots, deltas, signatures
   `sources`      asks each source, and keeps its last good on disk
2. `registry`     the registry in force: merged, with local overrides, unusual removals held back
3. `allowlist`    registrations in a radix tree; `decide` says what a flow is at a moment
   `near_miss`    flows that a registration misses by little
4. `subscribers`  mobile numbers to addresses, by RADIUS accounting
5. `compile`      registrations → masks → desired hash sets; settings → nft rules as text
   `assertions`   flows that must pass, or must not
6. `kernel`       netlink: elements in and out, rules through nft, conntrack
7. `reconcile`    desired against observed → bounded transactions, make before break
   `trial`        confirmed changes of the mode, and the trip: which stage is in force
8. `watch`        kernel events → attribution, late admission
   `impact`       unregistered flows as the rules counted them
   `control`      the tasks and the clock: what happens when
9. `api`          immutable views → health, metrics, JSON
   `page`         the same for a wall: HTML, what is wrong first
   `cli`          the same for people

`model` has the nouns, `settings` the YAML, `log` the events, `listen` bounded sockets, `state_file` SQLite files,
`activity` the use of each registration by day. `filesystem` puts files in place. `doctor` examines the host around
the gateway. `daemon` builds all.
`authority` is the reference registry, another organisation's program. `lab` is a small internet in network
namespaces, and `demo` a scenario on it. `passage` traces a packet through a copy of all tables of the
host. `top` has the rows and rates of a screen.
"""

__version__ = "0.1.0"
