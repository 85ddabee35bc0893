"""Every fault under registered traffic, each packet accounted for: `./run proof`.

    harness      a world (lab, daemon, registry, accounting), a fault as a value, and the row that comes of it
    traffic      the registered flows: old and new, of both families, opened by either side, and handshakes
    telling      what the operator was told of it: log, status, metrics
    faults       the faults: host (process, disk, clock), registry, accounting; the kernel and the network
    pair         two gateways, and what a failover costs; pair_cases, pair_table
    progress     what is made, and how long it takes; a row that fails ends no other
    table        rows as JSON, and as the tables of README and docs/proof.md

A smoke of it, and planted losses that it has to find, are in tests/lab/test_lab_proof.py.

Review notes: can a row come out well with no damage done, or with no packet under way meanwhile? Is the row ready
before it was repaired?
"""
