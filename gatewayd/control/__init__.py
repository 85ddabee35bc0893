"""The tasks and the clock: what happens when.

- `controller`    the registry in force, changed by one task: sources, local files, an operator, the clock
- `guard_keeper`  the guard on disk and in the log; unregistered elements that a start found
- `companies`     registrations by company: whose removals are held, which company went whole
- `extended_log`  each endpoint of a provider that comes or goes; provisional registrations before they end
- `core`          performs what the active set desires; the parts between the registry and the kernel, wired once
- `policy`        the policy of the moment and the one in force; what brought it there
- `trial_keeper`  changes of the mode: on disk, in the kernel, on time
- `trip_evidence` the numbers that may trip; `trial_report` what a trial came to, as a page
- `trial_store`   their record; `trial_gateway` what of the controller they need, `arming_queries` the API's side
- `reload`        new settings; a task for each source, and for the directory of local files
- `assertion_gate`   refuses what would break an assertion; `assertion_watch` asks the kernel whether it keeps them
- `planner`       a reload or another mode, rehearsed for `plan`; `flow_changes` (pure) what it makes of live flows
- `queries`       the API's answers; `status` everything on one screen, `explain` one flow, `subscriber_queries`
                  bindings and sessions, `registry_queries` pins, filters, held removals and changes,
                  `report_queries` months
- `near_miss_queries` answers about near misses
- `activity_keeper` puts the use of registrations on disk once a minute, and what happened to the registry
- `history_keeper` takes a sample of the counters each minute, for plots of the last day
- `drain_keeper` how long draining flows have left, on disk
- `vitals`        the numbers of the process itself, the loop's lag, watchdog and readiness
- `trusted_time`  (pure) which clock is believed; `host_time` the clocks of this host

Review notes: is every change one turn without await? Is everything that runs between two awaits bounded? Does a
reload reach each part that reads a setting?
"""
