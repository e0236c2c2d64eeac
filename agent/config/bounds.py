"""Values that take a protection away without saying "off": refused, since their owner may not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.config.presets import SEQUENCER_FEEDS, SEQUENCER_GRACE
from agent.units import BPS

if TYPE_CHECKING:
    from agent.config.schema import Config, LimitsTable

SHORTEST_MEAN_S = 1_800
"""A mean price over less can be pushed within a few blocks (T3)."""
LONGEST_DEADLINE_S = 1_800
"""A swap that stays valid for longer is a free option for whoever holds it back (T7)."""
LONGEST_JUMP_WAIT_S = 30 * 86_400
"""A stranger's gift must not hold purchases back for longer."""
CEILINGS = {"slippage": 500, "price_impact": 1_000, "plan_cost": 500, "daily_loss": 2_000}
"""Bps above which a limit, or "off", has to be named in limits.i_accept (T21). A swap rarely needs 1 % of slippage or cost; a tenth
of a pool's price or a fifth of the portfolio in a day is more than a slip of the unit should allow.
"""
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
    if (config.limits.balance_jump_wait or 0) > LONGEST_JUMP_WAIT_S:
        raise ValueError('limits.balance_jump_wait: more than 30d; write less, such as "24h"')
    if config.limits.slippage is not None and config.limits.slippage >= BPS:
        raise ValueError("limits.slippage: 100% or more takes any price; write less, such as 0.3%")


def loose(limits: LimitsTable) -> dict[str, str]:
    """Each limit that is off or above its ceiling, by key, with its value in words."""
    values = {key: getattr(limits, key) for key in CEILINGS}
    beyond = {key: bps for key, bps in values.items() if bps is None or bps > CEILINGS[key]}
    return {
        key: f"limits.{key}: {'off' if bps is None else _percent(bps)} is beyond the ceiling of {_percent(CEILINGS[key])}"
        for key, bps in beyond.items()
    }


def accepted(limits: LimitsTable) -> list[str]:
    """What limits.i_accept lets pass, in words."""
    return [f"{words}, accepted by limits.i_accept" for key, words in loose(limits).items() if key in limits.i_accept]


def needless(limits: LimitsTable) -> list[str]:
    """Names in limits.i_accept whose limit is within its ceiling."""
    return sorted({*limits.i_accept} - loose(limits).keys())


def require_accepted(config: Config) -> None:
    """Raises ValueError for a limit beyond its ceiling that its owner has not accepted by name."""
    limits = config.limits
    strange = next((name for name in limits.i_accept if name not in CEILINGS), None)
    if strange is not None:
        raise ValueError(f"limits.i_accept: {strange!r} is no limit with a ceiling; choose from {', '.join(CEILINGS)}")
    refused = {key: words for key, words in loose(limits).items() if key not in limits.i_accept}
    if refused:
        names = ", ".join(f'"{name}"' for name in (*limits.i_accept, *refused))
        raise ValueError(f"{'; '.join(refused.values())}; write less, or accept it by i_accept = [{names}] in [limits]")


def _percent(bps: int) -> str:
    return f"{bps / 100:g}%"


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
