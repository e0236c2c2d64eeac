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

from agent.layers.futures.policy.exposure import DAY_S, expected_funding, quote_per_numeraire
from agent.layers.futures.policy.needs import stale_markets
from agent.layers.futures.state import (
    FuturesConfig,
    FuturesState,
    futures_policy,
    futures_progress,
    futures_state,
    margin_account,
    with_policy,
)
from agent.margin import account as margin
from agent.model import (
    AdjustFutures,
    AssetDrift,
    FuturesGrant,
    FuturesPolicy,
    Hedge,
    HedgeComparison,
    MarginAccount,
    PerpMarket,
    PerpOrder,
    Portfolio,
    Snapshot,
    StepInput,
)
from agent.policy import quarantine
from agent.policy.drift import band, compute_drifts, investable_total
from agent.policy.targets import with_targets
from agent.reference import reference_prices
from agent.units import BPS, Value, floor_int, format_percent, largest_remainder, value_text

YEAR_S = 365 * DAY_S


def choose(
    comparison: HedgeComparison, min_saving: Value, *, counts_income: bool
) -> HedgeComparison:
    """Return the comparison with its choice: the short, if it is cheaper by more than `min_saving`.
    Unless `counts_income`, funding that the short would receive does not count, because a mark
    pushed above its index for a moment must not open a hedge (T12).
    """
    if not comparison.hedged:
        return comparison
    counted = comparison
    if not counts_income:
        counted = replace(comparison, hedge_funding=max(Fraction(0), comparison.hedge_funding))
    return replace(comparison, is_hedged=counted.hedge_cost + min_saving < comparison.sale_cost)


def short_costs(
    market: PerpMarket, hedged: Value, horizon_s: int, initial_share: Fraction, yearly_bps: int
) -> tuple[Value, Value, Value, Value]:
    """Return the costs of a short of this value: fees of opening and closing, expected funding,
    required margin, and its cost of capital over the horizon.
    """
    tied = hedged * initial_share
    return (
        2 * hedged * market.fee_ppm / margin.PPM,
        expected_funding(market, -hedged, horizon_s),
        tied,
        tied * yearly_bps / BPS * horizon_s / YEAR_S,
    )


def margin_share(market: PerpMarket, policy: FuturesPolicy) -> Fraction:
    """Return the margin per notional that a short requires: the larger of the initial margin and
    the inverse of `max_leverage`.
    """
    initial = Fraction(max((tier.initial_ppm for tier in market.tiers), default=0), margin.PPM)
    return max(initial, Fraction(BPS, policy.limits.max_leverage_bps))


def compare_text(comparison: HedgeComparison, symbol: str, decimals: int) -> str:
    """Describe all costs and the choice in a sentence; values have `decimals`."""

    def amount(value: Value) -> str:
        return value_text(value, decimals, 2)

    if not comparison.hedged:
        return f"{symbol} is sold: {comparison.reason}"
    funding = comparison.hedge_funding
    paid = f"receives {amount(-funding)}" if funding < 0 else f"costs {amount(funding)}"
    chosen = "shorted" if comparison.is_hedged else "sold"
    why = f" ({comparison.reason})" if comparison.reason else ""
    return (
        f"{symbol}: {amount(comparison.excess)} above target, of which"
        f" {amount(comparison.hedged)} may be shorted; a sale costs {amount(comparison.sale_cost)}"
        f" (fees {amount(comparison.sale_fees)}, impact {amount(comparison.sale_impact)}, tax"
        f" {amount(comparison.sale_tax)}), a short {amount(comparison.hedge_cost)} over"
        f" {comparison.horizon_s / DAY_S:g} days (fees {amount(comparison.hedge_fees)}, funding"
        f" {paid}, capital {amount(comparison.hedge_capital)} on {amount(comparison.margin)} of"
        f" margin): it is {chosen}{why}"
    )


def held_hedges(
    hedges: Sequence[Hedge], account: MarginAccount, policy: FuturesPolicy
) -> tuple[Hedge, ...]:
    """Return the open hedges that the account still holds. In a market without a target a hedge is
    at most the short position; a liquidation or manual trade has closed the rest.
    """
    targeted = {
        target.market for target in policy.targets if target.weight_bps and policy.leverage_bps
    }
    known = {market.market for market in account.markets}
    bounded = []
    for hedge in hedges:
        if hedge.market not in known:
            continue
        size = hedge.size_raw
        if hedge.market not in targeted:
            size = max(size, min(0, account.size_raw(hedge.market)))
        if size:
            bounded.append(replace(hedge, size_raw=size))
    return tuple(bounded)


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
    account, policy = margin_account(step.snapshot), futures_policy(step)
    if account is None or policy is None or not futures_state(step).hedges:
        return step
    return with_hedges(step, held_hedges(futures_state(step).hedges, account, policy))


