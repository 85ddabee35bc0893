"""The host around the gateway: what is wrong with it, why it matters, and the command that changes it.

    facts             a host's settings, interfaces, chains and rules of others, versions, as values
    rules_codec       chains, rules and flowtables ↔ bytes
    findings          a finding; the view that status and page show
    settings_checks, neighbour_checks, host_checks, kernel_faults
                      the checks, a function each
    diagnosis         facts to findings
    readings          the shell: reads the facts
    keeper            the daemon's: has a process of its own look, every few minutes

Review notes: can a fault be named whose command does not mend it, and does a test type that very command? Is what
could not be read said? Is anything of a healthy host called wrong, so that engineers learn to look away? Does
the daemon wait for any of it?
"""
