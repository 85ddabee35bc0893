"""`./run bench`: every row of the numbers to reach, measured beside what a user would pick instead.

A *row* (rows/) is one question: how long does it take to fill a set? Its *subjects* are the answers that compete:
gatewayd and its peers. A *measure* is a figure that each of them gives. Every run of a subject is a fresh process
in a fresh network namespace (worker.py), so that nothing is warm that would be cold, a peak of memory is the
subject's own, and no ruleset outlives it. The runs of a row alternate between its subjects. Reported is the median,
with the smallest and the largest run.

    rows ─► runner ─► worker, in a namespace of its own ─► one JSON line ─► medians ─► table, JSON, Markdown, plots
                                                                               └─► goals: met, or by how much not

Nothing here asserts: a time is a fact of a machine, not of the code.

Review notes: does a subject do all that its competitor does, and no more? Is a peer that is missing named, with the
reason? Is a figure per element stated with the number of elements it was taken at?
"""
