"""About what a policy loses a year against a portfolio that is always on target at no cost, beside
other triggers: with usual figures of the network before there is a chain, else with the pools found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from agent.amm.venue_kinds import VenueKind
from agent.backtest.tracking_loss import LossMarket, LossPolicy, TrackingLoss, simulate_losses
from agent.config.build import build_policy
from agent.config.networks import NETWORKS, typical_fees
from agent.config.schema import Config
from agent.model import (
    Destination,
    Every,
    HybridTrigger,
    NoTradeZone,
    Policy,
    StagedTrigger,
    StepInput,
    Threshold,
    TrackingRisk,
    Trigger,
)
from agent.policy.drift import band, compute_drifts, investable_total
from agent.policy.minimum import LEG_GAS, leg_gas_value
from agent.policy.risk import aversion
from agent.policy.risk_estimates import complete_risk
from agent.policy.triggers.exchange_costs import exchange_costs
from agent.policy.triggers.no_trade_zone import (
    DEFAULT_STRICTNESS,
    STRICTNESS_COST_BPS,
    build_tracking,
)
from agent.policy.triggers.tracking_rule import CORRELATION_SHARE, TradingCost, token_rules
from agent.reference import reference_prices
from agent.units import BPS, PIPS, YEAR_S, format_duration
from agent.weights.asset_classes import (
    AssetClass,
    class_correlation_bps,
    class_of,
    class_volatility_bps,
)

if TYPE_CHECKING:
    from agent.app.documents.owner import PolicyLossDocument, TrackingLossDocument

ORDINARY_DAY_INDEX = 1
"""Position of an ordinary day among the gas prices of a network."""
USUAL_FEE_TIERS_PIPS = (100, 500, 3_000)
"""Fee tiers of a network without a venue here."""
USUAL_DEPTH_USD = 20_000_000
"""A swap of x costs x² over this in impact, on each pair."""
MAX_LEG_SHARE = 0.005
"""Gas of a swap, share of the portfolio, from which every trade is dear."""
MAX_LOSS_BPS = 100
"""Losses above this are those of portfolios that hardly trade; their figure says nothing."""
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class ComparedPolicy:
    """A trigger, where it trades to, and the least time between two trades."""

    trigger: Trigger
    destination: Destination
    cooldown_s: int = 3_600

    @property
    def name(self) -> str:
        """The trigger and destination in words."""
        match self.trigger:
            case NoTradeZone(risk) if risk.horizon_s is None:
                return "tracking"
            case NoTradeZone(TrackingRisk(_, int(horizon_s))):
                return f"zone {format_duration(horizon_s)}"
            case Every(every_s):
                return f"every {format_duration(every_s)}"
            case HybridTrigger(threshold, Every(every_s)):
                return f"{self._band_name(threshold)} every {format_duration(every_s)}"
            case Threshold() as threshold:
                return self._band_name(threshold)
            case _:
                return "this trigger"

    def _band_name(self, threshold: Threshold) -> str:
        widths = [
            f"{kind} {width_bps / 100:g} %"
            for kind, width_bps in (
                ("absolute", threshold.absolute_bps),
                ("relative", threshold.relative_bps),
            )
            if width_bps is not None
        ]
        destinations = {Destination.HALFWAY: " to halfway", Destination.BAND: " to the band"}
        return " and ".join(widths) + destinations.get(self.destination, "")


CHOICES = (
    ComparedPolicy(build_tracking(DEFAULT_STRICTNESS), Destination.ZONE),
    ComparedPolicy(Threshold(None, 1_000), Destination.TARGET),
    ComparedPolicy(Threshold(None, 2_000), Destination.HALFWAY),
    ComparedPolicy(Threshold(500, None), Destination.TARGET),
    ComparedPolicy(Every(28 * DAY_S), Destination.TARGET),
)
"""Triggers that are compared."""
RULE = CHOICES[0]
COMPARED_CHOICE = CHOICES[1]
"""What is compared with the rule."""
COMPARED_CHOICES = CHOICES[:2]


@dataclass(frozen=True, slots=True)
class LossAsset:
    """An asset: symbol, token address, target, own band, cost of a unit traded against the
    numeraire, and depth of its pools: a swap of x coins costs x² over it in impact.
    """

    symbol: str
    token: str
    target_bps: int
    own_band: Threshold | None
    unit_cost: float
    depth: Fraction


@dataclass(frozen=True, slots=True)
class LossPortfolio:
    """Assets beside the numeraire, and amounts in coins of it: value, gas of a swap and smallest
    swap.
    """

    assets: tuple[LossAsset, ...]
    numeraire: LossAsset
    value: Fraction
    leg_gas: Fraction
    min_trade: Fraction
    plan_cost_bps: int | None

    @property
    def leg_share(self) -> float:
        """Gas of a swap, share of the portfolio."""
        return float(self.leg_gas / self.value)


def portfolio_of_config(
    config: Config, numeraire_usd: Fraction, value: Fraction
) -> LossPortfolio | None:
    """Return the portfolio of a config, worth `value` coins of the numeraire, each of which is worth
    `numeraire_usd` dollars; None if nothing is traded.
    """
    numeraire_symbol = config.portfolio.numeraire
    assets = []
    numeraire = None
    for table in config.portfolio.assets:
        fee_pips = usual_fee_pips(config.chain.chain_id, table.symbol, numeraire_symbol)
        asset = LossAsset(
            table.symbol,
            table.address,
            table.target,
            table.band,
            fee_pips / PIPS,
            USUAL_DEPTH_USD / numeraire_usd,
        )
        if table.symbol == numeraire_symbol:
            numeraire = asset
        elif table.target:
            assets.append(asset)
    if numeraire is None or not assets or value <= 0:
        return None
    fees = typical_fees(config.chain.chain_id)
    leg_wei = LEG_GAS * fees.gas_prices_wei[ORDINARY_DAY_INDEX] + fees.data_fee_wei
    return LossPortfolio(
        tuple(assets),
        numeraire,
        value,
        leg_wei * fees.native_usd / numeraire_usd / 10**18,
        Fraction(config.limits.min_trade or 0),
        config.limits.plan_cost,
    )


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
    costs = exchange_costs(
        step.snapshot, step.portfolio, step.limits, tokens, prices, fees_only=True
    )
    numeraire_index = tokens.index(numeraire.address)
    assets = []
    for index, asset in enumerate(step.effective_assets):
        token = asset.token.address
        if index == numeraire_index or not asset.target_bps:
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
    )


def step_loss_document(step: StepInput) -> TrackingLossDocument | None:
    """Return about what the policy of a step loses, by its volatilities and the pools found; None as
    above.
    """
    portfolio = portfolio_of_step(step)
    if portfolio is None:
        return None
    return loss_document(portfolio, complete_risk(step).policy, COMPARED_CHOICES)


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
) -> TrackingLossDocument | None:
    """Return about what a config loses with `value` coins, beside other triggers; None if nothing is
    traded.
    """
    portfolio = portfolio_of_config(config, numeraire_usd, value)
    return None if portfolio is None else loss_document(portfolio, build_policy(config), choices)


def loss_document(
    portfolio: LossPortfolio, policy: Policy, choices: Sequence[ComparedPolicy] = CHOICES
) -> TrackingLossDocument:
    """Return about what a policy loses, beside other triggers."""
    own = ComparedPolicy(policy.trigger, policy.destination, policy.cooldown_s)
    others = [choice for choice in choices if choice.name != own.name]
    market = _market(portfolio, policy.trigger)
    own_policy = None if policy.trade_side else _loss_policy(portfolio, market, own)
    other_policies = [_loss_policy(portfolio, market, choice) for choice in others]
    simulated = [loss_policy for loss_policy in (own_policy, *other_policies) if loss_policy]
    losses = simulate_losses(market, simulated)
    own_loss = None if own_policy is None else losses[0]
    other_losses = dict(zip(others, losses[-len(others) :], strict=True))
    return {
        "value": f"{float(portfolio.value):.10g}",
        "unit": portfolio.numeraire.symbol,
        "own": None if own_loss is None else _policy_document(own, own_loss),
        "money": None if own_loss is None else _figure(own_loss.total * float(portfolio.value)),
        "others": [_policy_document(choice, loss) for choice, loss in other_losses.items()],
        "lines": [
            _own_sentence(portfolio, own, own_loss, other_losses),
            _others_sentence(other_losses),
            _basis(portfolio),
        ],
        "warnings": [warning for warning in (gas_warning(portfolio, own_policy),) if warning],
    }


def gas_warning(portfolio: LossPortfolio, own_policy: LossPolicy | None) -> str:
    """Return a warning if the gas of a swap is above MAX_LEG_SHARE of the portfolio; empty if not."""
    if portfolio.leg_share <= MAX_LEG_SHARE:
        return ""
    waits_text = ""
    if own_policy is not None and own_policy.risk is not None:
        width = max(own_policy.triggers[:-1]) * 100
        waits_text = f", and a weight waits until it is \u00b1{width:.1f} points off its target"
    gas_text = f"{_figure(float(portfolio.leg_gas))} {portfolio.numeraire.symbol}"
    return (
        f"Gas: each trade costs {_figure(portfolio.leg_share * 100)} % of the portfolio"
        f" ({gas_text}){waits_text}"
    )


# --- The portfolio and its triggers as the simulation takes them.


def _market(portfolio: LossPortfolio, trigger: Trigger) -> LossMarket:
    """Return the market of a portfolio. Volatilities and correlations are those configured or
    measured, else those of the tokens' classes; tracking error is worth what the trigger says, else
    what normal strictness does.
    """
    cost_bps = STRICTNESS_COST_BPS[DEFAULT_STRICTNESS]
    configured_volatilities: Mapping[str, int] = {}
    configured_correlations: Mapping[frozenset[str], int] = {}
    if isinstance(trigger, NoTradeZone):
        cost_bps = trigger.risk.cost_bps
        configured_volatilities = dict(trigger.risk.volatilities_bps)
        configured_correlations = {
            frozenset(pair): bps for *pair, bps in trigger.risk.correlations_bps
        }
    assets = portfolio.assets
    unit = portfolio.numeraire.symbol
    volatilities = [
        configured_volatilities.get(asset.token, class_volatility_bps(asset.symbol, unit)) / BPS
        for asset in assets
    ]

    def correlation(first: LossAsset, second: LossAsset) -> float:
        if first is second:
            return 1.0
        class_bps = class_correlation_bps(first.symbol, second.symbol, unit)
        return configured_correlations.get(frozenset((first.token, second.token)), class_bps) / BPS

    return LossMarket(
        targets=[asset.target_bps / BPS for asset in assets],
        covariance=[
            [
                volatilities[i] * volatilities[j] * correlation(first, second)
                for j, second in enumerate(assets)
            ]
            for i, first in enumerate(assets)
        ],
        unit_costs=[asset.unit_cost for asset in assets],
        leg_cost=portfolio.leg_share,
        impacts=[float(portfolio.value / asset.depth) for asset in assets],
        min_trade=float(portfolio.min_trade / portfolio.value),
        max_plan_cost=math.inf
        if portfolio.plan_cost_bps is None
        else portfolio.plan_cost_bps / BPS,
        risk_aversion=float(2 * cost_bps),
    )


def _loss_policy(
    portfolio: LossPortfolio, market: LossMarket, choice: ComparedPolicy
) -> LossPolicy | None:
    """Return a trigger with its destination as the simulation takes it; None if it is not known."""
    cooldown_years = choice.cooldown_s / YEAR_S
    match choice.trigger:
        case NoTradeZone(risk) if risk.horizon_s is None:
            return _tracking_policy(market, cooldown_years)
        case NoTradeZone(risk):
            return _zone_policy(market, float(aversion(risk)), cooldown_years)
        case Threshold():
            return _band_policy(portfolio, choice, cooldown_years, has_schedule=False)
        case Every(every_s) | HybridTrigger(_, Every(every_s)) | StagedTrigger(_, Every(every_s)):
            return _band_policy(portfolio, choice, every_s / YEAR_S, has_schedule=True)
        case _:
            return None


def _tracking_policy(market: LossMarket, cooldown_years: float) -> LossPolicy:
    """Return the tracking rule: Qᵢⱼ = λ·Σᵢⱼ·min(Hᵢ, Hⱼ) with its reduced correlations."""
    count = len(market.targets)
    reduced = _reduced(market.covariance)
    rules = token_rules(
        [*market.targets, 1 - math.fsum(market.targets)],
        [[*row, 0.0] for row in reduced] + [[0.0] * (count + 1)],
        count,
        {
            index: TradingCost(unit_cost, market.leg_cost, market.min_trade)
            for index, unit_cost in enumerate(market.unit_costs)
        },
        market.risk_aversion,
    )
    horizons = [rules[index].horizon_years or 1.0 for index in range(count)]
    risk = [
        [market.risk_aversion * reduced[i][j] * min(horizons[i], horizons[j]) for j in range(count)]
        for i in range(count)
    ]
    return LossPolicy(
        [*(rules[index].trigger for index in range(count)), math.inf],
        [rules[index].edge for index in range(count)],
        interval_years=cooldown_years,
        risk=risk,
    )


def _reduced(covariance: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return a covariance with the correlations of the tracking rule."""
    return [
        [entry if i == j else entry * CORRELATION_SHARE for j, entry in enumerate(row)]
        for i, row in enumerate(covariance)
    ]


