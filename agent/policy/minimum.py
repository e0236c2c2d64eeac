"""Minimum portfolio value at which targets, bands, pools and gas are economical, its annual cost,
and the setting to change. A correction of the share b of the portfolio V moves b·V and costs gas G
and the pool fee f of the moved value. It stays within limits.plan_cost c if V ≥ G / (b·(c - f)).
For the first purchase, b is 1 less the numeraire's target. Impact is neglected, because it is small
at the minimum. Frequency of corrections: a weight w with annual volatility s against the rest moves
by w·(1 - w)·s a year. It leaves ±b after (b / (w·(1 - w)·s))² years on average, the mean exit time
of a driftless Brownian motion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from agent.model import (
    Asset,
    AssetDrift,
    Limits,
    Pool,
    Portfolio,
    Snapshot,
    StepInput,
    Trigger,
    review_interval_s,
)
from agent.policy.drift import band, investable_total
from agent.reference import ReferencePrices
from agent.units import BPS, PIPS, Price, Value, ceil_int, value_text

# --- Minimum portfolio size at which every leg is worth trading (R1.5), and number of assets
# (R1.1).


MIN_ASSETS = 2
MOST = 12
"""Number of assets above which every step warns; more are still possible."""
EASY = 6
"""Number of assets above which the setup of a portfolio warns."""
LEG_GAS = 150_000
"""Gas units of one swap in a multicall, rounded; plans have their own estimate."""
APPROVAL_GAS = 46_000
"""Gas units of one approval of a plain ERC-20 token, from an allowance of zero."""
LEG_BYTES, APPROVAL_BYTES = 512, 68
"""Most calldata of one leg of a swap, and of an approval."""
GAS_MULTIPLE = 20
"""Least value of a leg as a multiple of its gas."""


def smallest_total(assets: Sequence[Asset], leg_value: Value) -> Value:
    """Return the smallest investable total at which every asset's target is worth `leg_value`,
    numeraire base units.
    """
    smallest_bps = min(asset.target_bps for asset in assets if asset.target_bps > 0)
    return leg_value * BPS / smallest_bps


def leg_gas_value(snapshot: Snapshot, native_price: Price, units: int = LEG_GAS) -> Value:
    """Return the gas cost of one leg now, or of `units`; `native_price` is numeraire base units per
    wei.
    """
    base_wei = snapshot.head.base_fee_wei
    if base_wei is None:
        gas_price_wei = snapshot.gas_price_wei
    else:
        gas_price_wei = base_wei + snapshot.priority_fee_wei
    extra_wei = snapshot.data_fee_wei(units, LEG_BYTES)
    return Fraction(units * gas_price_wei + extra_wei) * native_price


def warnings(portfolio: Portfolio) -> tuple[str, ...]:
    """Return warnings on the portfolio's size; they never refuse a step."""
    return tuple(asset_count_warnings(len(portfolio.assets), MOST))


def asset_count_warnings(count: int, above: int = EASY) -> list[str]:
    """Return a warning if `count` assets are more than `above` (R1.1)."""
    if count <= above:
        return []
    more = f"{count} assets are more than {MOST}" if count > MOST else f"{count} assets"
    return [f"{more}: 4 to 6 are easier to manage and cheaper to rebalance"]


def too_small_reason(
    portfolio: Portfolio, limits: Limits, assets: Sequence[Asset], drifts: Sequence[AssetDrift]
) -> str:
    """Return why the total is too small to invest; empty if it is not (R1.5)."""
    value = investable_total(drifts)
    if value == 0:
        owns_any = any(drift.raw > 0 for drift in drifts)
        if owns_any:
            return "all balances are reserved; nothing can be invested"
        return "the wallet holds none of the portfolio's assets"
    if limits.min_trade is None:
        return ""
    least = smallest_total(assets, limits.min_trade)
    if value >= least:
        return ""
    return (
        f"with an investable total of {format_money(portfolio, value)} the smallest target is "
        f"below min_trade {format_money(portfolio, limits.min_trade)}; at least"
        f" {format_money(portfolio, least)} is needed"
    )


def gas_too_high_reason(
    step: StepInput,
    drifts: Sequence[AssetDrift],
    references: ReferencePrices,
) -> str:
    """Return why gas is too expensive to trade now (R1.5); empty if it is not, or if min_trade is
    off.

    Without a reference price of native coin no plan passes the cost guard, so this check is not
    needed.
    """
    native = references.prices.get(step.portfolio.wrapped_native)
    if native is None or step.limits.min_trade is None:
        return ""
    leg = leg_gas_value(step.snapshot, native.price) * GAS_MULTIPLE
    least = smallest_total(step.effective_assets, leg)
    if investable_total(drifts) >= least:
        return ""
    needs = f"which needs a total of {format_money(step.portfolio, least)}"
    return (
        f"gas is too expensive now: {GAS_MULTIPLE} times that of a swap is"
        f" {format_money(step.portfolio, leg)}, {needs}"
    )


