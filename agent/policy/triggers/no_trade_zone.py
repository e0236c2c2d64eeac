"""The no-trade zone: proportional costs leave a zone around the targets, and gas widens it.

With costs proportional to the traded amount it is optimal not to trade inside a zone, and to trade
from outside to its edge. With a horizon the edge is where the risk that the last unit saves until
then equals its cost: right if nothing is traded again before (single-period; Dybvig and Pezzo,
Mean-variance portfolio rebalancing with transaction costs, 2019). A fixed cost F makes its trigger
wider than the destination: a return over a distance x to the edge saves ½·k·x², so it is worth its
cost from x = √(2F/k). Without a horizon edge and trigger are those of the long run
(tracking_rule.py). The costs here are a lower bound of any trade: fees of the cheapest route at
current prices, the tax on the first unit sold, and the pools' disadvantage against the reference
(an advantage is not a reason to trade). The planner decides whether a plan is worth its impact and
gas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isqrt
from operator import mul

from agent.calls import remedy_of_choice
from agent.errors import ConfigError
from agent.model import (
    STRICTNESS_COST_BPS,
    AssetDrift,
    Destination,
    NoTradeZone,
    Portfolio,
    RiskCostTradeoff,
    StepInput,
    TrackingRisk,
)
from agent.policy import minimum
from agent.policy import risk as risks
from agent.policy.risk import (
    COVARIANCE_UNIT,
    IntMatrix,
    aversion,
    common_parts,
    covariance,
    products,
    tracking_cost,
)
from agent.policy.triggers import bands
from agent.policy.triggers.asset_range import AssetRange
from agent.policy.triggers.bands import (
    KeyUnit,
    PriceSignal,
    TriggerInput,
    TriggerNotation,
    TriggerResult,
    TriggerRules,
)
from agent.policy.triggers.corrections import Correction, CorrectionTerms
from agent.policy.triggers.exchange_costs import (
    RATE_UNIT,
    ExchangeCosts,
    PricedMarket,
    exchange_costs,
    within_plan_cost,
)
from agent.policy.triggers.rule_exchanges import RuleExchanges, exchanges_at_target, traded_range
from agent.policy.triggers.tracking import NO_TAXES, with_widths
from agent.reference import ReferencePrices
from agent.units import (
    BPS,
    YEAR_S,
    Value,
    decimal_text,
    format_duration,
    format_points,
    value_text,
)

ROOT_UNIT = 10**12
NOTHING = Fraction(0)
EVERYTHING = Fraction(1)
LEAST_COST = Fraction(1, RATE_UNIT)
"""Least cost by which a saving is divided, per unit of value."""


@dataclass(frozen=True, slots=True)
class ZoneInterval:
    """Shares within which one asset is not traded. Beyond `trigger_low` and `trigger_high` it is
    brought back to `low` and `high`.

    With a horizon the other assets keep their proportions: beyond `low` and `high` the next unit
    saves more than it costs, beyond the triggers a whole swap does, with gas and approval. By the
    tracking rule the shares are those at which the asset is traded against the numeraire while all
    others stay as they are now, so that correlated ones move them; beyond `low` and `high` it has a
    `correction`.
    """

    token: str
    weight_bps: int
    target_bps: int
    low: Fraction
    high: Fraction
    trigger_low: Fraction
    trigger_high: Fraction
    correction: Correction | None = None

    @property
    def trigger_range(self) -> AssetRange:
        """The weight against the triggers."""
        return AssetRange(
            self.weight_bps, self.target_bps, self.trigger_low * BPS, self.trigger_high * BPS
        )


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
    horizon, a year without one; `gas_value` that of one swap, both in value. `risk` is what a plan
    is weighed by, `numeraire` the address of the asset that the others are exchanged with.
    `best_exchange` is None if nothing can be moved; `plan_tradeoff` compares the plan's saving and
    cost, if there is one. `sample_text` says where the volatilities are from.
    """

    risk_value: Value
    gas_value: Value
    horizon_s: int
    intervals: tuple[ZoneInterval, ...]
    best_exchange: ZoneExchange | None
    risk: TrackingRisk
    numeraire: str
    plan_tradeoff: RiskCostTradeoff | None = None
    sample_text: str = ""


