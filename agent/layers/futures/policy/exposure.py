"""Spot and futures combined: the margin account as a holding, the spot portfolio's value in the
quote, the exposure to each asset's price, and the expected funding of positions over a horizon.
Expected funding assumes that the newest rate stays constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.layers.futures.state import futures_policy, margin_account, unknown_books_reason
from agent.margin import account as margin
from agent.model import (
    MARGIN_PLACE,
    AssetDrift,
    FuturesPolicy,
    FuturesReading,
    MarginAccount,
    MarginBaseline,
    MarketGrowthInputs,
    PerpMarket,
    Portfolio,
    Snapshot,
    StepInput,
)
from agent.units import BPS, DAY_S, Price, Value


def expected_funding(market: PerpMarket, notional: Fraction, horizon_s: int) -> Fraction:
    """Return the funding that a signed notional pays over the horizon (negative: receives)."""
    return notional * market.funding_daily * horizon_s / DAY_S


def expected_funding_of_all(account: MarginAccount, horizon_s: int) -> Fraction:
    """Return the funding that all positions pay over the horizon, in quote base units (negative:
    receive).
    """
    return sum(
        (
            expected_funding(
                account.market(position.market),
                Fraction(margin.value_at_mark_raw(account, position)),
                horizon_s,
            )
            for position in account.positions
        ),
        Fraction(0),
    )


def funding_cost_share(market: PerpMarket, notional: Fraction, horizon_s: int) -> Fraction:
    """Return the funding that a signed notional pays over the horizon, as a share of it; zero if it
    receives funding.
    """
    if not notional:
        return Fraction(0)
    return max(Fraction(0), expected_funding(market, notional, horizon_s) / abs(notional))


def margin_holdings(step: StepInput) -> dict[str, int]:
    """Return the margin account's value in base units of its collateral, by token. It counts in the
    total, but no swap can spend it. Empty without futures, while the
    account is unknown, and if the collateral is not an asset or is quarantined, because its wallet
    balance is not counted then either. Empty for a delegate's wallet: the account is part of its
    owner's portfolio.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if account is None or policy is None or is_delegate_wallet(step.snapshot, policy):
        return {}
    asset_tokens = {asset.token.address for asset in step.portfolio.assets}
    if policy.collateral not in asset_tokens - {
        quarantined.token for quarantined in step.targets.quarantined_tokens
    }:
        return {}
    return {policy.collateral: margin.value_in_collateral_raw(account)}


def margin_holdings_in_weights(step: StepInput) -> dict[str, int]:
    """Return the margin holdings that count in the spot weights: none unless
    futures.margin_in_weights is set.
    """
    policy = futures_policy(step)
    return margin_holdings(step) if policy is not None and policy.margin_in_weights else {}


def margin_holdings_outside_weights(step: StepInput) -> dict[str, int]:
    """Return the margin holdings that count in the total alone."""
    return {} if margin_holdings_in_weights(step) else margin_holdings(step)


def margin_value(step: StepInput, prices: Mapping[str, Price]) -> Value:
    """Return the margin account's value in numeraire base units; zero without a price."""
    return sum(
        (
            margin_raw * prices.get(token, Fraction(0))
            for token, margin_raw in margin_holdings(step).items()
        ),
        Fraction(0),
    )


def is_delegate_wallet(snapshot: Snapshot, policy: FuturesPolicy | None) -> bool:
    """True if the wallet is a delegate, which trades for another account and can neither deposit
    nor withdraw margin.
    """
    return policy is not None and policy.trader not in ("", snapshot.owner)


def margin_fault(snapshot: Snapshot, policy: FuturesPolicy | None) -> str:
    """Return why the value of the portfolio's margin account is unknown, or its split into deposits
    and profit; empty if it is known, without futures, and for a delegate, whose portfolio has no
    margin account.
    """
    if policy is None or is_delegate_wallet(snapshot, policy):
        return ""
    return account_fault(snapshot, policy) or unknown_books_reason(snapshot)


def unknown_margin_reason(step: StepInput) -> str:
    """Return a sentence that says why the margin account, or its split, is unknown; empty if
    `margin_fault` is empty.
    """
    fault = margin_fault(step.snapshot, futures_policy(step))
    return f"the margin account is unknown: {fault}" if fault else ""


def account_fault(snapshot: Snapshot, policy: FuturesPolicy | None) -> str:
    """Return why the margin account is unknown; empty if it is known, or without futures."""
    if policy is None or margin_account(snapshot) is not None:
        return ""
    return snapshot.layer(FuturesReading).unknown_reason or "the margin account was not read"


def margin_baseline(step: StepInput) -> MarginBaseline | None:
    """Return the margin account's amounts at this block, which the NAV record keeps to measure the
    account's later result; None if the account is not counted.
    """
    account = margin_account(step.snapshot)
    if account is None or not margin_holdings(step) or unknown_books_reason(step.snapshot):
        return None
    open_profit_raw = margin.unrealised_profit_raw(account) - margin.funding_pending_raw(account)
    return MarginBaseline(account.collateral_raw, account.realised_raw, open_profit_raw)


def margin_result(step: StepInput, prices: Mapping[str, Price]) -> Value:
    """Return the margin account's result since the NAV record, in numeraire base units; zero if the
    record or the step has no baseline.
    """
    nav_record = step.history.orders.nav_per_share
    baseline = margin_baseline(step)
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if (
        nav_record is None
        or nav_record.margin is None
        or baseline is None
        or account is None
        or policy is None
    ):
        return Fraction(0)
    collateral_price = prices.get(policy.collateral, Fraction(0))
    return baseline.result_raw(nav_record.margin) * collateral_price / account.collateral_unit_raw


