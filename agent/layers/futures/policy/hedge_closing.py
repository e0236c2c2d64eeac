"""Closing of hedges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from agent.layers.futures.policy.exposure import expected_funding, quote_per_numeraire
from agent.layers.futures.policy.hedges import hedged_value
from agent.layers.futures.policy.needs import back_off_reason, stale_market_reasons
from agent.layers.futures.state import (
    FuturesConfig,
    FuturesState,
    futures_policy,
    futures_progress,
    margin_account,
)
from agent.margin.contract_sizes import untradable_reason
from agent.model import (
    AdjustFutures,
    AssetDrift,
    FuturesGrant,
    FuturesPolicy,
    Hedge,
    MarginAccount,
    PerpOrder,
    Portfolio,
    Snapshot,
    StepInput,
)
from agent.policy import quarantine
from agent.policy.drift import band, investable_total
from agent.units import BPS, DAY_S


def unwind_reason(step: StepInput, drifts: Sequence[AssetDrift], hedge: Hedge) -> str:
    """Return why to close an open hedge; empty if it stays open. A hedge is closed if its asset is
    in quarantine, has no target or is not in the portfolio; if the asset is back in its band and
    its excess over target is at most half the hedged value; if pending and expected funding until
    the horizon exceeds the cost of the sale; or if its horizon has passed.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if account is None or policy is None:
        return ""
    if policy.hedge_policy is None:
        return "hedges are no longer configured"
    now_s = step.snapshot.head.timestamp_s
    if now_s - hedge.at_s >= policy.hedge_policy.horizon_s:
        return f"its horizon of {policy.hedge_policy.horizon_s / DAY_S:g} days has passed"
    if why := quarantine.format_quarantine(
        step.portfolio, step.targets.quarantined_tokens, (hedge.token,)
    ):
        return why
    drift = next((asset_drift for asset_drift in drifts if asset_drift.token == hedge.token), None)
    if drift is None:
        return "its asset is not in the portfolio"
    target_before_hedges_bps = step.config(FuturesConfig).target_before_hedges_bps(drift)
    if not target_before_hedges_bps:
        return f"{drift.symbol} has no target"
    hedge_value = hedged_value(step.snapshot, step.portfolio, hedge)
    _, band_top_bps = band(
        step.policy.trigger, target_before_hedges_bps, drift.own_band, drift.max_bps
    )
    excess = drift.value - investable_total(drifts) * target_before_hedges_bps / BPS
    if drift.share * BPS <= band_top_bps and 2 * excess <= hedge_value:
        return f"{drift.symbol} is back in its band"
    market = account.market(hedge.market)
    remaining_s = hedge.at_s + policy.hedge_policy.horizon_s - now_s
    owed_funding = max(Fraction(0), expected_funding(market, -hedge_value, remaining_s))
    owed_funding += _pending_funding(account, hedge) / quote_per_numeraire(
        step.snapshot, step.portfolio
    )
    if owed_funding > hedge.sale_cost:
        return "its funding exceeds the cost of the sale"
    return ""


def _pending_funding(account: MarginAccount, hedge: Hedge) -> Fraction:
    """Return the hedge's part of the funding that its position owes; zero if the position is
    long or receives funding.
    """
    for position in account.positions:
        if position.market == hedge.market and position.size_raw < 0:
            hedge_share = min(Fraction(1), Fraction(hedge.size_raw, position.size_raw))
            return max(0, position.funding_pending_raw) * hedge_share
    return Fraction(0)