def evaluate_zone(
    market: PricedMarket,
    risk: TrackingRisk,
    drifts: Sequence[AssetDrift],
    sale_taxes: Mapping[str, Fraction] = NO_TAXES,
    *,
    counts_pairs: bool = False,
) -> tuple[ZoneView, tuple[AssetDrift, ...]]:
    """Return the current zone, and the drifts with its bands. The market has prices of all tokens;
    `sale_taxes` are the taxes on the next unit sold, per unit of value. With `counts_pairs`
    exchanges of two assets count, for plans that may sell one for the other.
    """
    tokens = [drift.token for drift in drifts]
    target_shares = [Fraction(drift.target_bps, BPS) for drift in drifts]
    asset_values = [drift.value for drift in drifts]
    total_value = sum(asset_values, Fraction(0))
    route_costs = exchange_costs(market, tokens)
    plan_risk = risk
    if risk.horizon_s is None:
        plan_risk = with_widths(
            market,
            risk,
            drifts,
            route_costs,
            sale_taxes if risk.after_tax else NO_TAXES,
            counts_pairs=counts_pairs,
        )
    sigma = covariance(plan_risk, tokens)
    risk_aversion = aversion(plan_risk)
    taxed_costs = route_costs
    if sale_taxes:
        taxed_costs = {
            (sold, bought): cost + sale_taxes.get(tokens[sold], Fraction(0))
            for (sold, bought), cost in route_costs.items()
        }
    costs = {pair: taxed_costs[pair] for pair in within_plan_cost(route_costs, market.limits)}
    gas_value = minimum.leg_gas_value(
        market.snapshot, market.native_price, minimum.LEG_GAS + minimum.APPROVAL_GAS
    )
    deviation_parts, deviation_unit = common_parts(
        [
            drift.share - target_share
            for drift, target_share in zip(drifts, target_shares, strict=True)
        ]
    )
    slope_parts = products(sigma, deviation_parts)
    if risk.horizon_s is None or plan_risk.widths:
        terms = CorrectionTerms(
            aversion(risk),
            covariance(risk, tokens),
            taxed_costs,
            minimum.leg_gas_value(market.snapshot, market.native_price),
            total_value,
        )
        numeraire = market.portfolio.numeraire.address
        exchanges = RuleExchanges(plan_risk, tokens, numeraire, sigma, slope_parts, deviation_unit)
        intervals = [_rule_interval(drift, exchanges, terms) for drift in drifts]
    else:
        fixed_cost = 2 * gas_value / total_value
        intervals = [
            _zone_interval(drift, index, target_shares, sigma, risk_aversion, costs, fixed_cost)
            for index, drift in enumerate(drifts)
        ]
    is_rule_idle = risk.horizon_s is None and not plan_risk.widths
    feasible_costs = {
        index_pair: cost
        for index_pair, cost in costs.items()
        if drifts[index_pair[0]].investable_raw > 0 and not is_rule_idle
    }
    zone_view = ZoneView(
        tracking_cost(risk, tokens, target_shares, asset_values, total_value),
        gas_value,
        risk.horizon_s or YEAR_S,
        tuple(intervals),
        _best_exchange(
            tokens,
            slope_parts,
            risk_aversion / (COVARIANCE_UNIT * deviation_unit),
            feasible_costs,
        ),
        plan_risk,
        market.portfolio.numeraire.address,
        None,
        risk.sample_text,
    )
    return zone_view, tuple(
        _with_band(drift, interval) for drift, interval in zip(drifts, intervals, strict=True)
    )


def intervals_at_targets(zone: ZoneView) -> tuple[ZoneInterval, ...]:
    """Return the intervals of the tracking rule once every asset is at its target, with the
    corrections of now.
    """
    interval_by_token = {interval.token: interval for interval in zone.intervals}
    for width in zone.risk.widths:
        interval = interval_by_token[width.token]
        exchanges = exchanges_at_target(zone.risk, width.token, zone.numeraire)
        shares = traded_range(Fraction(interval.target_bps, BPS), exchanges)
        interval_by_token[width.token] = replace(
            interval,
            low=_clip(shares.low),
            high=_clip(shares.high),
            trigger_low=_clip(shares.trigger_low),
            trigger_high=_clip(shares.trigger_high),
        )
    return tuple(interval_by_token.values())


