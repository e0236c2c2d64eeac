"""Tracking rules of a config on a local chain."""

from __future__ import annotations

from tests.support.agents import ROOMY


def tracking_policy(strictness: str) -> dict[str, object]:
    return ROOMY | {"policy.trigger": {"kind": "tracking", "strictness": strictness}, "policy.destination": "zone"}