def with_hedges(step: StepInput, hedges: tuple[Hedge, ...]) -> StepInput:
    """Return the step with these hedges: the hedged value is added to its asset's target, and the
    other targets shrink in proportion. The collateral's weight still includes the margin.

    The targets are unchanged while a price or a balance is missing, since no rebalance happens
    then. An asset in quarantine keeps its target of zero.
    """
    account, policy = margin_account(step.snapshot), futures_policy(step)
    if account is None or policy is None or not hedges:
        return step
    step = with_policy(step, replace(policy, hedges=hedges))
    prices = reference_prices(step).by_token
    read = {holding.token for holding in step.snapshot.holdings}
    if any(asset.token.address not in prices.keys() & read for asset in step.portfolio.assets):
        return step
    total = investable_total(drifts := compute_drifts(step, prices))
    if total <= 0:
        return step
    own = dict(step.config(FuturesConfig).unhedged_bps) or {
        asset_drift.token: asset_drift.target_bps for asset_drift in drifts
    }
    limits = {drift.token: BPS if drift.max_bps is None else drift.max_bps for drift in drifts}
    raised, notes = dict[str, int](), []
    untradable = {screened.token for screened in step.targets.quarantine}
    for hedge in hedges:
        if hedge.token not in own or hedge.token in untradable:
            continue
        value = hedged_value(step.snapshot, step.portfolio, hedge)
        hedged_bps = own[hedge.token] + floor_int(value / total * BPS)
        raised[hedge.token] = max(own[hedge.token], min(hedged_bps, limits[hedge.token]))
        label = step.portfolio.token(hedge.token).label
        notes.append(f"{format_percent(value / total)} of the portfolio in {label} is hedged")
    room = max(0, BPS - sum(raised.values()))
    rest = sum(bps for token, bps in own.items() if token not in raised)
    if sum(raised.values()) > BPS or not rest:
        return step
    parts = [
        Fraction(raised[token]) if token in raised else Fraction(own[token] * room, rest)
        for token in own
    ]
    targets = dict(zip(own, largest_remainder(parts), strict=True))
    changed = with_targets(step, targets, "; ".join(notes))
    config = replace(changed.config(FuturesConfig), unhedged_bps=tuple(own.items()))
    return changed.with_config(config)


# --- Closing of hedges.


def unwind_reason(step: StepInput, drifts: Sequence[AssetDrift], hedge: Hedge) -> str:
    """Return why to close an open hedge; empty if it stays open. A hedge is closed if its asset is
    in quarantine, has no target or is not in the portfolio; if the asset is back in its band and
    its excess over target is at most half the hedged value; if pending and expected funding until
    the horizon exceeds the cost of the sale; or if its horizon has passed.
    """
    account, policy = margin_account(step.snapshot), futures_policy(step)
    if account is None or policy is None:
        return ""
    if policy.hedge is None:
        return "hedges are no longer configured"
    now_s = step.snapshot.head.timestamp_s
    if now_s - hedge.at_s >= policy.hedge.horizon_s:
        return f"its horizon of {policy.hedge.horizon_s / DAY_S:g} days has passed"
    if why := quarantine.format_quarantine(step.portfolio, step.targets.quarantine, (hedge.token,)):
        return why
    drift = next((asset_drift for asset_drift in drifts if asset_drift.token == hedge.token), None)
    if drift is None:
        return "its asset is not in the portfolio"
    own_bps = dict(step.config(FuturesConfig).unhedged_bps).get(hedge.token, drift.target_bps)
    if not own_bps:
        return f"{drift.symbol} has no target"
    value = hedged_value(step.snapshot, step.portfolio, hedge)
    _, high_bps = band(step.policy.trigger, own_bps, drift.own_band, drift.max_bps)
    excess = drift.value - investable_total(drifts) * own_bps / BPS
    if drift.share * BPS <= high_bps and 2 * excess <= value:
        return f"{drift.symbol} is back in its band"
    market = account.market(hedge.market)
    left_s = hedge.at_s + policy.hedge.horizon_s - now_s
    funding = max(Fraction(0), expected_funding(market, -value, left_s))
    funding += _pending(account, hedge) / quote_per_numeraire(step.snapshot, step.portfolio)
    if funding > hedge.sale_cost:
        return "its funding exceeds the cost of the sale"
    return ""