def too_small_to_trade(portfolio: Portfolio, limits: Limits, moved: Value) -> str:
    """Return why a correction of this value is not traded: each asset's part is below min_trade."""
    return (
        f"too small to trade: of {format_money(portfolio, moved)} to move, each asset's part is below"
        f" limits.min_trade of {format_money(portfolio, limits.min_trade)}"
    )


def not_worth_reason(
    snapshot: Snapshot,
    portfolio: Portfolio,
    limits: Limits,
    references: ReferencePrices,
    moved: Value,
) -> str:
    """Return why a correction of this value is not worth trading: its cost in numbers, and the
    limit that decides.
    """
    limit, native = limits.plan_cost_bps, references.prices.get(portfolio.wrapped_native)
    if limit is None or native is None:
        return too_small_to_trade(portfolio, limits, moved)
    gas, most = leg_gas_value(snapshot, native.price), moved * Fraction(limit, BPS)
    return (
        f"not worth its cost: limits.plan_cost ({limit} bps) allows at most"
        f" {format_money(portfolio, most)} for moving {format_money(portfolio, moved)}; one swap costs about"
        f" {format_money(portfolio, gas)} of gas, plus pool fees"
    )


def format_money(portfolio: Portfolio, value: Value | None) -> str:
    """Format a value in whole coins of the numeraire."""
    numeraire = portfolio.numeraire
    return f"{value_text(value or Fraction(0), numeraire.decimals, 2)} {numeraire.label}"


VOLATILITY = Fraction(60, 100)
"""Annual volatility assumed of each asset against the rest of the portfolio."""
UNBANDED = Fraction(10, 100)
"""Drift assumed for a trigger without a band, as a fraction of the target; correcting a smaller
drift is not worth its cost.
"""
USUAL_PIPS = 3_000
"""Pool fee assumed without a known pool."""
YEAR_S = 365 * 86_400
MOST_COST_BPS, WIDEST = 500, Fraction(1, 2)
"""Largest suggested settings: a plan_cost of 5 %, and a band of half of the target."""
GWEI = 10**9


@dataclass(frozen=True, slots=True)
class AssetThreshold:
    """One asset: its label, its target in bps, and its distance from the target at a due
    correction, as a share of the portfolio.
    """

    symbol: str
    target_bps: int
    drift: Fraction


@dataclass(frozen=True, slots=True)
class MinimumTotalInputs:
    """Inputs of the minimum total: assets without the numeraire, its target, limits, fee, and gas
    price.

    `gas_price_wei` is in wei, `wei_value` the value of a wei in numeraire base units. `interval_s`
    is the shortest time between two reviews (None: every cycle). `bought` is true once the first
    purchase is done, `banded` false if no band was given, so that UNBANDED decides. `data_fee_wei`
    is the data fee of a swap on a rollup.
    """

    assets: tuple[AssetThreshold, ...]
    numeraire_bps: int
    plan_cost_bps: int
    min_trade: Value
    fee_pips: int
    gas_price_wei: int
    wei_value: Fraction
    interval_s: int | None = None
    bought: bool = False
    banded: bool = True
    data_fee_wei: int = 0


@dataclass(frozen=True, slots=True)
class MinimumTotal:
    """Minimum total in numeraire base units, rounded up; None if no total works because the fee
    alone exceeds plan_cost.

    `binding_limit` names the limit that decides it. `purchase` is the minimum of the first purchase
    alone (None: done). `a_year` is the expected number of corrections a year, `cost` the cost of
    one at the minimum total, `year_cost` the cost of a year.
    """

    total: Value | None
    binding_limit: str
    gas: Value
    a_year: Fraction
    cost: Value
    year_cost: Value
    purchase: Value | None = None


