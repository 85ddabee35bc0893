"""Settings and a moment → the policy in force."""

from __future__ import annotations

from gatewayd.model.flow import Mode
from gatewayd.model.policy import MarkLayout, Policy
from gatewayd.settings.model import PolicySettings, Settings


def policy_in_force(settings: Settings, now: float) -> Policy:
    """The policy at a moment: before `enforce_from` the mode is observe."""
    policy, kernel = settings.policy, settings.kernel
    limit = policy.on_unregistered.limit
    return Policy(
        mode=effective_mode(policy, now),
        scope=policy.scope,
        mark_layout=MarkLayout(kernel.ct_mark_mask),
        priority=kernel.priority,
        inside=policy.interfaces.inside,
        outside=policy.interfaces.outside,
        canary_percent=policy.canary_percent,
        registered_dscp=policy.on_registered.dscp,
        registered_mark=policy.on_registered.mark,
        unregistered_dscp=policy.on_unregistered.dscp,
        unregistered_mark=policy.on_unregistered.mark,
        limit_bytes_s=limit.bytes_per_second if limit is not None else 0,
        log_group=kernel.nflog_group,
        log_packets_s=kernel.nflog_rate_per_s,
    )


def effective_mode(policy: PolicySettings, now: float) -> Mode:
    return "observe" if policy.enforce_from is not None and now < policy.enforce_from else policy.mode
