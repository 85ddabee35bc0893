"""Step 8: what is going on, for people and machines. Immutable views out, nothing of the daemon in.

- `views`       P   what is said, frozen, JSON as it stands; made by small builders from nouns and numbers;
                    `subscriber_views` of bindings, sessions, their journal and RADIUS; `times`: its moments
- `parameters`  P   what is asked, from text to values; every fault names its parameter
- `bodies`      P   what people tell of sessions, from bytes to values
- `metrics`     P   a view → the page of a Prometheus scrape, with `subscriber_metrics`, by way of `families`
- `queries`     P   what the daemon must answer: a Protocol
- `app`         IO  aiohttp: paths → queries → JSON, on a TCP port and on a Unix socket

Two listeners, because rights differ: whoever reaches the TCP port may read, and nothing on it writes. What
changes anything is on the Unix socket alone, mode 0660, so that the file system says who may. This is not a
check in a handler but two applications: the one on TCP has no route that writes.

Queries are synchronous: an answer is made in one turn of the event loop from what is in memory, so it is
consistent and cannot hang on a lock or on the kernel. The price is that a query must be short; listings are
paged, and what is kept for them is bounded. `app` is imported by name, not from here, so that the CLI and the
daemon's pure parts do not pull in aiohttp.

Review notes: can an old reader live with the changed view (add, never rename)? Does a number that hides a cut
customer stand where it is seen first? Is a new label bounded, and free of subscribers? Does a new path that
changes anything stay off TCP? Does an error name the parameter and what is expected, and keep our insides to
the log? Is the answer made without an await?
"""

from gatewayd.api.parameters import ParameterRejected
from gatewayd.api.queries import Queries
from gatewayd.api.views import (
    AggregateView,
    CounterView,
    ExplainView,
    FlowPage,
    FlowView,
    KernelView,
    MatchView,
    MetricsView,
    RegistrationCounts,
    RegistrationPage,
    RegistrationView,
    SourceView,
    StatusView,
    UnprogrammedView,
    WatchView,
)

__all__ = [
    "AggregateView",
    "CounterView",
    "ExplainView",
    "FlowPage",
    "FlowView",
    "KernelView",
    "MatchView",
    "MetricsView",
    "ParameterRejected",
    "Queries",
    "RegistrationCounts",
    "RegistrationPage",
    "RegistrationView",
    "SourceView",
    "StatusView",
    "UnprogrammedView",
    "WatchView",
]