def faults(step: StepInput, references: ReferencePrices) -> list[str]:
    """Return why a zone cannot be evaluated; empty if it can, or if the trigger is not a zone."""
    policy = step.policy
    portfolio = step.portfolio
    trigger = policy.trigger
    is_zone_destination = policy.destination is Destination.ZONE
    if not isinstance(trigger, NoTradeZone):
        if is_zone_destination:
            return ["the destination is a zone, but the trigger is not"]
        return []
    label_by_token = {asset.token.address: asset.token.label for asset in portfolio.assets}
    zone_faults = [fault for fault, _ in risks.faults(trigger.risk, label_by_token)]
    known_tokens = dict(trigger.risk.volatilities_bps)
    zone_faults += [
        f"the volatility of {label} is unknown"
        for token, label in label_by_token.items()
        if token not in known_tokens
    ]
    if not is_zone_destination:
        zone_faults.append(
            f"the trigger is a zone, but the destination is {policy.destination.value}"
        )
    if trigger.risk.horizon_s is not None and step.limits.plan_cost_bps is None:
        zone_faults.append("the trigger is a zone, but limits.plan_cost is off")
    has_gas_cost = minimum.leg_gas_value(step.snapshot, Fraction(1)) > 0
    if has_gas_cost and portfolio.wrapped_native not in references.reference_by_token:
        zone_faults.append("gas cannot be valued: the wrapped native coin has no reference price")
    return zone_faults


def zone_result(zone: ZoneView, drifts: Sequence[AssetDrift]) -> TriggerResult:
    """Return a result that fires if an asset is beyond its trigger by the tracking rule, or with a
    horizon if the first unit saves more than it costs. The engine still holds if the plan costs
    more than it saves. `drifts` are those with the zone's bands.
    """
    if zone.risk.widths:
        return _rule_result(zone, drifts)
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


def _rule_result(zone: ZoneView, drifts: Sequence[AssetDrift]) -> TriggerResult:
    ruled_tokens = {width.token for width in zone.risk.widths}
    ruled_drifts = [drift for drift in drifts if drift.token in ruled_tokens]
    beyond_text = "; ".join(
        f"{bands.weight_and_target_text(drift)}"
        f"{bands.range_of(drift).beyond_text(bands.format_band(drift))}"
        for drift in bands.furthest_outside_first(ruled_drifts)
    )
    reason = beyond_text or _closest_text(ruled_drifts)
    unroutable_symbols = [
        drift.symbol
        for drift in drifts
        if drift.token not in ruled_tokens and drift.token != zone.numeraire
    ]
    if unroutable_symbols:
        reason += f"; no usable pool trades {', '.join(unroutable_symbols)}"
    is_due = any(drift.is_outside_band for drift in ruled_drifts)
    return TriggerResult(is_due, reason, None, signals=bands.band_signals(ruled_drifts))


def _closest_text(drifts: Sequence[AssetDrift]) -> str:
    """Format the asset closest to an edge of its range, while all are inside. No weight can be left
    at 0 or 100 %, and one that was sold out has none.
    """
    ranged_drifts = [drift for drift in drifts if drift.target_bps or drift.value]
    if not ranged_drifts:
        return "nothing can be traded"
    gaps = [
        (gap_bps, index)
        for index, drift in enumerate(ranged_drifts)
        for gap_bps, is_reachable in (
            (drift.share * BPS - drift.band_low_bps, drift.band_low_bps > 0),
            (drift.band_high_bps - drift.share * BPS, drift.band_high_bps < BPS),
        )
        if is_reachable
    ]
    if not gaps:
        return "all within their ranges"
    gap_bps, closest_index = min(gaps)
    drift = ranged_drifts[closest_index]
    return (
        f"all within their ranges; closest is {drift.symbol} at {drift.weight_text},"
        f" {format_points(gap_bps / BPS)} from an edge of {bands.format_band(drift)}"
        f"{bands.range_of(drift).condition_text}"
    )


def within_ranges_text(zone: ZoneView, drifts: Sequence[AssetDrift]) -> str:
    """Return why a deposit buys nothing while all assets are within their ranges; empty if one is
    beyond, or if the zone has no ranges. `drifts` are those with the zone's bands.
    """
    if not zone.risk.widths or any(drift.is_outside_band for drift in drifts):
        return ""
    return f"no purchase is worth its cost yet; {_closest_text(drifts)}"


def zone_signals(zone: ZoneView, drifts: Sequence[AssetDrift]) -> frozenset[PriceSignal]:
    """Return the price signals of a zone: assets beyond their trigger, or with a horizon the best
    exchange, if it saves more than it costs. `drifts` are those with the zone's bands.
    """
    if zone.risk.widths:
        return frozenset(bands.band_signals(drifts))
    exchange = zone.best_exchange
    if exchange is None or exchange.unit_saving <= exchange.unit_cost:
        return frozenset()
    return frozenset({(bands.TOO_MUCH, exchange.source), (bands.TOO_LITTLE, exchange.target)})


