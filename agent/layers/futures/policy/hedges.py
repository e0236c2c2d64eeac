"""Hedges, which short part of an overweight instead of selling it: their cost, spot targets
adjusted for the hedged value of open ones, and reasons to close.

A hedge keeps the holding and its tax lots and removes the price risk. It costs the taker fee twice,
funding while it is open, and the capital cost of its margin. The target weights count the hedged
value as sold: it is added to its asset's target, and the other targets shrink in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from agent.layers.futures.policy.exposure import expected_funding, quote_per_numeraire
from agent.layers.futures.state import (
    FuturesConfig,
    futures_policy,
    futures_state,
    margin_account,
    with_policy,
)
from agent.margin import account as margin
from agent.model import (
    FuturesPolicy,
    Hedge,
    HedgeComparison,
    MarginAccount,
    PerpMarket,
    Portfolio,
    Snapshot,
    StepInput,
)
from agent.policy.drift import compute_drifts, investable_total
from agent.policy.target_changes import with_targets
from agent.reference import reference_prices
from agent.units import (
    BPS,
    DAY_S,
    YEAR_S,
    Value,
    cents_text,
    floor_int,
    format_percent,
    largest_remainder,
)


def with_choice(
    comparison: HedgeComparison, min_saving: Value, *, counts_income: bool
) -> HedgeComparison:
    """Return the comparison with its choice: the short, if it is cheaper by more than `min_saving`.
    Unless `counts_income`, funding that the short would receive does not count, because a mark
    pushed above its index for a moment must not open a hedge (T12).
    """
    if not comparison.hedged_value:
        return comparison
    counted_comparison = comparison
    if not counts_income:
        counted_comparison = replace(
            comparison, hedge_funding=max(Fraction(0), comparison.hedge_funding)
        )
    return replace(
        comparison, is_hedged=counted_comparison.hedge_cost + min_saving < comparison.sale_cost
    )


def short_costs(
    market: PerpMarket,
    short_value: Value,
    horizon_s: int,
    margin_per_notional: Fraction,
    capital_cost_bps: int,
) -> tuple[Value, Value, Value, Value]:
    """Return the costs of a short of this value: fees of opening and closing, expected funding,
    required margin, and its cost of capital over the horizon.
    """
    required_margin = short_value * margin_per_notional
    return (
        2 * short_value * market.fee_ppm / margin.PPM,
        expected_funding(market, -short_value, horizon_s),
        required_margin,
        required_margin * capital_cost_bps / BPS * horizon_s / YEAR_S,
    )


def margin_share(market: PerpMarket, policy: FuturesPolicy) -> Fraction:
    """Return the margin per notional that a short requires: the larger of the initial margin and
    the inverse of `max_leverage`.
    """
    initial_share = Fraction(
        max((tier.initial_ppm for tier in market.tiers), default=0), margin.PPM
    )
    return max(initial_share, Fraction(BPS, policy.limits.max_leverage_bps))


def comparison_text(comparison: HedgeComparison, symbol: str, decimals: int) -> str:
    """Describe all costs and the choice in a sentence; values have `decimals`."""

    def money_text(value: Value) -> str:
        return cents_text(value, decimals)

    if not comparison.hedged_value:
        return f"{symbol} is sold: {comparison.reason}"
    funding = comparison.hedge_funding
    funding_text = (
        f"receives {money_text(-funding)}" if funding < 0 else f"costs {money_text(funding)}"
    )
    choice_text = "shorted" if comparison.is_hedged else "sold"
    why = f" ({comparison.reason})" if comparison.reason else ""
    return (
        f"{symbol}: {money_text(comparison.excess)} to sell, of which"
        f" {money_text(comparison.hedged_value)} may be shorted; a sale costs {money_text(comparison.sale_cost)}"
        f" (fees {money_text(comparison.sale_fees)}, impact {money_text(comparison.sale_impact)}, tax"
        f" {money_text(comparison.sale_tax)}), a short {money_text(comparison.hedge_cost)} over"
        f" {comparison.horizon_s / DAY_S:g} days (fees {money_text(comparison.hedge_fees)}, funding"
        f" {funding_text}, capital {money_text(comparison.capital_cost)} on {money_text(comparison.required_margin)} of"
        f" margin): it is {choice_text}{why}"
    )


def held_hedges(
    hedges: Sequence[Hedge], account: MarginAccount, policy: FuturesPolicy
) -> tuple[Hedge, ...]:
    """Return the open hedges that the account still holds. In a market without a target they are
    together at most the short position; a liquidation or manual trade has closed the rest.
    """
    target_markets = {
        target.market for target in policy.targets if target.weight_bps and policy.leverage_bps
    }
    account_markets = {market.market for market in account.markets}
    open_hedges: list[Hedge] = []
    for hedge in hedges:
        if hedge.market not in account_markets:
            continue
        size_raw = hedge.size_raw
        if hedge.market not in target_markets:
            counted_raw = sum(
                earlier.size_raw for earlier in open_hedges if earlier.market == hedge.market
            )
            size_raw = max(size_raw, min(0, account.size_raw(hedge.market) - counted_raw))
        if size_raw:
            open_hedges.append(replace(hedge, size_raw=size_raw))
    return tuple(open_hedges)


def hedged_value(snapshot: Snapshot, portfolio: Portfolio, hedge: Hedge) -> Value:
    """Return the value of a hedge at the index, in numeraire base units."""
    account = margin_account(snapshot)
    if account is None:
        return Fraction(0)
    return (
        -hedge.size_raw
        * account.market(hedge.market).index
        / quote_per_numeraire(snapshot, portfolio)
    )


def apply_hedges(step: StepInput) -> StepInput:
    """Return the step with its open hedges in the futures policy, and with spot targets
    adjusted for them.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if account is None or policy is None or not futures_state(step).hedges:
        return step
    return with_hedges(step, held_hedges(futures_state(step).hedges, account, policy))


