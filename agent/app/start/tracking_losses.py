"""About what a policy loses a year against a portfolio that is always on target at no cost, beside
other triggers: with usual figures of the network before there is a chain, else with the pools found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, NamedTuple

from agent.amm.venue_kinds import VenueKind
from agent.app.documents.status import ORDINARY_DAY_INDEX, coins_text
from agent.backtest.loss.estimates import policy_losses, portfolio_tax, untaxed_reason
from agent.backtest.loss.policies import (
    CHOICES,
    COMPARED_CHOICE,
    COMPARED_CHOICES,
    RULE,
    RULE_AFTER_TAX,
    ComparedPolicy,
    LossAsset,
    LossPair,
    LossPortfolio,
    loss_market,
    loss_policy,
)
from agent.backtest.loss.simulation import (
    MAX_YEARS,
    LossMarket,
    LossPolicy,
    SimulatedLoss,
)
from agent.backtest.loss.taxes import TAXED_GROWTH, LossTax
from agent.backtest.settings import TaxRule
from agent.config.build import build_policy
from agent.config.networks import NETWORKS, typical_fees
from agent.config.schema import Config
from agent.layers.tax.state import TaxState
from agent.model import Policy, StepInput
from agent.policy.drift import compute_drifts, investable_total
from agent.policy.minimum import APPROVAL_GAS, LEG_GAS, leg_gas_value
from agent.policy.risk_estimates import complete_risk
from agent.policy.triggers.exchange_costs import ExchangeCosts, PricedMarket, exchange_costs
from agent.reference import reference_prices
from agent.units import BPS, PIPS, Price, value_text
from agent.weights.asset_classes import (
    AssetClass,
    class_of,
)

if TYPE_CHECKING:
    from agent.app.documents.owner import PolicyLossDocument, TrackingLossDocument

USUAL_FEE_TIERS_PIPS = (100, 500, 3_000)
"""Fee tiers of a network without a venue here."""
USUAL_DEPTH_USD = 20_000_000
"""A swap of x costs x² over this in impact, in each pool."""
MAX_LEG_SHARE = 0.005
"""Gas of a swap, share of the portfolio, from which every trade is dear."""
MAX_LOSS_BPS = 100
"""Losses above this are those of portfolios that hardly trade; their figure says nothing."""
WILD_YEAR_FACTOR = 1.6
"""Volatilities of 2021 beside the usual ones: ether's 106 and 65 %, bitcoin's 80 and 50 %."""


ETHER_SYMBOL = "WETH"
DIRECT_POOL_TEXT = "less for a coin that a pool trades for {} itself"


class YearEstimate(NamedTuple):
    """About how many rebalances a year has, and what they cost, in coins of the numeraire."""

    rebalances: str
    costs: str


class FirstPurchase(NamedTuple):
    """About what a first purchase costs: the sum, its parts in pools and for gas, in coins of the
    numeraire, and its swaps in words; with `alarm`, why that is no estimate.
    """

    costs: str
    in_pools: str
    gas: str
    swaps: str
    alarm: str


def portfolio_of_config(
    config: Config,
    numeraire_usd: Fraction,
    value: Fraction,
    gas_price_index: int = ORDINARY_DAY_INDEX,
    depth_usd: int = USUAL_DEPTH_USD,
) -> LossPortfolio | None:
    """Return the portfolio of a config, worth `value` coins of the numeraire, each of which is worth
    `numeraire_usd` dollars, at a gas price of its network and in pools of this depth; None if
    nothing is traded.
    """
    numeraire_symbol = config.portfolio.numeraire
    assets = []
    numeraire = None
    for table in config.portfolio.assets:
        fees_pips = _route_fees_pips(config, table.symbol, table.address)
        asset = LossAsset(
            table.symbol,
            table.address,
            table.target,
            table.band,
            sum(fees_pips) / PIPS,
            depth_usd / numeraire_usd / len(fees_pips),
        )
        if table.symbol == numeraire_symbol:
            numeraire = asset
        elif 0 < table.target < BPS:
            assets.append(asset)
    if numeraire is None or not assets or value <= 0:
        return None
    fees = typical_fees(config.chain.chain_id)
    leg_wei = LEG_GAS * fees.gas_prices_wei[gas_price_index] + fees.data_fee_wei
    return LossPortfolio(
        tuple(assets),
        numeraire,
        value,
        leg_wei * fees.native_usd / numeraire_usd / 10**18,
        Fraction(config.limits.min_trade or 0),
        config.limits.plan_cost,
        _usual_pairs(config.chain.chain_id, assets, depth_usd / numeraire_usd),
    )


def _usual_pairs(
    chain_id: int, assets: Sequence[LossAsset], depth: Fraction
) -> tuple[LossPair, ...]:
    """Return the assets that are exchanged for each other through ether, or for ether, at a lower
    cost than through the numeraire; `depth` is that of a pool.
    """
    pairs = []
    for (first, asset), (second, other) in combinations(enumerate(assets), 2):
        fees_pips = [
            usual_fee_pips(chain_id, symbol, ETHER_SYMBOL)
            for symbol in (asset.symbol, other.symbol)
            if symbol != ETHER_SYMBOL
        ]
        unit_cost = sum(fees_pips) / PIPS
        if unit_cost < asset.unit_cost + other.unit_cost:
            pairs.append(LossPair(first, second, unit_cost, depth / len(fees_pips)))
    return tuple(pairs)


def portfolio_of_step(step: StepInput) -> LossPortfolio | None:
    """Return the portfolio of a step at the prices, routes, pools and gas of its snapshot; None if
    nothing is traded, a token has no route, or gas has no price.
    """
    prices = reference_prices(step).price_by_token
    drifts = compute_drifts(step, prices)
    total_value = investable_total(drifts)
    numeraire = step.portfolio.numeraire
    coin = Fraction(1, 10**numeraire.decimals)
    native_price = prices.get(step.portfolio.wrapped_native)
    if not total_value or native_price is None:
        return None
    tokens = [drift.token for drift in drifts]
    costs = exchange_costs(PricedMarket.of_step(step, prices), tokens, fees_only=True)
    numeraire_index = tokens.index(numeraire.address)
    assets = []
    for index, asset in enumerate(step.effective_assets):
        token = asset.token.address
        if index == numeraire_index or not 0 < asset.target_bps < BPS:
            continue
        unit_cost = costs.get((index, numeraire_index))
        depths_raw = [
            pool.spot_depth(token)
            for pool in step.snapshot.pools
            if token in (pool.token0, pool.token1)
        ]
        depth = max(depths_raw, default=0) * prices[token] * coin
        if unit_cost is None or not depth:
            return None
        assets.append(
            LossAsset(
                asset.token.label, token, asset.target_bps, asset.band, float(unit_cost), depth
            )
        )
    if not assets:
        return None
    own_target_bps = step.effective_assets[numeraire_index].target_bps
    own_band = step.effective_assets[numeraire_index].band
    return LossPortfolio(
        tuple(assets),
        LossAsset(numeraire.label, numeraire.address, own_target_bps, own_band, 0.0, Fraction(1)),
        total_value * coin,
        leg_gas_value(step.snapshot, native_price) * coin,
        (step.limits.min_trade or Fraction(0)) * coin,
        step.limits.plan_cost_bps,
        _pairs_of_step(step, assets, prices, costs, tokens),
    )


def _pairs_of_step(
    step: StepInput,
    assets: Sequence[LossAsset],
    prices: Mapping[str, Price],
    costs: ExchangeCosts,
    tokens: Sequence[str],
) -> tuple[LossPair, ...]:
    """Return the assets that are exchanged for each other at a lower cost than through the
    numeraire. The depth is that of their own pool; without one, of the shallower of theirs.
    """
    coin = Fraction(1, 10**step.portfolio.numeraire.decimals)
    pairs = []
    for (first, asset), (second, other) in combinations(enumerate(assets), 2):
        unit_cost = costs.get((tokens.index(asset.token), tokens.index(other.token)))
        through_numeraire = 1 - (1 - asset.unit_cost) * (1 - other.unit_cost)
        if unit_cost is None or unit_cost + 1 / PIPS >= through_numeraire:
            continue
        depths_raw = [
            pool.spot_depth(asset.token)
            for pool in step.snapshot.pools
            if {pool.token0, pool.token1} == {asset.token, other.token}
        ]
        own_depth = max(depths_raw, default=0) * prices[asset.token] * coin
        depth = own_depth or min(asset.depth, other.depth)
        pairs.append(LossPair(first, second, float(unit_cost), depth))
    return tuple(pairs)


def step_loss_document(step: StepInput, *, has_tax: bool = False) -> TrackingLossDocument | None:
    """Return about what the policy of a step loses, by its volatilities and the pools found; None as
    above. With `has_tax` the config has a rate of tax.
    """
    portfolio = portfolio_of_step(step)
    if portfolio is None:
        return None
    tax_inputs = step.layer(TaxState).inputs
    tax = None
    missing_tax_reason = "no exchange rate into tax.currency" if has_tax else ""
    if tax_inputs is not None and not tax_inputs.fault:
        rule = TaxRule(tax_inputs.method, tax_inputs.year_limit, tax_inputs.tax_rate_bps)
        tax = portfolio_tax(portfolio, rule)
        missing_tax_reason = untaxed_reason(portfolio, rule)
    policy = complete_risk(step).policy
    return loss_document(portfolio, policy, COMPARED_CHOICES, tax, missing_tax_reason)


def usual_fee_pips(chain_id: int, symbol: str, numeraire_symbol: str) -> int:
    """Return the fee of the pool that most of a pair's volume uses: the network's lowest tier for
    tokens of one kind, the second for bitcoin, ether and cash, the third for all others.
    """
    tiers = next(
        (
            venue.fee_tiers
            for network in NETWORKS
            if network.chain_id == chain_id
            for venue in network.venues
            if venue.kind is VenueKind.V3 and len(venue.fee_tiers) >= len(USUAL_FEE_TIERS_PIPS)
        ),
        USUAL_FEE_TIERS_PIPS,
    )
    classes = {class_of(symbol), class_of(numeraire_symbol)}
    if AssetClass.OTHER in classes:
        return tiers[2]
    return tiers[0] if len(classes) == 1 else tiers[1]


def config_loss_document(
    config: Config,
    numeraire_usd: Fraction,
    value: Fraction,
    choices: Sequence[ComparedPolicy] = CHOICES,
    depth_usd: int = USUAL_DEPTH_USD,
) -> TrackingLossDocument | None:
    """Return about what a new config, without tax.rate, loses with `value` coins, beside other
    triggers, in pools of this depth; None if nothing is traded.
    """
    portfolio = portfolio_of_config(config, numeraire_usd, value, depth_usd=depth_usd)
    if portfolio is None:
        return None
    return loss_document(portfolio, build_policy(config), choices)


def year_estimates(config: Config, numeraire_usd: Fraction, value: Fraction) -> list[YearEstimate]:
    """Return the estimate of a year of a config with `value` coins at each gas price of its
    network: quiet, ordinary and busy days. Empty where there is none.
    """
    policy = build_policy(config)
    own = ComparedPolicy(policy.trigger, policy.destination, policy.cooldown_s)
    estimates = []
    for gas_price_index in range(len(typical_fees(config.chain.chain_id).gas_prices_wei)):
        portfolio = portfolio_of_config(config, numeraire_usd, value, gas_price_index)
        if portfolio is None or policy.trade_side:
            return []
        market = loss_market(portfolio, policy.trigger)
        loss = policy_losses(portfolio, market, (own,), None).get(own)
        if loss is None:
            return []
        estimates.append(YearEstimate(_about(loss.trades), _money(loss.costs * float(value))))
    return estimates


def first_purchase(
    config: Config, numeraire_usd: Fraction, value: Fraction
) -> FirstPurchase | None:
    """Return about what it costs to buy the targets with `value` coins of the numeraire alone,
    where need be through ether, and to approve it, at the gas price of an ordinary day; None
    if nothing is bought.
    """
    portfolio = portfolio_of_config(config, numeraire_usd, value)
    if portfolio is None:
        return None
    fees = 0.0
    for asset in portfolio.assets:
        amount = value * asset.target_bps / BPS
        fees += float(amount) * asset.unit_cost + float(amount**2 / asset.depth)
    swap_count = len(portfolio.assets)
    gas = float(portfolio.leg_gas) * (swap_count + APPROVAL_GAS / LEG_GAS)
    swaps_text = f"{swap_count} swap{'s' * (swap_count > 1)}"
    alarm = (
        f"With {coins_text(value)} {portfolio.numeraire.symbol} the pools are too small: by estimate"
        " the first purchase, at once, would lose more than a tenth of it in them. Enter less cash."
        if fees > value / 10
        else ""
    )
    return FirstPurchase(_money(fees + gas), _money(fees), _money(gas), swaps_text, alarm)


def _route_fees_pips(config: Config, symbol: str, token: str) -> list[int]:
    """Return the usual fee of each pool between an asset and the numeraire: through ether, against
    which most coins trade, unless it is the native coin, ether, or of the numeraire's kind.
    """
    symbols = [symbol, config.portfolio.numeraire]
    classes = {class_of(name) for name in symbols}
    is_native = token == config.chain.wrapped_native
    if len(classes) > 1 and AssetClass.ETHER not in classes and not is_native:
        symbols.insert(1, ETHER_SYMBOL)
    return [usual_fee_pips(config.chain.chain_id, *pair) for pair in pairwise(symbols)]


def first_purchase_lines(config: Config, numeraire_usd: Fraction, value: Fraction) -> list[str]:
    """Return the cost of the first purchase in words; empty if nothing is bought."""
    purchase = first_purchase(config, numeraire_usd, value)
    if purchase is None:
        return []
    if purchase.alarm:
        return [purchase.alarm]
    symbol = config.portfolio.numeraire
    return [
        f"The first purchase, from {symbol} alone, costs about {purchase.costs} {symbol} once,"
        f" in {purchase.swaps} ({purchase.in_pools} in pools, {purchase.gas} gas with an approval);"
        f" {DIRECT_POOL_TEXT.format(symbol)}."
    ]


def loss_document(
    portfolio: LossPortfolio,
    policy: Policy,
    choices: Sequence[ComparedPolicy] = CHOICES,
    tax: LossTax | None = None,
    missing_tax_reason: str = "",
) -> TrackingLossDocument:
    """Return about what a policy loses, beside other triggers. With a tax it is a part of the loss,
    and the rule after tax another trigger. `missing_tax_reason` is why a tax is not simulated.
    """
    own = ComparedPolicy(policy.trigger, policy.destination, policy.cooldown_s)
    offered = choices if tax is None else (*choices, RULE_AFTER_TAX)
    own_names = {own.name}
    if tax is None and own.name == RULE_AFTER_TAX.name:
        own_names.add(RULE.name)  # without tax they are one
    others = [choice for choice in offered if choice.name not in own_names]
    estimated = others if policy.trade_side else [own, *others]
    market = loss_market(portfolio, policy.trigger)
    losses = policy_losses(portfolio, market, estimated, tax)
    own_loss = losses.pop(own, None)
    wild_loss = None
    if own_loss is not None:
        wild_loss = policy_losses(portfolio, _wild_market(market), [own], None)[own]
    own_policy = None if own_loss is None else loss_policy(portfolio, market, own)
    tax_text = f", as if without tax ({missing_tax_reason})" if missing_tax_reason else ""
    return {
        "value": value_text(portfolio.value, 0, 10),
        "unit": portfolio.numeraire.symbol,
        "own": None if own_loss is None else _policy_document(own, own_loss, tax),
        "money": None if own_loss is None else _figure(own_loss.total * float(portfolio.value)),
        "wild_year_bps": None if wild_loss is None else _figure(wild_loss.total * BPS),
        "others": [_policy_document(choice, loss, tax) for choice, loss in losses.items()],
        "lines": [
            _own_sentence(portfolio, own_loss, tax, tax_text)
            + _comparison(own_loss, losses, tax)
            + ".",
            _others_sentence(losses, tax),
            _basis(portfolio, market, wild_loss),
            *([] if tax is None else [_tax_basis(tax)]),
        ],
        "warnings": [warning for warning in (gas_warning(portfolio, own_policy),) if warning],
    }


def _wild_market(market: LossMarket) -> LossMarket:
    """Return the market in a year in which prices move as much more as in 2021."""
    covariance = tuple(
        tuple(entry * WILD_YEAR_FACTOR**2 for entry in row) for row in market.covariance
    )
    return replace(market, covariance=covariance)


def gas_warning(portfolio: LossPortfolio, own_policy: LossPolicy | None) -> str:
    """Return a warning if the gas of a swap is above MAX_LEG_SHARE of the portfolio; empty if not."""
    if portfolio.leg_share <= MAX_LEG_SHARE:
        return ""
    waits_text = ""
    if own_policy is not None and own_policy.risk is not None:
        width = max(own_policy.triggers[:-1])
        waits_text = (
            f", and a weight waits until it is \u00b1{width * 100:.1f} points off its target"
        )
    gas_text = leg_gas_text(portfolio)
    return (
        f"Gas: each trade costs {_figure(portfolio.leg_share * 100)} % of the portfolio"
        f" ({gas_text}){waits_text}"
    )


# --- Words.


def _policy_document(
    choice: ComparedPolicy, loss: SimulatedLoss, tax: LossTax | None
) -> PolicyLossDocument:
    return {
        "policy": choice.name,
        "loss_bps": _figure(loss.total * BPS),
        "costs_bps": _figure(loss.costs * BPS),
        "drift_bps": _figure(loss.drift * BPS),
        "tax_bps": None if tax is None else _figure(loss.tax * BPS),
        "loss_if_sold_bps": None if tax is None else _figure(loss.total_if_sold * BPS),
        "trades_a_year": _figure(loss.trades),
    }


def _figure(amount: float) -> str:
    """Return an amount with two significant digits, as an estimate has."""
    return f"{Decimal(f'{amount:.1e}'):f}"


def _money(amount: float) -> str:
    """Return such an amount of money, with separators."""
    return f"{Decimal(_figure(amount)):,f}"


def _about(amount: float) -> str:
    """Return an amount for reading: one decimal below one, two digits from 100 on, else whole."""
    if amount >= 100:
        return _money(amount)
    if amount >= 0.95:
        return f"{amount:.0f}"
    return f"{amount:.1f}" if amount >= 0.05 else "0"


class ShownLoss(NamedTuple):
    """A loss for reading: bps as text, or a lower bound of them."""

    bps_text: str
    is_lower_bound: bool

    def text(self, about: str = "") -> str:
        """Return it in words; one that is no bound after `about`."""
        return f"{'over ' if self.is_lower_bound else about}{self.bps_text}"


def _shown_loss(loss: SimulatedLoss) -> ShownLoss:
    return shown_loss(loss.total * BPS, (loss.costs + loss.drift) * BPS, loss.trades)


def shown_loss(loss_bps: float, pretax_bps: float, trades_a_year: float) -> ShownLoss:
    """Return a loss for reading, by its part without tax and the trades of a year. That of what
    hardly trades grows with the time simulated.
    """
    if pretax_bps > MAX_LOSS_BPS:
        return ShownLoss(str(MAX_LOSS_BPS), is_lower_bound=True)
    hardly_trades = trades_a_year * MAX_YEARS < 1
    return ShownLoss(_about(loss_bps), is_lower_bound=hardly_trades and loss_bps >= 1)


def _own_sentence(
    portfolio: LossPortfolio, loss: SimulatedLoss | None, tax: LossTax | None, tax_text: str
) -> str:
    """Return the sentence on the own policy, up to its comparison."""
    if loss is None:
        return f"No estimate of what this trigger loses{tax_text}; "
    total = _shown_loss(loss)
    leading_text = total.text("about ").capitalize()
    parts_text = "" if total.is_lower_bound else f" ({_parts_text(loss, tax)})"
    unit = portfolio.numeraire.symbol
    money_text = (
        f"{_about(loss.total * float(portfolio.value))} of {_about(float(portfolio.value))}"
    )
    sold_text = "" if tax is None else f", {_sold_text(loss)} after {MAX_YEARS:g} years"
    return (
        f"{leading_text} bps a year behind a perfect tracker{parts_text}{tax_text}, {money_text}"
        f" {unit}{sold_text}; "
    )


def _comparison(
    loss: SimulatedLoss | None,
    losses: Mapping[ComparedPolicy, SimulatedLoss],
    tax: LossTax | None,
) -> str:
    """Return what the rule would lose (where gains are taxed, the rule after tax), or a band if the
    rule is the own policy. Which of two loses more is said only if it does so with all gains sold,
    too.
    """
    rule = RULE if tax is None else RULE_AFTER_TAX
    compared = next(choice for choice in (rule, COMPARED_CHOICE) if choice in losses)
    compared_loss = losses[compared]
    lost_text = _shown_loss(compared_loss).text()
    sold_text = "" if tax is None else f", {_sold_text(compared_loss)}"
    order_text = "" if loss is None else _order_text(loss, compared_loss)
    unit_text = " bps a year" if loss is None else ""
    return f"{compared.name} would lose {order_text}{lost_text}{unit_text}{sold_text}"


def _order_text(loss: SimulatedLoss, compared_loss: SimulatedLoss) -> str:
    """Return whether the compared one loses more; empty where that is not known."""
    loses_more = compared_loss.total > loss.total
    lesser = _shown_loss(loss if loses_more else compared_loss)
    loses_more_if_sold = compared_loss.total_if_sold > loss.total_if_sold
    if (
        _shown_loss(loss) == _shown_loss(compared_loss)
        or lesser.is_lower_bound  # it has no order
        or loses_more != loses_more_if_sold
    ):
        return ""
    return "more: " if loses_more else "less: "


def _sold_text(loss: SimulatedLoss) -> str:
    return f"{_about(loss.total_if_sold * BPS)} bps with all gains sold"


def _parts_text(loss: SimulatedLoss, tax: LossTax | None) -> str:
    """Return the parts of a loss, which add up to it as it reads where each is a bp or more."""
    costs_text = _about(loss.costs * BPS)
    drift_text = _about(loss.drift * BPS)
    tax_text = "" if tax is None else _about(loss.tax * BPS)
    if float(costs_text) >= 1 and float(drift_text) >= 1 and loss.total * BPS < 100:
        beside_drift = float(costs_text) + float(tax_text or 0)
        drift_text = _about(max(float(_about(loss.total * BPS)) - beside_drift, 1.0))
    return f"{costs_text} costs, {drift_text} drift" + (f", {tax_text} tax" if tax_text else "")


def _others_sentence(losses: Mapping[ComparedPolicy, SimulatedLoss], tax: LossTax | None) -> str:
    texts = []
    for choice, loss in losses.items():
        sold_text = "" if tax is None else f" ({_about(loss.total_if_sold * BPS)})"
        texts.append(f"{choice.name} {_shown_loss(loss).text()}{sold_text}")
    tax_text = "" if tax is None else " with tax (in brackets with all gains sold)"
    return f"Other triggers, bps a year{tax_text}: {', '.join(texts)}."


def _tax_basis(tax: LossTax) -> str:
    return (
        f"Tax: {tax.rate * 100:g} % of the gains of each year, lots by {tax.method.value}, as if all"
        f" was bought today, with coins that grow by {TAXED_GROWTH * 100:g} % a year; the mean of"
        f" {MAX_YEARS:g} years."
    )


def assumptions(portfolio: LossPortfolio, market: LossMarket) -> list[tuple[str, str, str]]:
    """Return symbol, volatility and pool fee of each asset, in percent."""
    return [
        (
            asset.symbol,
            f"{math.sqrt(row[index]) * 100:.0f} %",
            f"{asset.unit_cost * 100:.2g} %",
        )
        for index, (asset, row) in enumerate(zip(portfolio.assets, market.covariance, strict=True))
    ]


def leg_gas_text(portfolio: LossPortfolio) -> str:
    """Return the gas of a swap, in coins of the numeraire."""
    return f"{_figure(float(portfolio.leg_gas))} {portfolio.numeraire.symbol}"


def _basis(portfolio: LossPortfolio, market: LossMarket, wild_loss: SimulatedLoss | None) -> str:
    asset_assumptions = assumptions(portfolio, market)
    volatilities_text = ", ".join(
        f"{symbol} {volatility}" for symbol, volatility, _ in asset_assumptions
    )
    wild_text = ""
    if wild_loss is not None:
        wild_text = (
            f"; with {WILD_YEAR_FACTOR:g} times as much, as in 2021 beside usual years,"
            f" {_shown_loss(wild_loss).text('about ')} bps a year"
        )
    fees_text = ", ".join(f"{symbol} {fee}" for symbol, _, fee in asset_assumptions)
    return (
        f"Simulated with a volatility of {volatilities_text}{wild_text}. Pool fees {fees_text}, gas"
        f" {leg_gas_text(portfolio)} a swap; not a forecast."
    )