def uneconomic_plan_reason(
    reason: str,
    tradeoff: RiskCostTradeoff,
    portfolio: Portfolio,
    zone: ZoneView,
    limit_text: str,
) -> str:
    """Return why a plan was rejected, with all figures in the numeraire; `limit_text` is the limit that
    cut it, "" for none.
    """
    why = tradeoff_reason(tradeoff, portfolio, zone)
    if limit_text:
        why = f"{limit_text}, and {why}"
    return f"{reason}; but {why}; checked again in the next cycle"


def tradeoff_reason(tradeoff: RiskCostTradeoff, portfolio: Portfolio, zone: ZoneView) -> str:
    """Return what a plan would save and cost, in the numeraire."""
    decimals = portfolio.numeraire.decimals
    numeraire_label = portfolio.numeraire.label

    def money(value: Value) -> str:
        return value_text(value, decimals, 4)

    costs = (
        ("fees", tradeoff.fees),
        ("impact", tradeoff.impact),
        ("skew", tradeoff.skew),
        ("gas", tradeoff.gas),
        *((("approvals", tradeoff.approval_gas),) if tradeoff.approval_gas else ()),
        *((("tax", tradeoff.tax),) if tradeoff.tax else ()),
    )
    costs_text = ", ".join(f"{cost_name} {money(cost)}" for cost_name, cost in costs)
    until_text = (
        "until the next trades" if zone.risk.widths else f"within {format_duration(zone.horizon_s)}"
    )
    return (
        f"the whole plan would save {money(tradeoff.saved_risk)} {numeraire_label} of risk"
        f" {until_text} and cost {money(tradeoff.cost)} ({costs_text})"
    )


def no_plan_reason(reason: str, why: str, zone: ZoneView, portfolio: Portfolio) -> str:
    """Return why no plan was made, with its highest possible saving."""
    decimals = portfolio.numeraire.decimals
    numeraire_label = portfolio.numeraire.label
    risk_text, gas_text = (
        value_text(value, decimals, 4) for value in (zone.risk_value, zone.gas_value)
    )
    amounts_text = (
        f"the risk of staying so for {format_duration(zone.horizon_s)} is {risk_text} {numeraire_label}, a swap"
        f" with its approval costs {gas_text} of gas"
    )
    return f"{reason}; but {why}; {amounts_text}; checked again in the next cycle"


def _zone_interval(
    drift: AssetDrift,
    index: int,
    target_shares: Sequence[Fraction],
    sigma: IntMatrix,
    risk_aversion: Fraction,
    costs: ExchangeCosts,
    fixed_cost: Fraction,
) -> ZoneInterval:
    """Return the interval of an asset by a horizon. `fixed_cost` is twice the gas of a swap, share
    of the portfolio.
    """
    direction = _share_direction(target_shares, index)
    direction_parts, direction_unit = common_parts(direction)
    slope_parts = products(sigma, direction_parts)
    unit_risk = risk_aversion / (COVARIANCE_UNIT * direction_unit)
    risk_slope = [unit_risk * part for part in slope_parts]
    curvature = unit_risk * sum(map(mul, direction_parts, slope_parts)) / direction_unit
    fixed_cost_distance = _square_root(fixed_cost / curvature)
    rise_distance = _edge_distance(risk_slope, costs)
    fall_distance = _edge_distance([-entry for entry in risk_slope], costs)
    target_share = target_shares[index]
    return ZoneInterval(
        drift.token,
        drift.weight_bps,
        drift.target_bps,
        _clip(target_share - fall_distance),
        _clip(target_share + rise_distance),
        _clip(target_share - fall_distance - fixed_cost_distance),
        _clip(target_share + rise_distance + fixed_cost_distance),
    )


def _rule_interval(
    drift: AssetDrift, exchanges: RuleExchanges, terms: CorrectionTerms
) -> ZoneInterval:
    """Return the interval of an asset by the tracking rule. One without a width, such as the
    numeraire, is never traded for its own sake.
    """
    asset_exchanges = exchanges.of(drift)
    if not asset_exchanges:
        return ZoneInterval(
            drift.token,
            drift.weight_bps,
            drift.target_bps,
            NOTHING,
            EVERYTHING,
            NOTHING,
            EVERYTHING,
        )
    shares = traded_range(drift.share, asset_exchanges)
    low = _clip(shares.low)
    high = _clip(shares.high)
    correction = None
    if not low <= drift.share <= high:
        furthest = max(asset_exchanges, key=lambda exchange: exchange.excess)
        correction = terms.correction(
            exchanges.tokens.index(drift.token),
            exchanges.tokens.index(furthest.other),
            furthest.deviation,
            max(low - drift.share, drift.share - high),
        )
    return ZoneInterval(
        drift.token,
        drift.weight_bps,
        drift.target_bps,
        low,
        high,
        _clip(shares.trigger_low),
        _clip(shares.trigger_high),
        correction,
    )


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
    if share.numerator <= 0:
        return NOTHING
    return share if share.numerator < share.denominator else EVERYTHING