def with_hedges(step: StepInput, hedges: tuple[Hedge, ...]) -> StepInput:
    """Return the step with these hedges: the hedged value is added to its asset's target, and the
    other targets shrink in proportion. Hedged values above the other targets are cut to them in
    proportion. The collateral's weight still includes the margin.

    The targets are unchanged while a price or a balance is missing, since no rebalance happens
    then, and if every asset with a target is hedged. An asset in quarantine keeps its target of
    zero, and a hedge of an asset that is not in the portfolio changes none.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if account is None or policy is None or not hedges:
        return step
    step = with_policy(step, replace(policy, hedges=hedges))
    prices = reference_prices(step).price_by_token
    read_tokens = {holding.token for holding in step.snapshot.holdings}
    if any(
        asset.token.address not in prices.keys() & read_tokens for asset in step.portfolio.assets
    ):
        return step
    total_value = investable_total(drifts := compute_drifts(step, prices))
    if total_value <= 0:
        return step
    bps_before_hedges_by_token = dict(step.config(FuturesConfig).targets_before_hedges_bps) or {
        asset_drift.token: asset_drift.target_bps for asset_drift in drifts
    }
    max_bps_by_token = {
        drift.token: BPS if drift.max_bps is None else drift.max_bps for drift in drifts
    }
    added_bps_by_token = dict[str, int]()
    notes = []
    quarantined_tokens = {quarantined.token for quarantined in step.targets.quarantined_tokens}
    for hedge in hedges:
        if hedge.token not in bps_before_hedges_by_token or hedge.token in quarantined_tokens:
            continue
        hedge_value = hedged_value(step.snapshot, step.portfolio, hedge)
        added_bps_by_token[hedge.token] = max(
            0,
            min(
                floor_int(hedge_value / total_value * BPS),
                max_bps_by_token[hedge.token] - bps_before_hedges_by_token[hedge.token],
            ),
        )
        label = step.portfolio.token(hedge.token).label
        notes.append(
            f"{format_percent(hedge_value / total_value)} of the portfolio in {label} is hedged"
        )
    other_targets_bps = sum(
        bps for token, bps in bps_before_hedges_by_token.items() if token not in added_bps_by_token
    )
    if not added_bps_by_token or not other_targets_bps:
        return step
    all_added_bps = sum(added_bps_by_token.values())
    counted_bps = min(all_added_bps, other_targets_bps)
    adjusted_targets_bps = [
        bps + Fraction(added_bps_by_token[token] * counted_bps, all_added_bps or 1)
        if token in added_bps_by_token
        else Fraction(bps * (other_targets_bps - counted_bps), other_targets_bps)
        for token, bps in bps_before_hedges_by_token.items()
    ]
    target_bps_by_token = dict(
        zip(bps_before_hedges_by_token, largest_remainder(adjusted_targets_bps), strict=True)
    )
    changed_step = with_targets(step, target_bps_by_token, "; ".join(notes))
    config = replace(
        changed_step.config(FuturesConfig),
        targets_before_hedges_bps=tuple(bps_before_hedges_by_token.items()),
    )
    return changed_step.with_config(config)
