"""Step 3, pure: the registrations in force, and what a flow is at a moment.

`ActiveSet` (allowlist.py) knows windows and bindings, and returns with each change the elements to add and to
remove. Its `Allowlist` owns the registrations and those of each subscriber. A dict by id and a radix (radix.py) by
client prefix hold the same objects. `BindingTable` holds the bindings, in a radix of their own and by subscriber
(by_subscriber.py): the table of sessions fills it, and the allowlist reads it. `decide` and
`matching_registrations` apply the rule (match.py; endpoints.py has that of a destination alone) to what they find;
words.py has the words of reasons. `Schedule` (schedule.py) says when a window next opens or closes. Nothing here
reads a clock.

Why a radix at all, when the kernel's sets decide: events, `explain` and `impact` must name the registrations,
of both ends, at every length.

Measured at 1 M registrations with one IPv4 client prefix of /24 to /32 each, on Python 3.11 and 2 cores. The
addresses are in random order, so that every level of the tree misses the processor's caches:

| what | measured |
| --- | --- |
| covering an address: none (other /16) · none (same /16) · one · five nested | 0.12 · 1.8 · 3.2 · 2.4 µs |
| `matching`, one hit: all of 1 M in turn · 500 of them active | 4.4 · 2.0 µs |
| `matching`, neither end known | 0.4 µs |
| `upsert` that replaces | 9 µs, p99 19 µs |
| memory beside the registrations (290 MB): radix and dict | 188 MB |
| `Schedule`, 1 M windows | 93 MB |

Beside these, with 100,000 bindings of as many subscribers, one IPv4 address each, in random order:

| what | measured |
| --- | --- |
| `matching` through a binding: all of them in turn · 500 of them active | 4.7 · 2.2 µs |
| `matching`, neither end known | 0.2 µs more than without any binding |
| `matching` at one CGNAT address with 63 port blocks | 7 µs |
| `put` · `remove` | 3.8 · 6.5 µs |
| memory | 240 bytes a binding, beside the binding itself |

Tried with the same data, and not better for one hit:

| what | one hit |
| --- | --- |
| a dict for each length in use: less memory (49 MB), twice the time at 17 lengths | 4.0 µs |
| a dict for each /16 | 4.1 µs |
| a tree for each /16 | 3.5 µs |
| a second tree of prefixes that have others below them, to save the question for a parent | 4.1 µs |

Review notes: does a registration reach the radix, the counts and the dict in one turn, without an await
between? Is a rule stated twice, where `_admits` and `_failures` can come apart (a property test compares
them)? Does the hot path build a string, a list it does not need, or call a generator? Is everything that is
told to people a function of the content, not of the order of arrival? Who calls `Schedule.watch` again after
`due`, and `watch_all` after the clock was set back? Does a binding count for a destination, or for a port that
is a neighbour's? Does a digest reach a reason or an error?
"""

from gatewayd.allowlist.allowlist import ActiveSet, Allowlist, BindingTable
from gatewayd.allowlist.match import Covering, decide, in_scope, matching_registrations, registered_by
from gatewayd.allowlist.radix import Radix
from gatewayd.allowlist.schedule import Schedule

__all__ = [
    "ActiveSet",
    "Allowlist",
    "BindingTable",
    "Covering",
    "Radix",
    "Schedule",
    "decide",
    "in_scope",
    "matching_registrations",
    "registered_by",
]
