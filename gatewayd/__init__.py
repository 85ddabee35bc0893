"""gatewayd keeps registered VPN traffic passing. The way of the data, a package a step:

1. `registry`     reads sources, validates record by record, keeps what is usable
2. `allowlist`    holds registrations in a radix tree; `decide` says what a flow is at a moment
3. `subscribers`  (mobile numbers to addresses; not built yet)
4. `compile`      registrations → masks → desired hash sets; settings → nft rules as text
5. `reconcile`    desired against observed → bounded transactions, make before break
6. `kernel`       netlink: elements in and out, rules through nft, conntrack marks
7. `watch`        kernel events → attribution, late admission
8. `api`          immutable views → health, metrics, JSON

`model` has the nouns, `errors` the faults, `settings` the YAML; `daemon` puts it together, `cli` is for
people.
"""

__version__ = "0.1.0"
