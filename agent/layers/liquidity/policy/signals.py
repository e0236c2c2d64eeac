"""Price signals of liquidity moves, which preceding blocks have to confirm."""

from __future__ import annotations

from agent.layers.liquidity.policy.adjustments import target_adjustment
from agent.layers.liquidity.policy.book import liquidity_limits, open_position_book
from agent.layers.liquidity.policy.moves import ProvideMove
from agent.model import StepInput
from agent.policy.triggers.bands import PriceSignal
from agent.policy.triggers.price_confirmation import Prices


def limit_signals(step: StepInput, prices: Prices) -> frozenset[PriceSignal]:
    """Return a signal for each exceeded liquidity limit. Raises Refused."""
    exposure = open_position_book(step, prices).exposure()
    limits = liquidity_limits(step.limits)
    exceeded_by_limit = {
        "impermanent_loss": exposure.exceeds_loss(limits),
        "lp_max_weight": exposure.exceeds_weight(limits),
    }
    return frozenset(
        ("limit", limit_name)
        for limit_name, is_exceeded in exceeded_by_limit.items()
        if is_exceeded
    )


def liquidity_signals(step: StepInput, prices: Prices) -> frozenset[PriceSignal]:
    """Return a signal for each move of the liquidity targets. Raises Refused."""
    moves = target_adjustment(step, prices).moves
    return frozenset(
        (
            ("ProvideMove", move.target.pool)
            if isinstance(move, ProvideMove)
            else (type(move).__name__, move.confirmed_position.name)
        )
        for move in moves
    )
