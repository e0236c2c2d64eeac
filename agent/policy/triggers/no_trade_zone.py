"""The no-trade zone: proportional costs leave a zone around the targets, and gas widens it.

With costs proportional to the traded amount it is optimal not to trade inside a zone, and to trade
from outside to its edge. At the edge the risk saved by the last unit equals its cost (Davis and
Norman, Portfolio Selection with Transaction Costs, 1990; Leland 1999). A fixed cost F makes the
trigger wider than the destination: a return over a distance x to the edge saves ½·k·x², so it is
worth its cost from x = √(2F/k). The costs here are a lower bound of any trade: fees of the cheapest
route at current prices, the tax on the first unit sold, and the pools' disadvantage against the reference (an advantage is not a
reason to trade). The planner decides whether a plan is worth its impact and gas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isqrt

from agent.amm import pools
from agent.errors import ConfigError
from agent.model import (
    AssetDrift,
    Destination,
    Limits,
    NoTradeZone,
    Policy,
    Pool,
    Portfolio,
    RiskCostTradeoff,
    Snapshot,
    TrackingRisk,
)
from agent.policy import minimum
from agent.policy import risk as risks
from agent.policy.risk import aversion, covariance, dot, matrix_times_vector, tracking_cost
from agent.policy.triggers import bands
from agent.policy.triggers.bands import (
    KeyUnit,
    TriggerInput,
    TriggerNotation,
    TriggerResult,
    TriggerRules,
)
from agent.reference import ReferencePrices
from agent.units import (
    BPS,
    PIPS,
    Price,
    Value,
    ceil_int,
    decimal_text,
    format_duration,
    value_text,
)

RATE_UNIT = 10**12
"""Precision of route rates, rounded up so that costs are never overstated."""
ROOT_UNIT = 10**12
ExchangeCosts = Mapping[tuple[int, int], Fraction]
"""Least cost per unit of value of exchanging one token for another, by their indices."""


NO_TAXES: Mapping[str, Fraction] = {}


@dataclass(frozen=True, slots=True)
class ZoneInterval:
    """Shares within which one asset is not traded while the others keep their proportions. Beyond
    `low` and `high`, the destination, the next unit saves more than it costs; beyond `trigger_low`
    and `trigger_high` a whole swap does, with gas and approval.
    """

    token: str
    low: Fraction
    high: Fraction
    trigger_low: Fraction
    trigger_high: Fraction


@dataclass(frozen=True, slots=True)
class ZoneExchange:
    """The best exchange: saving and cost of the next unit from `source` to `target`, per unit of
    value.
    """

    source: str
    target: str
    unit_saving: Fraction
    unit_cost: Fraction


@dataclass(frozen=True, slots=True)
class ZoneView:
    """Position of a portfolio in its zone. `risk_value` is the cost of the deviation over the
    horizon, `gas_value` that of one swap, both in value. `best_exchange` is None if nothing can be
    moved; `plan_tradeoff` compares the plan's saving and cost, if there is one. `sample_text`
    describes the price sample of a measured risk.
    """

    risk_value: Value
    gas_value: Value
    horizon_s: int
    intervals: tuple[ZoneInterval, ...]
    best_exchange: ZoneExchange | None
    plan_tradeoff: RiskCostTradeoff | None = None
    sample_text: str = ""


def evaluate_zone(
    snapshot: Snapshot,
    portfolio: Portfolio,
    limits: Limits,
    risk: TrackingRisk,
    drifts: Sequence[AssetDrift],
    prices: Mapping[str, Price],
    sale_taxes: Mapping[str, Fraction] = NO_TAXES,
) -> tuple[ZoneView, tuple[AssetDrift, ...]]:
    """Return the current zone, and the drifts with its bands. `prices` has all tokens, numeraire
    base units per base unit; `sale_taxes` are the taxes on the next unit sold, per unit of value.
    """
    tokens = [drift.token for drift in drifts]
    target_shares = [Fraction(drift.target_bps, BPS) for drift in drifts]
    asset_values = [drift.value for drift in drifts]
    total_value = sum(asset_values, Fraction(0))
    sigma, risk_aversion = covariance(risk, tokens), aversion(risk)
    exchange_costs = {
        (sold, bought): cost + sale_taxes.get(tokens[sold], Fraction(0))
        for (sold, bought), cost in _exchange_costs(
            snapshot, portfolio, limits, tokens, prices
        ).items()
    }
    gas_value = minimum.leg_gas_value(
        snapshot, prices[portfolio.wrapped_native], minimum.LEG_GAS + minimum.APPROVAL_GAS
    )
    intervals = []
    for index, token in enumerate(tokens):
        direction = _share_direction(target_shares, index)
        risk_slope = [risk_aversion * entry for entry in matrix_times_vector(sigma, direction)]
        fixed_cost_distance = _square_root(
            2 * gas_value / (total_value * dot(direction, risk_slope))
        )
        rise_distance, fall_distance = (
            _edge_distance(risk_slope, exchange_costs),
            _edge_distance([-entry for entry in risk_slope], exchange_costs),
        )
        edges = [
            _clip(target_shares[index] + deviation)
            for deviation in (
                -fall_distance,
                rise_distance,
                -fall_distance - fixed_cost_distance,
                rise_distance + fixed_cost_distance,
            )
        ]
        intervals.append(ZoneInterval(token, *edges))
    marginal_risk = [
        risk_aversion * entry
        for entry in matrix_times_vector(
            sigma,
            [
                drift.share - target_share
                for drift, target_share in zip(drifts, target_shares, strict=True)
            ],
        )
    ]
    feasible_exchange_costs = {
        index_pair: cost
        for index_pair, cost in exchange_costs.items()
        if drifts[index_pair[0]].investable_raw > 0
    }
    zone_view = ZoneView(
        tracking_cost(risk, tokens, target_shares, asset_values, total_value),
        gas_value,
        risk.horizon_s,
        tuple(intervals),
        _best_exchange(tokens, marginal_risk, feasible_exchange_costs),
        None,
        risk.sample_text,
    )
    return zone_view, tuple(
        _with_band(drift, interval) for drift, interval in zip(drifts, intervals, strict=True)
    )


def faults(
    portfolio: Portfolio, policy: Policy, limits: Limits, references: ReferencePrices
) -> list[str]:
    """Return why a zone cannot be evaluated; empty if it can, or if the trigger is not a zone."""
    trigger, is_zone_destination = policy.trigger, policy.destination is Destination.ZONE
    if not isinstance(trigger, NoTradeZone):
        if is_zone_destination:
            return ["the destination is a zone, but the trigger is not"]
        return []
    if trigger.risk.no_sample_reason:
        zone_faults = []
    else:
        zone_faults = [
            fault
            for fault, _ in risks.faults(
                trigger.risk,
                {asset.token.address: asset.token.label for asset in portfolio.assets},
            )
        ]
    if not is_zone_destination:
        zone_faults.append(
            f"the trigger is a zone, but the destination is {policy.destination.value}"
        )
    if limits.plan_cost_bps is None:
        zone_faults.append("the trigger is a zone, but limits.plan_cost is off")
    if portfolio.wrapped_native not in references.reference_by_token:
        zone_faults.append("gas cannot be valued: the wrapped native coin has no reference price")
    return zone_faults


def zone_result(zone: ZoneView, drifts: Sequence[AssetDrift]) -> TriggerResult:
    """Return a result that fires if the first unit saves more than it costs. The engine still holds
    if the plan costs more than it saves.
    """
    exchange = zone.best_exchange
    if exchange is None:
        return TriggerResult(
            False,
            "no exchange possible: no usable pool connects an "
            "overweight token to an underweight one",
            None,
        )
    if exchange.unit_saving <= 0:
        return TriggerResult(
            False, "within the no-trade zone: no exchange would save any risk", None
        )
    symbol_by_token = {drift.token: drift.symbol for drift in drifts}
    exchange_text = f"from {symbol_by_token[exchange.source]} to {symbol_by_token[exchange.target]}"
    if exchange.unit_saving > exchange.unit_cost:
        reason = (
            f"outside the no-trade zone: the first unit {exchange_text} saves {_bps_text(exchange.unit_saving)} of risk"
            f" and costs {_bps_text(exchange.unit_cost)}"
        )
        return TriggerResult(True, reason, None)
    furthest_drift = max(
        drifts, key=lambda drift: abs(drift.share - Fraction(drift.target_bps, BPS))
    )
    reason = (
        f"within the no-trade zone: the next unit {exchange_text} would save {_bps_text(exchange.unit_saving)} of risk"
        f" and cost at least {_bps_text(exchange.unit_cost)}; {furthest_drift.symbol} at"
        f" {furthest_drift.weight_text} is moved beyond {bands.format_band(furthest_drift)}"
    )
    return TriggerResult(False, reason, None)


def unmeasured_result(risk: TrackingRisk) -> TriggerResult:
    """Return the hold of a zone whose risk is unknown."""
    remedy = (
        "wait for the agent's own records, or trimtab prices import, trimtab prices fetch, or set"
        " volatilities in [policy.risk]"
    )
    return TriggerResult(
        False, f"the zone has no risk estimate yet: {risk.no_sample_reason}; {remedy}", None
    )


def uneconomic_plan_reason(
    reason: str, tradeoff: RiskCostTradeoff, portfolio: Portfolio, horizon_s: int
) -> str:
    """Return why a plan was rejected, with all figures in the numeraire."""
    decimals, numeraire_label = portfolio.numeraire.decimals, portfolio.numeraire.label

    def money(value: Value) -> str:
        return value_text(value, decimals, 4)

    costs = (
        ("fees", tradeoff.fees),
        ("impact", tradeoff.impact),
        ("skew", tradeoff.skew),
        ("gas", tradeoff.gas),
        ("approvals", tradeoff.approval_gas),
        *((("tax", tradeoff.tax),) if tradeoff.tax else ()),
    )
    costs_text = ", ".join(f"{cost_name} {money(cost)}" for cost_name, cost in costs)
    return (
        f"{reason}; but the whole plan would save {money(tradeoff.saved_risk)} {numeraire_label} of risk within"
        f" {format_duration(horizon_s)} and cost {money(tradeoff.cost)} ({costs_text}); checked"
        " again in the next cycle"
    )


def no_plan_reason(reason: str, why: str, zone: ZoneView, portfolio: Portfolio) -> str:
    """Return why no plan was made, with its highest possible saving."""
    decimals, numeraire_label = portfolio.numeraire.decimals, portfolio.numeraire.label
    risk_text, gas_text = (
        value_text(value, decimals, 4) for value in (zone.risk_value, zone.gas_value)
    )
    amounts_text = (
        f"all of the risk within {format_duration(zone.horizon_s)} is {risk_text} {numeraire_label}, a swap"
        f" with its approval costs {gas_text} of gas"
    )
    return f"{reason}; but {amounts_text}; {why}; checked again in the next cycle"


def _share_direction(target_shares: Sequence[Fraction], index: int) -> list[Fraction]:
    """Return the change of all shares if one share rises by one and the others fall in proportion
    to their targets.
    """
    other_share = 1 - target_shares[index]
    share_changes = [
        -target_share / other_share if other_share else Fraction(-1, len(target_shares) - 1)
        for target_share in target_shares
    ]
    share_changes[index] = Fraction(1)
    return share_changes


def _edge_distance(risk_slope: Sequence[Fraction], costs: ExchangeCosts) -> Fraction:
    """Return the largest deviation that is not worth reducing by any exchange; 1 if no exchange is
    ever worth it.
    """
    distances = [
        cost / (risk_slope[i] - risk_slope[j])
        for (i, j), cost in costs.items()
        if risk_slope[i] > risk_slope[j]
    ]
    return min([*distances, Fraction(1)])


def _clip(share: Fraction) -> Fraction:
    return min(max(share, Fraction(0)), Fraction(1))


def _best_exchange(
    tokens: Sequence[str], marginal_risk: Sequence[Fraction], costs: ExchangeCosts
) -> ZoneExchange | None:
    exchanges = [
        ZoneExchange(tokens[i], tokens[j], marginal_risk[i] - marginal_risk[j], cost)
        for (i, j), cost in costs.items()
    ]
    return max(
        exchanges,
        key=lambda exchange: exchange.unit_saving / max(exchange.unit_cost, Fraction(1, RATE_UNIT)),
        default=None,
    )


def _with_band(drift: AssetDrift, interval: ZoneInterval) -> AssetDrift:
    is_outside = not interval.trigger_low <= drift.share <= interval.trigger_high
    return replace(
        drift,
        band_low_bps=interval.trigger_low * BPS,
        band_high_bps=interval.trigger_high * BPS,
        is_outside_band=is_outside,
    )


def _exchange_costs(
    snapshot: Snapshot,
    portfolio: Portfolio,
    limits: Limits,
    tokens: Sequence[str],
    prices: Mapping[str, Price],
) -> ExchangeCosts:
    """Return the least cost per unit of value of exchanging token i for j over any route that
    limits.plan_cost allows (Floyd-Warshall).
    """
    hubs = [
        hub.address for hub in portfolio.hubs if hub.address in prices and hub.address not in tokens
    ]
    nodes = [*tokens, *hubs]
    node_indices = range(len(nodes))
    rates = [[0] * len(nodes) for _ in node_indices]
    index_by_token = {token: index for index, token in enumerate(nodes)}
    for pool in snapshot.pools:
        if not _is_usable(snapshot, limits, pool, index_by_token, prices):
            continue
        for token_in, token_out in ((pool.token0, pool.token1), (pool.token1, pool.token0)):
            i, j = index_by_token[token_in], index_by_token[token_out]
            rates[i][j] = max(
                rates[i][j], _rate(pool, token_in, prices[token_in], prices[token_out])
            )
    for middle in node_indices:
        for i in node_indices:
            for j in node_indices:
                rates[i][j] = max(rates[i][j], -(-rates[i][middle] * rates[middle][j] // RATE_UNIT))
    if limits.plan_cost_bps is None:
        max_cost = RATE_UNIT
    else:
        max_cost = RATE_UNIT * limits.plan_cost_bps // BPS
    asset_indices = range(len(tokens))
    return {
        (i, j): Fraction(RATE_UNIT - rates[i][j], RATE_UNIT)
        for i in asset_indices
        for j in asset_indices
        if i != j and rates[i][j] > 0 and RATE_UNIT - rates[i][j] <= max_cost
    }


def _rate(pool: Pool, token_in: str, price_in: Price, price_out: Price) -> int:
    """Return value out per value in of a first unit, after fee, in units of 1/RATE_UNIT; gains
    above the reference do not count.
    """
    rate_before_fee = min(Fraction(1), pools.marginal_price(pool, token_in) * price_out / price_in)
    return ceil_int(rate_before_fee * RATE_UNIT * (PIPS - pool.fee_for(token_in)) / PIPS)


def _is_usable(
    snapshot: Snapshot,
    limits: Limits,
    pool: Pool,
    index_by_token: Mapping[str, int],
    prices: Mapping[str, Price],
) -> bool:
    """True if the planner would trade in the pool: known tokens, readable, not empty, deep
    enough.
    """
    if (
        pool.token0 not in index_by_token
        or pool.token1 not in index_by_token
        or any(
            quarantined_item.address == pool.address
            for quarantined_item in snapshot.unreadable_items
        )
    ):
        return False
    min_value = limits.pool_min_value
    return not pool.is_empty and (
        min_value is None
        or sum(pool.depth(token) * prices[token] for token in (pool.token0, pool.token1))
        >= min_value
    )


def _square_root(radicand: Fraction) -> Fraction:
    """Return the square root, rounded down to 1/ROOT_UNIT."""
    return Fraction(isqrt(radicand.numerator * ROOT_UNIT**2 // radicand.denominator), ROOT_UNIT)


def _bps_text(share: Fraction) -> str:
    return f"{decimal_text(round(share * BPS * 100), 2)} bps"


# --- Rules and notation of the zone. Its risk is complete only with [policy.risk], and it needs a whole step.


def _refuse_evaluation(_: NoTradeZone, __: TriggerInput) -> TriggerResult:
    raise ConfigError("policy.trigger: a zone weighs a whole portfolio", "use another trigger")


def _describe_zone(trigger: NoTradeZone, _: Portfolio) -> str:
    risk, sample_text = trigger.risk, ""
    if risk.estimation_window is not None:
        sample_text = (
            f", risk of {format_duration(risk.estimation_window.window_s)} of recorded prices"
        )
    return (
        f"zone: {float(risk.cost_bps):g} bps a year for 1% of tracking error, horizon"
        f" {format_duration(risk.horizon_s)}{sample_text}"
    )


RULES = {NoTradeZone: TriggerRules(lambda _: None, _refuse_evaluation, _describe_zone)}
"""Rules of the zone. They accept every zone, because agent/policy/risk.py validates the risk of the
assets.
"""
NOTATIONS = (
    TriggerNotation(
        "zone",
        {"tracking_error_cost": KeyUnit.YEARLY_COST, "horizon": KeyUnit.DURATION},
        lambda cost_bps, horizon_s: NoTradeZone(TrackingRisk(cost_bps, horizon_s, (), ())),
        keys_required=True,
    ),
)
