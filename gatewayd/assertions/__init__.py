"""Assertions of an operator: flows that must pass as registered, and flows that must not. Pure.

- `judge`    one assertion against a registry and a policy; which of them a change would break
- `overlay`  an allowlist with changes over it that were not made
- `lookups`  which elements of the kernel's sets would let a flow pass
- `states`   what the latest look at the kernel said of each, and since when; the view of it for the status

An assertion is about the decision, and not about the mode. `must_pass` holds while the flow is registered, and
`must_not_pass` while it is not; so it is in mode observe too. A policy that would cut the flow of a `must_pass`
that fails breaks it too. So a customer without a registration is found before a mode is armed. A service out of
scope passes in every mode: `must_pass` holds of it, and `must_not_pass` cannot.

Changes that an operator makes are judged before they are made (`control.assertions`), and the kernel every few
seconds. A start waits for none of it, and a reading of the registry is never refused for it.

Review notes: is each answer that of `allowlist.decide`, or of the kernel, and of no second rule? Does a change that
makes a cut worse count as a break? Does any path look assertions up without a bound?
"""