def _pending(account: MarginAccount, hedge: Hedge) -> Fraction:
    """Return the hedge's part of the funding that its position owes; zero if the position is
    long or receives funding.
    """
    for position in account.positions:
        if position.market == hedge.market and position.size_raw < 0:
            part = min(Fraction(1), Fraction(hedge.size_raw, position.size_raw))
            return max(0, position.funding_pending_raw) * part
    return Fraction(0)


def hedge_need(step: StepInput, drifts: Sequence[AssetDrift]) -> AdjustFutures | None:
    """Return the first hedge to close at this block; None if all stay open, or while the account or
    the index of its market is unknown.
    """
    account, policy = margin_account(step.snapshot), futures_policy(step)
    if account is None or policy is None or futures_progress(step).held:
        return None
    stale = stale_markets(step.snapshot, policy)
    for hedge in policy.hedges:
        if hedge.market not in stale and (why := unwind_reason(step, drifts, hedge)):
            label = _label(step.snapshot, step.portfolio, hedge)
            reason = f"futures: the hedge of {label} is closed: {why}"
            return AdjustFutures(reason, is_reducing=True, closes=hedge.market)
    return None


def _label(snapshot: Snapshot, portfolio: Portfolio, hedge: Hedge) -> str:
    """Return the name of a hedge's asset, or of its market if the asset is no longer known."""
    known = [asset.token for asset in portfolio.assets] + [*portfolio.hubs]
    labels = [token.label for token in known if token.address == hedge.token]
    if not labels and (account := margin_account(snapshot)) is not None:
        labels = [account.market(hedge.market).symbol]
    return labels[0] if labels else hedge.token


def hedges_after(
    snapshot: Snapshot,
    policy: FuturesPolicy | None,
    state: FuturesState,
    market: str,
    size_raw: int,
    opened: Hedge | None = None,
    *,
    closes: bool = False,
) -> tuple[Hedge, ...]:
    """Return the hedges after an order of `size_raw` in a market is filled.

    `opened` is the hedge that the order opens. An order that `closes` reduces the hedge of its
    market by its size; any other order changes only the targeted position.
    """
    now_s = snapshot.head.timestamp_s
    if policy is None:
        return state.hedges
    closed = [hedge for hedge in state.hedges if not hedge.size_raw]
    hedges = [*policy.hedges] if opened is None else [*policy.hedges, opened]
    after = [
        _reduced(hedge, size_raw, now_s) if closes and hedge.market == market else hedge
        for hedge in hedges
    ]
    named = {hedge.token for hedge in after}
    return (*(hedge for hedge in closed if hedge.token not in named), *after)


def filled_hedges(granted: FuturesGrant, filled_raw: int) -> tuple[Hedge, ...]:
    """Return the hedges after an order filled by `filled_raw`, which may be less than ordered at a
    venue that cancels the rest. The filled size first opens or closes the hedge of its market.
    """
    order = granted.action
    if not isinstance(order, PerpOrder) or filled_raw == order.size_raw:
        return granted.hedges
    before = {hedge.token: hedge for hedge in granted.hedges_before if hedge.market == order.market}
    hedges = []
    for after in granted.hedges:
        was = before.get(after.token)
        was_raw = 0 if was is None else was.size_raw
        change_raw = after.size_raw - was_raw
        if after.market != order.market or abs(change_raw) <= abs(filled_raw):
            hedges.append(after)
        elif left_raw := was_raw + (filled_raw if change_raw * filled_raw > 0 else 0):
            hedges.append(replace(was or after, size_raw=left_raw))
    return tuple(hedges)


def _reduced(hedge: Hedge, bought_raw: int, now_s: int) -> Hedge:
    left = min(0, hedge.size_raw + bought_raw)
    return replace(hedge, size_raw=left, at_s=hedge.at_s if left else now_s)


def closed_lately(
    snapshot: Snapshot, policy: FuturesPolicy | None, state: FuturesState, token: str
) -> bool:
    """True if a hedge of the token was closed within one horizon; after a hedge expires, the excess
    is sold, not hedged again.
    """
    now_s = snapshot.head.timestamp_s
    horizon_s = 0 if policy is None or policy.hedge is None else policy.hedge.horizon_s
    return any(
        hedge.token == token and not hedge.size_raw and now_s < hedge.at_s + horizon_s
        for hedge in state.hedges
    )