def compute_minimum_total(terms: MinimumTotalInputs) -> MinimumTotal:
    """Return the minimum total of these inputs."""
    swaps = max(1, len(terms.assets))
    units = swaps * LEG_GAS + APPROVAL_GAS
    gas = (units * terms.gas_price_wei + swaps * terms.data_fee_wei) * terms.wei_value
    leg = (LEG_GAS * terms.gas_price_wei + terms.data_fee_wei) * terms.wei_value
    room, fee = _room(terms), Fraction(terms.fee_pips, PIPS)
    thresholds = [asset for asset in terms.assets if asset.target_bps > 0]
    if room <= 0 or not thresholds:
        if thresholds:
            why = f"a pool fee of {_percent(fee)} is not below limits.plan_cost"
        else:
            why = "the numeraire is the only target"
        return MinimumTotal(None, why, gas, Fraction(0), Fraction(0), Fraction(0))
    first = min(thresholds, key=lambda one: (one.drift, one.symbol))
    low = min(thresholds, key=lambda one: (one.target_bps, one.symbol))
    smallest_bps = min(low.target_bps, terms.numeraire_bps or low.target_bps)
    edge = "its band" if terms.banded else f"a drift of {_percent(UNBANDED)} of its target"
    needs = {
        f"the gas of a correction of {first.symbol} at {edge}": gas / (first.drift * room),
        "the gas of the first purchase": gas / (Fraction(BPS - terms.numeraire_bps, BPS) * room),
        f"{GAS_MULTIPLE} times the gas of a swap for the smallest target": (
            leg * GAS_MULTIPLE * BPS / smallest_bps
        ),
        f"limits.min_trade for a correction of {first.symbol} at {edge}": (
            terms.min_trade / first.drift
        ),
        "limits.min_trade for the smallest target": terms.min_trade * BPS / smallest_bps,
    }
    if terms.bought:
        del needs["the gas of the first purchase"]
    bought = (
        "the gas of the first purchase",
        *(name for name in needs if "smallest target" in name),
    )
    binds = max(needs, key=lambda name: needs[name])
    total = Fraction(ceil_int(needs[binds]))
    a_year = max(_a_year(threshold) for threshold in thresholds)
    if terms.interval_s is not None:
        a_year = min(a_year, Fraction(YEAR_S, terms.interval_s))
    cost = gas + first.drift * total * fee
    if terms.bought:
        purchase = None
    else:
        purchase = Fraction(ceil_int(max(needs[name] for name in bought)))
    return MinimumTotal(total, binds, gas, a_year, cost, a_year * cost, purchase)


def corrections_a_year(terms: MinimumTotalInputs, total: Value) -> tuple[Fraction, Value] | None:
    """Return the expected number of corrections of this total a year, and their cost; None if it is
    below the minimum.
    """
    minimum_total = compute_minimum_total(terms)
    if minimum_total.total is None or total < minimum_total.total:
        return None
    cost = (
        minimum_total.gas + (minimum_total.cost - minimum_total.gas) * total / minimum_total.total
    )
    return minimum_total.a_year, minimum_total.a_year * cost


def format_year(terms: MinimumTotalInputs, total: Value, decimals: int, unit: str) -> str:
    """Format the trades and cost of a year with this total, or that it is not worth it."""
    at = f"at {_short(Fraction(terms.gas_price_wei, GWEI))} gwei"
    year = corrections_a_year(terms, total)
    if year is not None:
        cost = f"{format_coins(year[1], decimals)} {unit}"
        return f"about {_short(year[0])} trades and {cost} a year {at}"
    at = f"{at} and a pool fee of {_percent(Fraction(terms.fee_pips, PIPS))}"
    least = compute_minimum_total(terms).total
    if least is None:
        return f"not worth it here {at}, whatever the total"
    return f"not worth it here {at}, only from {format_coins(least, decimals)} {unit}"


def suggested_settings(terms: MinimumTotalInputs, total: Value) -> tuple[str, ...]:
    """Return the settings that would each make this total sufficient; empty if it already is."""
    minimum_total, room, fee = (
        compute_minimum_total(terms),
        _room(terms),
        Fraction(terms.fee_pips, PIPS),
    )
    if minimum_total.total is not None and total >= minimum_total.total:
        return ()
    thresholds = [asset for asset in terms.assets if asset.target_bps > 0]
    if not thresholds or total <= 0:
        return ()
    first, ways = min(thresholds, key=lambda one: (one.drift, one.symbol)), []
    if room > 0:
        wide = (
            max(minimum_total.gas / (total * room), terms.min_trade / total)
            * BPS
            / first.target_bps
        )
        if first.drift * BPS / first.target_bps < wide <= WIDEST:
            ways.append(f"a band of {ceil_int(wide * 100)}% of the target")
    need_bps = ceil_int((fee + minimum_total.gas / (total * first.drift)) * BPS)
    if terms.plan_cost_bps < need_bps <= MOST_COST_BPS and first.drift * total >= terms.min_trade:
        ways.append(f'limits.plan_cost = "{need_bps}bps", which costs more each time')
    ways.append("a zone as trigger, which trades only if that saves more than it costs")
    if minimum_total.total is not None and "gas" in minimum_total.binding_limit:
        below = Fraction(terms.gas_price_wei, GWEI) * total / minimum_total.total
        ways.append(f"a chain, or an hour, with gas below {_short(below)} gwei")
    return tuple(ways)