def _zone_policy(market: LossMarket, aversion_years: float, cooldown_years: float) -> LossPolicy:
    """Return a zone: the edge is where a unit saves its cost over the horizon, the trigger where a
    swap saves its gas too. `aversion_years` is λ times the horizon.
    """
    risk = [[aversion_years * entry for entry in row] for row in market.covariance]
    edges = [unit_cost / risk[i][i] for i, unit_cost in enumerate(market.unit_costs)]
    gas_widths = [math.sqrt(2 * market.leg_cost / risk[i][i]) for i in range(len(edges))]
    triggers = [edge + width for edge, width in zip(edges, gas_widths, strict=True)]
    return LossPolicy([*triggers, math.inf], edges, interval_years=cooldown_years, risk=risk)


def _band_policy(
    portfolio: LossPortfolio, choice: ComparedPolicy, interval_years: float, *, has_schedule: bool
) -> LossPolicy:
    """Return bands, or reviews after an interval at which they count."""
    widths = []
    for asset in (*portfolio.assets, portfolio.numeraire):
        low_bps, high_bps = band(choice.trigger, asset.target_bps, asset.own_band)
        widths.append(float(max(asset.target_bps - low_bps, high_bps - asset.target_bps)) / BPS)
    keeps_band = choice.destination is Destination.BAND
    return LossPolicy(
        widths,
        widths[:-1] if keeps_band else [0.0] * len(portfolio.assets),
        traded_share=0.5 if choice.destination is Destination.HALFWAY else 1.0,
        interval_years=interval_years,
        has_schedule=has_schedule,
    )