def uncertain_spot_reason(step: StepInput) -> str:
    """Return why `spot_portfolio_value` is not the spot value of the margin account's owner: assets
    of unknown value count as zero (quarantined or excluded), or the wallet is a delegate, and the
    owner's portfolio is not read. Empty otherwise.
    """
    if step.exclusions.exits_only_reason:
        return step.exclusions.exits_only_reason
    if (policy := futures_policy(step)) is not None and is_delegate_wallet(step.snapshot, policy):
        return f"the portfolio of {policy.trader} is not read"
    empty_tokens = {holding.token for holding in step.snapshot.holdings if not holding.raw}
    quarantined_tokens = [
        quarantined.token
        for quarantined in step.targets.quarantined_tokens
        if quarantined.token not in empty_tokens
    ]
    labels_text = ", ".join(step.portfolio.token(token).label for token in quarantined_tokens)
    return f"{labels_text} is in quarantine" if quarantined_tokens else ""


def spot_portfolio_value(drifts: Sequence[AssetDrift]) -> Value:
    """Return the value of the spot portfolio: that of the drifts without the margin account."""
    return sum(
        (drift.value - drift.raw_at(MARGIN_PLACE) * drift.price for drift in drifts), Fraction(0)
    )


@dataclass(frozen=True, slots=True)
class PriceExposure:
    """Exposure to one price, in numeraire base units: `spot` held, `futures` negative for a short.
    `token` is empty for a market without a spot asset; `symbol` is then the market's.
    """

    token: str
    symbol: str
    spot: Value
    futures: Value

    @property
    def net(self) -> Value:
        """Spot and futures together."""
        return self.spot + self.futures


def quote_per_numeraire(snapshot: Snapshot, portfolio: Portfolio) -> Fraction:
    """Return quote base units per numeraire base unit by decimals only: the numeraire is the
    collateral (`require_valid_futures`), one coin of which venues count as one quote coin.
    `quote_rate` uses the reference price.
    """
    account = margin_account(snapshot)
    quote_decimals = 18 if account is None else account.quote.decimals
    return Fraction(10**quote_decimals, 10**portfolio.numeraire.decimals)


def quote_rate(
    account: MarginAccount, policy: FuturesPolicy, drifts: Sequence[AssetDrift]
) -> Fraction | None:
    """Return quote base units per numeraire base unit, by the collateral's reference price; None
    without one.
    """
    collateral_price = next(
        (drift.price for drift in drifts if drift.token == policy.collateral), None
    )
    return Fraction(account.collateral_unit_raw) / collateral_price if collateral_price else None


def spot_value_raw(
    account: MarginAccount, policy: FuturesPolicy, drifts: Sequence[AssetDrift]
) -> Fraction | None:
    """Return the spot portfolio's value in quote base units; None if the collateral has no
    price.
    """
    numeraire_in_quote = quote_rate(account, policy, drifts)
    return None if numeraire_in_quote is None else numeraire_in_quote * spot_portfolio_value(drifts)


def exposures(
    account: MarginAccount, policy: FuturesPolicy, drifts: Sequence[AssetDrift]
) -> tuple[PriceExposure, ...]:
    """Return the exposure to each asset, then to each held market without an asset; empty if the
    collateral has no price. The margin account's value is part of the collateral's exposure.
    """
    numeraire_in_quote = quote_rate(account, policy, drifts)
    if numeraire_in_quote is None:
        return ()
    margin_by_token = (
        {}
        if policy.margin_in_weights
        else {policy.collateral: margin.value_in_collateral_raw(account)}
    )
    futures_value_by_token: dict[str, Value] = {}
    unpaired_exposures = []
    asset_tokens = {drift.token for drift in drifts}
    for position in account.positions:
        market = account.market(position.market)
        position_value = margin.value_at_mark_raw(account, position) / numeraire_in_quote
        if market.asset in asset_tokens:
            futures_value_by_token[market.asset] = (
                futures_value_by_token.get(market.asset, Fraction(0)) + position_value
            )
        else:
            unpaired_exposures.append(PriceExposure("", market.symbol, Fraction(0), position_value))
    spot_exposures = [
        PriceExposure(
            drift.token,
            "",
            drift.value + margin_by_token.get(drift.token, 0) * drift.price,
            futures_value_by_token.get(drift.token, Fraction(0)),
        )
        for drift in drifts
    ]
    return (*spot_exposures, *unpaired_exposures)


def market_terms(step: StepInput, spot_value: Value) -> MarketGrowthInputs | None:
    """Return prices and funding of the markets, and the margin account's part of the capital, given
    the value of the spot portfolio; None without a known account.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if account is None or policy is None:
        return None
    account_value_raw = Fraction(max(0, margin.account_value_raw(account)))
    capital_raw = account_value_raw + max(
        Fraction(0), spot_value * quote_per_numeraire(step.snapshot, step.portfolio)
    )
    return MarketGrowthInputs(
        {market.market: market.index for market in account.markets},
        {market.market: market.funding_daily for market in account.markets},
        Fraction(policy.configured_leverage_bps or policy.leverage_bps, BPS),
        account_value_raw / capital_raw if capital_raw else Fraction(0),
    )
