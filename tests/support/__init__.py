"""Rigs and material of the tests: which of them answers which question.

Does the reconciler lose a packet, and what does it write?
    reconciling    a reconciler on a fake kernel that sees every write; the oracles of elements and flows
Does the kernel itself do that?
    planes         a fresh network namespace, and the real dataplane in it
    worlds, talk   registrations put into a real kernel without a reconciler; packets from either side of a lab
    replay         captures of real tunnels, sent through it; the figures of docs/scope.md
    events         a marked namespace, senders, and an event source that remembers
    carrying       connections put into the kernel as conntrackd does it
Is what is wrong with a host named, and mended by what is printed?
    room           a host of its own, in a network and a mount namespace; facts: those of a healthy one
What does the daemon do in time, without a kernel?
    owning         the controller, its reconciler and scanner, by a clock that only the test moves (manual_clock)
    fake_conntrack, fake_files    connection tracking and a disk in memory
    fake_queries   an API without a daemon
    asserting      assertions of an operator
    impact         reports of unregistered flows
    providers      a licensed provider, and flows to its servers
What does the shrink guard let through, and what stays in force?
    guarding       a guard, or the whole state of a registry, reading after reading, and after a restart
What becomes of a subscriber's packet of accounting?
    accounting     events by the dozen, and a table of sessions that takes them
    subscribers    from the datagram to the fake kernel, in one process
    radius, nas, freeradius       packets of others; a NAS; FreeRADIUS in front of it
What does a source do to the gateway?
    feeds          a signed feed in memory; authority: certificates for its server
    name_server    names that are not answered
    bad_registry   a registry behind a real web server (nginx) that misbehaves; fed_gateway: a gateway on it
    bad_input      what registries and networks have sent that no gateway should fall for
Does the whole host stand it?
    booted         Debian 12 and 13 with their own systemd, as the gateway of a lab
    packages       the Debian packages of this checkout, and other versions of them
Does the whole daemon stand it?
    lab_daemon     a real daemon in the lab, its configuration, its commands
    warm           begins it, and its commands, from an interpreter that has imported gatewayd already
    hurried        the same in time that passes faster; hurried_lab: with a disk that can be full
    wrong_clock, busy             its wall clock is wrong; the machine does something else too
    holding        another program holds nf_tables
    neighbours     Docker's tables, ufw, firewalld beside it, and traffic that must not notice them
    pair           two gateways with keepalived and conntrackd; pair_traffic and pair_connections: what goes through
                   them, and where a packet was lost

What do Prometheus and Grafana see of it?
    prometheus     a real Prometheus beside a daemon in the lab
    promql         expressions, held against the metrics that are declared
    panels, grafana        the dashboard as it is declared, and its JSON

strategies are Hypothesis' for the nouns; captures and rule_captures are bytes that a kernel really sent. background
is a thread, or a server in one, for as long as a `with` lasts.
"""