# --- Words.


def _policy_document(choice: ComparedPolicy, loss: TrackingLoss) -> PolicyLossDocument:
    return {
        "policy": choice.name,
        "loss_bps": _figure(loss.total * BPS),
        "costs_bps": _figure(loss.costs * BPS),
        "drift_bps": _figure(loss.drift * BPS),
        "trades_a_year": _figure(loss.trades),
    }


def _figure(amount: float) -> str:
    """Return an amount with two significant digits, as an estimate has."""
    return f"{Decimal(f'{amount:.1e}'):f}"


def _about(amount: float) -> str:
    """Return an amount for reading: one decimal below one, two digits from 100 on, else whole."""
    if amount >= 100:
        return f"{Decimal(_figure(amount)):,f}"
    if amount >= 0.95:
        return f"{amount:.0f}"
    return f"{amount:.1f}" if amount >= 0.05 else "0"


def _about_bps(loss: TrackingLoss) -> str:
    loss_bps = loss.total * BPS
    return f"over {MAX_LOSS_BPS}" if loss_bps > MAX_LOSS_BPS else _about(loss_bps)


def _own_sentence(
    portfolio: LossPortfolio,
    own: ComparedPolicy,
    loss: TrackingLoss | None,
    losses: Mapping[ComparedPolicy, TrackingLoss],
) -> str:
    """Return the sentence on the own policy beside the rule, or beside a band if it is the rule."""
    compared = next(choice for choice in (RULE, COMPARED_CHOICE) if choice in losses)
    compared_text = f"{compared.name} would lose {_about_bps(losses[compared])}"
    if loss is None:
        return f"No estimate of what this trigger loses; {compared_text} bps a year."
    total_text = _about_bps(loss)
    parts_text = ""
    if loss.total * BPS <= MAX_LOSS_BPS:
        costs_text = _about(loss.costs * BPS)
        drift_text = _about(loss.drift * BPS)
        if float(costs_text) >= 1 and float(drift_text) >= 1:
            drift_text = _about(max(float(total_text) - float(costs_text), 1.0))
        parts_text = f" ({costs_text} costs, {drift_text} drift)"
    unit = portfolio.numeraire.symbol
    return (
        f"About {total_text} bps a year behind a perfect tracker{parts_text},"
        f" {_about(loss.total * float(portfolio.value))} of {_about(float(portfolio.value))} {unit};"
        f" {compared_text}."
    )


def _others_sentence(losses: Mapping[ComparedPolicy, TrackingLoss]) -> str:
    losses_text = ", ".join(f"{choice.name} {_about_bps(loss)}" for choice, loss in losses.items())
    return f"Other triggers, bps a year: {losses_text}."


def _basis(portfolio: LossPortfolio) -> str:
    fees_text = ", ".join(
        f"{asset.symbol} {asset.unit_cost * 100:.2g} %" for asset in portfolio.assets
    )
    return (
        f"Simulated: usual volatilities, pool fees {fees_text}, gas"
        f" {_figure(float(portfolio.leg_gas))} {portfolio.numeraire.symbol} a swap; not a forecast."
    )