def _best_exchange(
    tokens: Sequence[str], slope_parts: Sequence[int], unit_risk: Fraction, costs: ExchangeCosts
) -> ZoneExchange | None:
    """Return the exchange whose next unit saves most per unit of cost. `slope_parts` are marginal
    risks in units of `unit_risk`.
    """
    *cost_parts, least_cost_parts = common_parts([*costs.values(), LEAST_COST])[0]
    best_pair = None
    best_saving = best_cost = 0
    for pair, cost in zip(costs, cost_parts, strict=True):
        saving = slope_parts[pair[0]] - slope_parts[pair[1]]
        counted_cost = max(cost, least_cost_parts)
        if best_pair is None or saving * best_cost > best_saving * counted_cost:
            best_pair = pair
            best_saving = saving
            best_cost = counted_cost
    if best_pair is None:
        return None
    source, target = best_pair
    return ZoneExchange(tokens[source], tokens[target], unit_risk * best_saving, costs[best_pair])


def _with_band(drift: AssetDrift, interval: ZoneInterval) -> AssetDrift:
    is_outside = not interval.trigger_low <= drift.share <= interval.trigger_high
    return replace(
        drift,
        band_low_bps=interval.trigger_low * BPS,
        band_high_bps=interval.trigger_high * BPS,
        is_outside_band=is_outside,
    )


def _square_root(radicand: Fraction) -> Fraction:
    """Return the square root, rounded down to 1/ROOT_UNIT."""
    return Fraction(isqrt(radicand.numerator * ROOT_UNIT**2 // radicand.denominator), ROOT_UNIT)


def _bps_text(share: Fraction) -> str:
    return f"{decimal_text(round(share * BPS * 100), 2)} bps"


# --- Rules and notation of the zone and of the tracking rule, which need a whole step.


DEFAULT_STRICTNESS = "normal"


def _refuse_evaluation(_: NoTradeZone, __: TriggerInput) -> TriggerResult:
    raise ConfigError("policy.trigger: a zone weighs a whole portfolio", "use another trigger")


def _describe_zone(trigger: NoTradeZone, _: Portfolio) -> str:
    risk = trigger.risk
    sample_text = ""
    if risk.estimation_window is not None:
        sample_text = (
            f", risk of {format_duration(risk.estimation_window.window_s)} of recorded prices"
        )
    if risk.horizon_s is None:
        tax_text = ", after tax" if risk.after_tax else ""
        return f"tracking: strictness {risk.strictness or 'own'}{tax_text}{sample_text}"
    return (
        f"zone: {float(risk.cost_bps):g} bps a year for 1 % of tracking error, horizon"
        f" {format_duration(risk.horizon_s)}{sample_text}"
    )


def build_tracking(strictness: str | None, after_tax: bool | None = None) -> NoTradeZone:
    """Build the trigger of the tracking rule. Raises ConfigError for an unknown strictness."""
    cost_bps = STRICTNESS_COST_BPS.get(strictness or DEFAULT_STRICTNESS)
    if cost_bps is None:
        raise ConfigError(
            f"policy.trigger.strictness: {strictness!r} is unknown",
            remedy_of_choice(str(strictness), STRICTNESS_COST_BPS),
        )
    return NoTradeZone(TrackingRisk(cost_bps, None, (), (), after_tax=bool(after_tax)))


RULES = {NoTradeZone: TriggerRules(lambda _: None, _refuse_evaluation, _describe_zone)}
"""Rules of the zone. They accept every zone, because agent/policy/risk.py validates the risk of the
assets.
"""
NOTATIONS = (
    TriggerNotation(
        "tracking",
        {"strictness": KeyUnit.TEXT, "after_tax": KeyUnit.FLAG},
        build_tracking,
        'strictness = "normal", or "relaxed" or "strict": costs and tracking error together least',
    ),
    TriggerNotation(
        "zone",
        {"tracking_error_cost": KeyUnit.YEARLY_COST, "horizon": KeyUnit.DURATION},
        lambda cost_bps, horizon_s: NoTradeZone(TrackingRisk(cost_bps, horizon_s, (), ())),
        keys_required=True,
    ),
)
