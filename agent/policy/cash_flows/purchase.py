"""First purchase and top-up: money that the owner confirmed, exempt from limits.turnover and
limits.daily_turnover.

The exemption is bounded by the confirmed amount. Before the strategy's first trade that is the
whole portfolio once, less the wallet's turnover of the last 24 h; afterwards the rest of the active
purchase or of a top-up's deposits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from agent.errors import Refused
from agent.model import (
    AssetDrift,
    Destination,
    ExecutionPace,
    ExecutionProgress,
    ExecutionStyle,
    ExternalTransfer,
    Goal,
    GradualExecution,
    PurchaseKind,
    StepInput,
    Verdict,
)
from agent.policy.cash_flows.balance_changes import (
    restore_excluded,
    rises_after_sales,
    unexplained_rises,
)
from agent.policy.cash_flows.withdrawals import goal_to_invest
from agent.policy.drift import (
    compute_drifts,
    corrections,
    investable_total,
    rebalance_goal,
    restrict_to_side,
)
from agent.policy.strategies import netting
from agent.reference import reference_prices
from agent.units import NATIVE, Price, Value, value_text

LASTS_S = 7 * 86_400
"""Longest duration of a purchase in parts; any remainder then counts as drift."""
NONE = Fraction(0)


def is_first_purchase(step: StepInput) -> bool:
    """True if the next rebalance is the first purchase: the store has no trade by the strategy."""
    return (
        step.limits.first_purchase_s is not None
        and step.history.last_rebalance_s is None
        and step.history.campaign is None
    )


def active_purchase(step: StepInput) -> ExecutionProgress | None:
    """Return the active purchase in parts; None if there is none."""
    found = step.history.campaign
    if found is not None and found.campaign.purchase is not None:
        return found
    return None


def first_rebalance_name(step: StepInput, drifts: Sequence[AssetDrift], wanted: Goal) -> str:
    """Return the name of a store's first rebalance: a purchase only if the numeraire alone
    is sold.
    """
    home, least = step.portfolio.numeraire.address, step.limits.min_trade or Fraction(1)
    sells = any(
        lack <= -least for token, lack in corrections(drifts, wanted).items() if token != home
    )
    return "first rebalance" if sells else "first purchase"


def uninvested_deposits(step: StepInput) -> dict[str, int]:
    """Return the uninvested part of a top-up's deposits, base units by token: newly confirmed ones,
    and those of the active purchase.
    """
    left = dict(step.history.invested)
    if (
        under := active_purchase(step)
    ) is not None and under.campaign.purchase is PurchaseKind.TOP_UP:
        sold = dict(under.sold)
        for token, raw in under.campaign.came:
            left[token] = left.get(token, 0) + max(0, raw - sold.get(token, 0))
    return {token: raw for token, raw in left.items() if raw > 0}


def turnover_allowance(step: StepInput) -> Value:
    """Return the value that is exempt from the turnover limits now, numeraire base units at present
    prices.
    """
    prices = reference_prices(step).by_token
    if is_first_purchase(step) and not step.history.invested:
        if any(asset.token.address not in prices for asset in step.portfolio.assets):
            return NONE
        drifts = compute_drifts(step, prices)
        return max(NONE, _moves(drifts, _first(step, drifts)) - step.history.turnover_24h)
    value = sum(
        (raw * prices.get(token, NONE) for token, raw in uninvested_deposits(step).items()), NONE
    )
    if (
        under := active_purchase(step)
    ) is not None and under.campaign.purchase is PurchaseKind.FIRST:
        value += max(NONE, under.campaign.wish - under.moved)
    return value


def purchase_goal(step: StepInput, drifts: Sequence[AssetDrift]) -> Goal:
    """Return the goal of a purchase: the targets, or the strategies' combined goal; for a top-up,
    the underweight assets.
    """
    under = active_purchase(step)
    if (
        under.campaign.purchase is PurchaseKind.FIRST
        if under is not None
        else not step.history.invested
    ):
        return _first(step, drifts)
    return goal_to_invest(step, uninvested_deposits(step))


def pace(step: StepInput, parts: int) -> ExecutionPace:
    """Return the pace of a purchase: parts at intervals of limits.first_purchase."""
    return ExecutionPace(ExecutionStyle.ROUNDS, parts, step.limits.first_purchase_s or 1)


def format_progress(execution: GradualExecution, done: int) -> str:
    """Format the number of the next part and of all parts."""
    name = "first purchase" if execution.purchase is PurchaseKind.FIRST else "top-up"
    return f"{name}, part {done + 1} of {max(execution.rounds, done + 1)}"


def _first(step: StepInput, drifts: Sequence[AssetDrift]) -> Goal:
    if step.split is not None:
        return netting.net_strategies(step, reference_prices(step).by_token).goal
    return restrict_to_side(
        tuple(drifts),
        rebalance_goal(tuple(drifts), Destination.TARGET),
        step.policy.only,
        step.portfolio.numeraire.address,
    )


def _moves(drifts: Sequence[AssetDrift], wanted: Goal) -> Value:
    lacks = corrections(drifts, wanted).values()
    return max(
        sum((lack for lack in lacks if lack > 0), NONE),
        -sum((lack for lack in lacks if lack < 0), NONE),
    )


def investable_deposits(
    step: StepInput, came: Sequence[ExternalTransfer]
) -> tuple[ExternalTransfer, ...]:
    """Return the increases, given oldest first, that fit below portfolio.max_live_value.

    Each counts as a whole, in this order, so that a later deposit takes no room from an earlier
    one. Raises Refused if none fits.
    """
    limit, whole = step.limits.max_live_value, restore_excluded(step)
    if limit is None or not came:
        return tuple(came)
    prices = reference_prices(whole).by_token
    try:
        standing = compute_drifts(whole, prices)
    except Refused:
        return tuple(came)  # if unknown, planning reports the refusal
    free = {one.token: one.investable_raw for one in standing}
    risen = rises_after_sales(whole, unexplained_rises(whole), prices)
    rose = sum(
        (
            min(free.get(token, 0), max(0, raw)) * prices[token]
            for token, raw in risen.items()
            if token in free
        ),
        Fraction(0),
    )
    room, taken = limit - (investable_total(standing) - rose), list[ExternalTransfer]()
    for flow in came:
        if (value := _value(whole, flow, prices)) <= room:
            taken.append(flow)
            room -= value
    if not taken:
        numeraire = step.portfolio.numeraire
        managed, most = (
            f"{value_text(one, numeraire.decimals, 2)} {numeraire.label}"
            for one in (investable_total(standing) - rose, limit)
        )
        smallest = min(_value(whole, flow, prices) for flow in came)
        came_words = f"{value_text(smallest, numeraire.decimals, 2)} {numeraire.label}"
        raise Refused(
            f"{came_words} invested on top of {managed} would exceed portfolio.max_live_value of"
            f" {most}",
            (
                Verdict(
                    "max_live_value", f"{managed} and {came_words} more", f"at most {most}", False
                ),
            ),
            "raise it by trimtab edit --set portfolio.max_live_value=AMOUNT, or send less",
        )
    return tuple(taken)


def _value(step: StepInput, flow: ExternalTransfer, prices: Mapping[str, Price]) -> Fraction:
    return (
        flow.delta_raw
        * prices[step.portfolio.wrapped_native if flow.token == NATIVE else flow.token]
    )
