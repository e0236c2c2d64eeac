"""First purchase and top-up: money that its owner confirmed is no drift, so limits.turnover and limits.daily_turnover leave it alone.

What is freed is bounded by what was confirmed: the whole portfolio once, as long as the strategy has never traded, less what the
wallet moved in the last 24 h; afterwards what is left of the purchase under way, or of the deposits of a top-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from agent.model import (
    AssetDrift,
    Destination,
    ExecutionPace,
    ExecutionProgress,
    ExecutionStyle,
    Goal,
    GradualExecution,
    PurchaseKind,
    StepInput,
)
from agent.policy.cash_flows.withdrawals import goal_to_invest
from agent.policy.drift import compute_drifts, corrections, rebalance_goal, restrict_to_side
from agent.policy.strategies import netting
from agent.reference import reference_prices
from agent.units import Price, Value

LASTS_S = 7 * 86_400
"""How long a purchase in parts may take; what is left then is drift."""
NONE = Fraction(0)


def is_first_purchase(step: StepInput) -> bool:
    """Whether the next rebalance is the first purchase: the strategy has never traded by this store."""
    return step.limits.first_purchase_s is not None and step.history.last_rebalance_s is None and step.history.campaign is None


def active_purchase(step: StepInput) -> ExecutionProgress | None:
    """The purchase that is carried out in parts; None where there is none."""
    found = step.history.campaign
    return found if found is not None and found.campaign.purchase is not None else None


def first_rebalance_name(step: StepInput, drifts: Sequence[AssetDrift], wanted: Goal) -> str:
    """What the first rebalance of a store is called: a purchase only where nothing but the numeraire is sold for it."""
    home, least = step.portfolio.numeraire.address, step.limits.min_trade or Fraction(1)
    sells = any(lack <= -least for token, lack in corrections(drifts, wanted).items() if token != home)
    return "first rebalance" if sells else "first purchase"


def uninvested_deposits(step: StepInput) -> dict[str, int]:
    """What of the deposits of a top-up is not invested yet, base units by token: those confirmed just now, and those under way."""
    left = dict(step.history.invested)
    if (under := active_purchase(step)) is not None and under.campaign.purchase is PurchaseKind.TOP_UP:
        sold = dict(under.sold)
        for token, raw in under.campaign.came:
            left[token] = left.get(token, 0) + max(0, raw - sold.get(token, 0))
    return {token: raw for token, raw in left.items() if raw > 0}


def turnover_allowance(step: StepInput) -> Value:
    """The most that a plan may move beside the limits of turnover now, numeraire base units at the prices of now."""
    prices = _prices(step)
    if is_first_purchase(step) and not step.history.invested:
        if any(asset.token.address not in prices for asset in step.portfolio.assets):
            return NONE
        drifts = compute_drifts(step, prices)
        return max(NONE, _moves(drifts, _first(step, drifts)) - step.history.turnover_24h)
    value = sum((raw * prices.get(token, NONE) for token, raw in uninvested_deposits(step).items()), NONE)
    if (under := active_purchase(step)) is not None and under.campaign.purchase is PurchaseKind.FIRST:
        value += max(NONE, under.campaign.wish - under.moved)
    return value


def purchase_goal(step: StepInput, drifts: Sequence[AssetDrift]) -> Goal:
    """Where a purchase goes: a first one to the targets, or to what strategies want together; a top-up over what is below its target."""
    under = active_purchase(step)
    if under.campaign.purchase is PurchaseKind.FIRST if under is not None else not step.history.invested:
        return _first(step, drifts)
    return goal_to_invest(step, uninvested_deposits(step))


def pace(step: StepInput, parts: int) -> ExecutionPace:
    """So many parts, limits.first_purchase apart."""
    return ExecutionPace(ExecutionStyle.ROUNDS, parts, step.limits.first_purchase_s or 1)


def format_progress(campaign: GradualExecution, done: int) -> str:
    """Which part is next, of how many."""
    name = "first purchase" if campaign.purchase is PurchaseKind.FIRST else "top-up"
    return f"{name}, part {done + 1} of {max(campaign.rounds, done + 1)}"


def _first(step: StepInput, drifts: Sequence[AssetDrift]) -> Goal:
    if step.split is not None:
        return netting.net_strategies(step, _prices(step)).goal
    return restrict_to_side(
        tuple(drifts), rebalance_goal(tuple(drifts), Destination.TARGET), step.policy.only, step.portfolio.numeraire.address
    )


def _moves(drifts: Sequence[AssetDrift], wanted: Goal) -> Value:
    lacks = corrections(drifts, wanted).values()
    return max(sum((lack for lack in lacks if lack > 0), NONE), -sum((lack for lack in lacks if lack < 0), NONE))


def _prices(step: StepInput) -> dict[str, Price]:
    return {token: found.price for token, found in reference_prices(step).prices.items()}