def hedge_closing_decision(step: StepInput, drifts: Sequence[AssetDrift]) -> AdjustFutures | None:
    """Return the decision to close the first hedge that is due and whose market has a current
    index. One whose order is possible comes before those that are blocked. None without one, if the
    account is unknown, or while the layer sends nothing.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if account is None or policy is None or futures_progress(step).hold_reason:
        return None
    reason_by_stale_market = stale_market_reasons(step.snapshot, policy)
    due_hedges = [
        (hedge, why)
        for hedge in policy.hedges
        if hedge.market not in reason_by_stale_market
        and (why := unwind_reason(step, drifts, hedge))
    ]
    if not due_hedges:
        return None
    possible_hedges = [
        (hedge, why)
        for hedge, why in due_hedges
        if not back_off_reason(step.snapshot, step.history, hedge.market)
        and not untradable_reason(
            account,
            account.market(hedge.market),
            -policy.hedge_size_raw(hedge.market),
            policy.limits.slippage_bps,
        )
    ]
    hedge, why = (possible_hedges or due_hedges)[0]
    label = _label(step.snapshot, step.portfolio, hedge)
    reason = f"futures: the hedge of {label} is closed: {why}"
    return AdjustFutures(reason, is_reducing=True, closed_hedge_market=hedge.market)


def _label(snapshot: Snapshot, portfolio: Portfolio, hedge: Hedge) -> str:
    """Return the name of a hedge's asset, or of its market if the asset is no longer known."""
    tokens = [asset.token for asset in portfolio.assets] + [*portfolio.hubs]
    possible_labels = [token.label for token in tokens if token.address == hedge.token]
    if not possible_labels and (account := margin_account(snapshot)) is not None:
        possible_labels = [account.market(hedge.market).symbol]
    return possible_labels[0] if possible_labels else hedge.token


def hedges_after_order(
    snapshot: Snapshot,
    policy: FuturesPolicy | None,
    state: FuturesState,
    market: str,
    size_raw: int,
    opened_hedge: Hedge | None = None,
    *,
    closes: bool = False,
) -> tuple[Hedge, ...]:
    """Return the hedges after an order of `size_raw` in a market is filled.

    `opened_hedge` is the hedge that the order opens. An order that `closes` reduces the hedge of
    its market by its size; any other order changes only the targeted position.
    """
    now_s = snapshot.head.timestamp_s
    if policy is None:
        return state.hedges
    closed_hedges = [hedge for hedge in state.hedges if not hedge.size_raw]
    hedges = [*policy.hedges] if opened_hedge is None else [*policy.hedges, opened_hedge]
    updated_hedges = [
        _after_buyback(hedge, size_raw, now_s) if closes and hedge.market == market else hedge
        for hedge in hedges
    ]
    open_tokens = {hedge.token for hedge in updated_hedges}
    return (*(hedge for hedge in closed_hedges if hedge.token not in open_tokens), *updated_hedges)


def hedges_after_fill(grant: FuturesGrant, filled_raw: int) -> tuple[Hedge, ...]:
    """Return the hedges after an order filled by `filled_raw`, which may be less than ordered at a
    venue that cancels the rest. The filled size counts
    towards the market's hedges first, one after another; only what is left changes the targeted
    position.
    """
    order = grant.action
    if not isinstance(order, PerpOrder) or filled_raw == order.size_raw:
        return grant.hedges
    hedge_before_by_token = {
        hedge.token: hedge for hedge in grant.hedges_before if hedge.market == order.market
    }
    updated_hedges = []
    unused_raw = filled_raw
    for hedge_after in grant.hedges:
        hedge_before = hedge_before_by_token.get(hedge_after.token)
        size_before_raw = 0 if hedge_before is None else hedge_before.size_raw
        change_raw = hedge_after.size_raw - size_before_raw
        if hedge_after.market != order.market:
            updated_hedges.append(hedge_after)
        elif abs(change_raw) <= abs(unused_raw):
            updated_hedges.append(hedge_after)
            unused_raw -= change_raw
        else:
            used_raw = unused_raw if change_raw * unused_raw > 0 else 0
            unused_raw -= used_raw
            if size_raw := size_before_raw + used_raw:
                updated_hedges.append(replace(hedge_before or hedge_after, size_raw=size_raw))
    return tuple(updated_hedges)


def _after_buyback(hedge: Hedge, bought_raw: int, now_s: int) -> Hedge:
    remaining_raw = min(0, hedge.size_raw + bought_raw)
    return replace(hedge, size_raw=remaining_raw, at_s=hedge.at_s if remaining_raw else now_s)


def is_hedge_closed_lately(
    snapshot: Snapshot, policy: FuturesPolicy | None, state: FuturesState, token: str
) -> bool:
    """True if a hedge of the token was closed within one horizon; after a hedge expires, the excess
    is sold, not hedged again.
    """
    now_s = snapshot.head.timestamp_s
    horizon_s = (
        0 if policy is None or policy.hedge_policy is None else policy.hedge_policy.horizon_s
    )
    return any(
        hedge.token == token and not hedge.size_raw and now_s < hedge.at_s + horizon_s
        for hedge in state.hedges
    )
