"""Hostile bytes into everything that reads some: only declared errors come out, in bounded time and memory.

- `target`    what is fed, what it may raise, and what is checked of an error's message
- `mutating`  bytes of the corpus, changed
- `coverage`  which lines follow which, so that inputs that reach something new are kept
- `campaign`  hours in several processes, for `./run soak --fuzz`
- `minimal`   of what a campaign kept, as little as reaches the same, for `corpus/`
- `targets/`  one module for each kind of input
- `corpus/`   inputs by target: those that reached new code, and the smallest of each past finding

The round in `./run test` is the same on every run: a seed, a number, the corpus as it lies here. What a campaign
adds goes into a directory of the caller's. `python -m tests.fuzz.minimal` puts what is worth it into `corpus/`. A
finding goes there under a name, and has a test of that name in `test_fuzz_findings.py`.
"""
