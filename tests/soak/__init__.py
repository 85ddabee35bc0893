"""A daemon cut short for as long as one likes, on a real kernel, under traffic: `./run soak`.

    world        registries that change from round to round, and the flows that are registered in all of them
    subscribers  blocks of ports that accounting tells, and that change
    sight        what is in the kernel, and whether it is what a registry wants
    rounds       SIGKILL at random moments of loading, changing and repairing; not a packet may be missing
    damage       elements and rules taken away behind its back: what that cost until the repair

A short one is in tests/lab/test_lab_churn.py. Everything random comes from one seed, which is shown; the moment at
which a signal lands is the machine's as well, so a seed repeats what was done and not quite when.

Review notes: can a loss pass unseen (a packet not sent, a flow that is no longer new to the gateway)? Does every
stage of a load get its share of the kills?
"""