def minimum_total_inputs(step: StepInput, references: ReferencePrices) -> MinimumTotalInputs | None:
    """Return the inputs of a running agent; None if plan_cost is off or gas has no price."""
    native = references.prices.get(step.portfolio.wrapped_native)
    if step.limits.plan_cost_bps is None or native is None:
        return None
    snapshot, home = step.snapshot, step.portfolio.numeraire.address
    base_wei = snapshot.head.base_fee_wei
    if base_wei is None:
        price_wei = snapshot.gas_price_wei
    else:
        price_wei = base_wei + snapshot.priority_fee_wei
    weighed = tuple(
        AssetThreshold(
            effective_asset.token.label,
            effective_asset.target_bps,
            correction_drift(
                step.policy.trigger,
                effective_asset.target_bps,
                band(step.policy.trigger, effective_asset.target_bps, effective_asset.band),
            ),
        )
        for effective_asset in step.effective_assets
        if effective_asset.token.address != home
    )
    fees = [
        _cheapest(snapshot.pools, asset.token.address)
        for asset in step.effective_assets
        if asset.token.address != home and asset.target_bps
    ]
    return MinimumTotalInputs(
        weighed,
        next(
            (asset.target_bps for asset in step.effective_assets if asset.token.address == home), 0
        ),
        step.limits.plan_cost_bps,
        step.limits.min_trade or Fraction(0),
        max((fee for fee in fees if fee is not None), default=USUAL_PIPS),
        price_wei,
        native.price,
        review_interval_s(step.policy.trigger),
        step.history.reviews.last_rebalance_s is not None,
        data_fee_wei=snapshot.data_fee_wei(LEG_GAS, 2 * LEG_BYTES),
    )


def correction_drift(
    trigger: Trigger | None, target_bps: int, edges: tuple[Fraction, Fraction]
) -> Fraction:
    """Return an asset's distance from target when a correction is due, as a share of the
    portfolio.
    """
    width = min(target_bps - edges[0], edges[1] - target_bps)
    banded = trigger is not None and width > 0 and edges != (Fraction(0), Fraction(BPS))
    if banded:
        return width / BPS
    return UNBANDED * target_bps / BPS


def format_minimum_total(terms: MinimumTotalInputs, total: Value, decimals: int, unit: str) -> str:
    """Format the minimum total, its annual cost, and the effect of a lower total;
    `suggested_settings` returns the remedies.
    """
    minimum_total, gwei = compute_minimum_total(terms), _short(Fraction(terms.gas_price_wei, GWEI))
    if minimum_total.total is None:
        return (
            f"No total works: {minimum_total.binding_limit} of {terms.plan_cost_bps} bps. Raise"
            " limits.plan_cost, or add a cheaper pool."
        )

    def money(value: Value) -> str:
        return f"{format_coins(value, decimals)} {unit}"

    often = (
        f"About {_short(minimum_total.a_year)} corrections a year (assumed volatility"
        f" {_percent(VOLATILITY)}) then cost {money(minimum_total.year_cost)}"
    )
    fee, coin = Fraction(terms.fee_pips, PIPS), terms.wei_value * 10**18
    whole = (
        f"Minimum total at {gwei} gwei: {money(minimum_total.total)}, for {minimum_total.binding_limit} (pool fee"
        f" {_percent(fee)}, native coin at {money(coin)}). {often}"
    )
    if total >= minimum_total.total:
        return f"{whole}."
    if minimum_total.purchase is None:
        waits = "corrections wait"
    elif total >= minimum_total.purchase:
        waits = "the first purchase is made, but corrections wait"
    else:
        waits = f"the first purchase, worth its cost from {money(minimum_total.purchase)}, and corrections wait"
    return f"{whole}. {money(total)} is less: {waits} until they are worth their cost."


def format_coins(value: Value, decimals: int) -> str:
    """Format base units as coins: without decimal places from 100 coins on, below that with two
    places, or with more for two significant figures.
    """
    whole, places = value / 10**decimals, 0
    if whole < 100:
        places = 2
        while 0 < whole * 10**places < 10 and places < decimals:
            places += 1
    return f"{Decimal(value_text(value, decimals, places)):,f}"


def _room(terms: MinimumTotalInputs) -> Fraction:
    return Fraction(terms.plan_cost_bps, BPS) - Fraction(terms.fee_pips, PIPS)


def _a_year(one: AssetThreshold) -> Fraction:
    weight = Fraction(one.target_bps, BPS)
    if one.drift:
        return (weight * (1 - weight) * VOLATILITY / one.drift) ** 2
    return Fraction(0)


def _cheapest(pools: Sequence[Pool], token: str) -> int | None:
    return min(
        (pool.fee_pips for pool in pools if token in (pool.token0, pool.token1)), default=None
    )


def _percent(share: Fraction) -> str:
    return f"{value_text(share * 100, 0, 2)} %"


def _short(number: Fraction) -> str:
    if number >= 20:
        return value_text(number, 0, 0)
    return value_text(number, 0, 1 if number >= 1 else 3)
