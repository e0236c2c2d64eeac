"""Values that take a protection away without saying "off": refused, since their owner may not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.config.presets import SEQUENCER_FEEDS, SEQUENCER_GRACE
from agent.units import BPS

if TYPE_CHECKING:
    from agent.config.schema import Config

SHORTEST_MEAN_S = 1_800
"""A mean price over less can be pushed within a few blocks (T3)."""
LONGEST_DEADLINE_S = 1_800
"""A swap that stays valid for longer is a free option for whoever holds it back (T7)."""

LARGEST_JITTER_BPS = BPS // 2
"""A schedule that is late by more is another schedule."""


def require_protection(config: Config) -> None:
    """Raises ValueError naming the field, as pydantic's validators do."""
    if "spot" in config.reference.kind and not (config.chain.local or config.reference.allow_spot):
        raise ValueError(
            "reference.kind: spot prices can be moved by anyone for a block; use feed or twap, or set reference.allow_spot = true"
        )
    if "twap" in config.reference.kind and config.reference.twap_window < SHORTEST_MEAN_S and not config.chain.local:
        raise ValueError("reference.twap_window: a mean over less than 30m can be pushed within a few blocks; write 30m or more")
    _require_settled_prices(config)
    if not 0 < config.execution.deadline <= LONGEST_DEADLINE_S:
        raise ValueError("execution.deadline: a swap is valid for more than 0s and at most 30m; write for example 90s")
    if config.limits.slippage is not None and config.limits.slippage >= BPS:
        raise ValueError("limits.slippage: 100% or more takes any price; write less, such as 0.3%")


def _require_settled_prices(config: Config) -> None:
    """A trigger that one block can fire, and a rollup whose sequencer nobody watches, are chosen by name or not at all (T3, T13)."""
    reference, known = config.reference, SEQUENCER_FEEDS.get(config.chain.chain_id)
    if config.policy.confirm_blocks is None and not config.chain.local:
        raise ValueError("policy.confirm_blocks: missing; write 3, or 0 to let the prices of a single block fire a trigger")
    if known is not None and "sequencer_feed" not in reference.model_fields_set:
        raise ValueError(
            f'reference.sequencer_feed: missing on this rollup; write "{known}" with sequencer_grace = "{SEQUENCER_GRACE}", or "off"'
        )
    if reference.sequencer_feed is not None and reference.sequencer_grace is None:
        raise ValueError(f'reference.sequencer_grace: missing; write for example "{SEQUENCER_GRACE}"')
    if config.policy.jitter is not None and config.policy.jitter > LARGEST_JITTER_BPS:
        raise ValueError('policy.jitter: more than half of the interval; write less, such as "10%"')
