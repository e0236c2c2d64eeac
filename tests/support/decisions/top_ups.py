"""Top-ups of which a part was invested."""

from __future__ import annotations

from fractions import Fraction

from agent.model import Purchase, PurchaseKind, PurchaseProgress, StepInput
from agent.policy.cash_flows import purchases
from tests.support.builders import NOW_S, token, with_history
from tests.support.decisions.purchases import MILLION


def with_top_up(step: StepInput, came_usd: int, sold_usd: int, due_s: int = 0) -> StepInput:
    """The step with a top-up of `came_usd`, of which one part of `sold_usd` was invested; the next is due `due_s` from now."""
    home = token("USDC").address
    terms = Purchase(
        PurchaseKind.TOP_UP,
        value_to_move=Fraction(came_usd * MILLION),
        part_count=2,
        interval_s=600,
        arrival_prices=(),
        began_s=NOW_S - 600,
        expires_s=NOW_S + 7 * 86_400,
        deposits=((home, came_usd * MILLION),),
    )
    moved = Fraction(sold_usd * MILLION)
    sold = ((home, sold_usd * MILLION),)
    active = PurchaseProgress("7a", terms, 1, moved, Fraction(0), NOW_S + due_s, sold)
    return purchases.with_purchase(with_history(step, last_rebalance_s=1), active)
