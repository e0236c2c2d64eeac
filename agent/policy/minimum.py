"""Minimum portfolio value at which targets, bands, pools and gas are economical, its annual cost,
and the setting to change. A correction of the share b of the portfolio V moves b·V and costs gas G
and the pool fee f of the moved value. It stays within limits.plan_cost c if V ≥ G / (b·(c - f)).
For the first purchase, b is 1 less the numeraire's target. Impact is neglected, because it is small
at the minimum. Frequency of corrections: a weight w with annual volatility s against the rest moves
by w·(1 - w)·s a year. It leaves ±b after (b / (w·(1 - w)·s))² years on average, the mean exit time
of a driftless Brownian motion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
    action_interval_s,
    is_tracking,
)
from agent.policy.drift import band, investable_total
from agent.reference import ReferencePrices
from agent.units import (
    BPS,
    GWEI,
    PIPS,
    YEAR_S,
    Price,
    Value,
    ceil_int,
    format_gwei,
    format_percent,
    shown_price_text,
    value_text,
)

MIN_ASSETS = 2
MANY_ASSETS = 12
"""Number of assets above which every step warns; more are still possible."""
MANAGEABLE_ASSETS = 6
"""Number of assets above which the setup of a portfolio warns."""
LEG_GAS = 150_000
"""Gas units of one swap in a multicall, rounded; plans have their own estimate."""
APPROVAL_GAS = 46_000
"""Gas units of one approval of a plain ERC-20 token, from an allowance of zero."""
LEG_BYTES = 512
ACTION_BYTES = 1_024
APPROVAL_BYTES = 68
"""Largest calldata of one leg of a swap, of a liquidity action or futures order, and of an
approval.
"""
GAS_MULTIPLE = 20
"""Least value of a leg as a multiple of its gas."""


def smallest_total(targets_bps: Iterable[int], leg_value: Value) -> Value:
    """Return the smallest investable total at which every target is worth `leg_value`, in its unit."""
    return leg_value * BPS / min(target_bps for target_bps in targets_bps if target_bps > 0)


def leg_gas_value(snapshot: Snapshot, native_price: Price, gas_units: int = LEG_GAS) -> Value:
    """Return the gas cost of one leg now, or of `gas_units`; `native_price` is numeraire base units
    per wei.
    """
    data_fee_wei = _leg_data_fee_wei(snapshot, gas_units)
    return Fraction(gas_units * snapshot.current_gas_price_wei + data_fee_wei) * native_price


def _leg_data_fee_wei(snapshot: Snapshot, gas_units: int) -> int:
    return snapshot.expected_fee_beyond_gas_wei(gas_units, LEG_BYTES)


def size_warnings(portfolio: Portfolio) -> tuple[str, ...]:
    """Return warnings on the portfolio's size; they never refuse a step."""
    return tuple(asset_count_warnings(len(portfolio.assets), MANY_ASSETS))


def asset_count_warnings(count: int, max_count: int = MANAGEABLE_ASSETS) -> list[str]:
    """Return a warning if `count` assets are more than `max_count` (R1.1)."""
    if count <= max_count:
        return []
    count_text = (
        f"{count} assets are more than {MANY_ASSETS}" if count > MANY_ASSETS else f"{count} assets"
    )
    return [f"{count_text}: 4 to 6 are easier to manage and cheaper to rebalance"]


def too_small_reason(
    portfolio: Portfolio, limits: Limits, assets: Sequence[Asset], drifts: Sequence[AssetDrift]
) -> str:
    """Return why the total is too small to invest; empty if it is not (R1.5)."""
    total_value = investable_total(drifts)
    if total_value == 0:
        has_balance = any(drift.raw > 0 for drift in drifts)
        if has_balance:
            return "all balances are reserved; nothing can be invested"
        return "the wallet holds none of the portfolio's assets"
    if limits.min_trade is None:
        return ""
    least_total = smallest_total((asset.target_bps for asset in assets), limits.min_trade)
    if total_value >= least_total:
        return ""
    return (
        f"with an investable total of {portfolio.numeraire.money_text(total_value)} the smallest target is "
        f"below min_trade {portfolio.numeraire.money_text(limits.min_trade)}; at least"
        f" {portfolio.numeraire.money_text(least_total)} is needed"
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
    native_price = references.reference_by_token.get(step.portfolio.wrapped_native)
    if native_price is None or step.limits.min_trade is None:
        return ""
    least_leg_value = leg_gas_value(step.snapshot, native_price.price) * GAS_MULTIPLE
    targets_bps = (asset.target_bps for asset in step.effective_assets)
    least_total = smallest_total(targets_bps, least_leg_value)
    if investable_total(drifts) >= least_total:
        return ""
    needs_text = f"which needs a total of {step.portfolio.numeraire.money_text(least_total)}"
    return (
        f"gas is too expensive now: {GAS_MULTIPLE} times that of a swap is"
        f" {step.portfolio.numeraire.money_text(least_leg_value)}, {needs_text}"
    )


def too_small_to_trade_reason(portfolio: Portfolio, limits: Limits, value_to_move: Value) -> str:
    """Return why a correction of this value is not traded: each asset's part is below min_trade."""
    return (
        f"too small to trade: of {portfolio.numeraire.money_text(value_to_move)} to move, each asset's part is below"
        f" limits.min_trade of {portfolio.numeraire.money_text(limits.min_trade or Fraction(0))}"
    )


def not_worth_reason(
    snapshot: Snapshot,
    portfolio: Portfolio,
    limits: Limits,
    references: ReferencePrices,
    value_to_move: Value,
) -> str:
    """Return why a correction of this value is not worth trading: its cost in numbers, and the
    limit that decides.
    """
    limit_bps = limits.plan_cost_bps
    native_price = references.reference_by_token.get(portfolio.wrapped_native)
    if limit_bps is None or native_price is None:
        return too_small_to_trade_reason(portfolio, limits, value_to_move)
    gas_value = leg_gas_value(snapshot, native_price.price)
    max_cost = value_to_move * Fraction(limit_bps, BPS)
    return (
        f"not worth its cost: limits.plan_cost ({limit_bps} bps) allows at most"
        f" {portfolio.numeraire.money_text(max_cost)} for moving {portfolio.numeraire.money_text(value_to_move)}; one swap costs about"
        f" {portfolio.numeraire.money_text(gas_value)} of gas, plus pool fees"
    )


ASSUMED_VOLATILITY = Fraction(60, 100)
"""Annual volatility assumed of each asset against the rest of the portfolio."""
DRIFT_WITHOUT_BAND = Fraction(10, 100)
"""Drift assumed for a trigger without a band, as a fraction of the target; correcting a smaller
drift is not worth its cost.
"""
TRACKING_DRIFT = Fraction(1, 2)
"""Widest trigger of the tracking rule, as a fraction of the target; with little money it waits that
long.
"""
ASSUMED_FEE_PIPS = 3_000
"""Pool fee assumed without a known pool."""
MAX_SUGGESTED_COST_BPS = 500
MAX_SUGGESTED_BAND = Fraction(1, 2)
"""Largest suggested settings: a plan_cost of 5 %, and a band of half of the target."""


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
    is the shortest time between two reviews (None: every cycle). `is_first_purchase_done` is true
    once the first purchase is done, `has_band` false if no band was given, so that an assumed drift
    decides; `is_tracking` is true under the tracking rule. `data_fee_wei` is the data fee of a swap
    on a rollup, `leg_data_fee_wei` that of one leg of it (None: the same). `min_trade` is zero if
    it is off.
    """

    assets: tuple[AssetThreshold, ...]
    numeraire_bps: int
    plan_cost_bps: int
    min_trade: Value
    fee_pips: int
    gas_price_wei: int
    wei_value: Fraction
    interval_s: int | None = None
    is_first_purchase_done: bool = False
    has_band: bool = True
    data_fee_wei: int = 0
    is_tracking: bool = False
    leg_data_fee_wei: int | None = None

    @property
    def corrected_assets(self) -> list[AssetThreshold]:
        """The assets that have a target."""
        return [asset for asset in self.assets if asset.target_bps > 0]


@dataclass(frozen=True, slots=True)
class MinimumTotal:
    """Minimum total in numeraire base units, rounded up; None if no total works because the fee
    alone exceeds plan_cost, or if no asset is corrected.

    `binding_limit` names the limit that decides it, `is_gas_bound` is true if that is one of gas.
    `purchase_total` is the minimum of the first purchase alone (None: done). `corrections_per_year`
    is the expected number of corrections a year, `yearly_cost` the cost of a year.
    """

    total: Value | None
    binding_limit: str
    gas_cost: Value
    corrections_per_year: Fraction
    yearly_cost: Value
    purchase_total: Value | None = None
    is_gas_bound: bool = False


@dataclass(frozen=True, slots=True)
class _Bound:
    """A limit and the total from which it is kept; `is_of_purchase` if the first purchase has to."""

    limit: str
    total: Fraction
    is_gas: bool = False
    is_of_purchase: bool = False


def compute_minimum_total(inputs: MinimumTotalInputs) -> MinimumTotal:
    """Return the minimum total of these inputs."""
    swap_count = max(1, len(inputs.assets))
    gas_units = swap_count * LEG_GAS + APPROVAL_GAS
    gas_value = (
        gas_units * inputs.gas_price_wei + swap_count * inputs.data_fee_wei
    ) * inputs.wei_value
    leg_data_fee_wei = inputs.leg_data_fee_wei
    if leg_data_fee_wei is None:
        leg_data_fee_wei = inputs.data_fee_wei
    leg_gas_cost = (LEG_GAS * inputs.gas_price_wei + leg_data_fee_wei) * inputs.wei_value
    cost_after_fee = _cost_less_fee(inputs)
    fee_rate = Fraction(inputs.fee_pips, PIPS)
    assets = inputs.corrected_assets
    if cost_after_fee <= 0 or not assets:
        reason = "no asset but the numeraire has a target"
        if assets:
            reason = f"pool fees of {format_percent(fee_rate)} are not below limits.plan_cost"
        return MinimumTotal(None, reason, gas_value, Fraction(0), Fraction(0))
    tightest_asset = min(assets, key=lambda asset: (asset.drift, asset.symbol))
    smallest_target_asset = min(assets, key=lambda asset: (asset.target_bps, asset.symbol))
    smallest_target_bps = min(
        smallest_target_asset.target_bps, inputs.numeraire_bps or smallest_target_asset.target_bps
    )
    edge_text = (
        "its band"
        if inputs.has_band
        else f"a drift of {format_percent(tightest_asset.drift * BPS / tightest_asset.target_bps)} of its target"
    )
    bounds = [
        _Bound(
            f"the gas of a correction of {tightest_asset.symbol} at {edge_text}",
            gas_value / (tightest_asset.drift * cost_after_fee),
            is_gas=True,
        ),
        _Bound(
            f"limits.min_trade for a correction of {tightest_asset.symbol} at {edge_text}",
            inputs.min_trade / tightest_asset.drift,
        ),
        _Bound(
            "limits.min_trade for the smallest target",
            inputs.min_trade * BPS / smallest_target_bps,
            is_of_purchase=True,
        ),
    ]
    if not inputs.is_first_purchase_done:
        purchase_bound = _Bound(
            "the gas of the first purchase",
            gas_value / (Fraction(BPS - inputs.numeraire_bps, BPS) * cost_after_fee),
            is_gas=True,
            is_of_purchase=True,
        )
        bounds.insert(1, purchase_bound)
    if inputs.min_trade:  # without it gas_too_high_reason is off
        multiple_bound = _Bound(
            f"{GAS_MULTIPLE} times the gas of a swap for the smallest target",
            leg_gas_cost * GAS_MULTIPLE * BPS / smallest_target_bps,
            is_gas=True,
            is_of_purchase=True,
        )
        bounds.append(multiple_bound)
    binding_bound = max(bounds, key=lambda bound: bound.total)
    total = Fraction(ceil_int(binding_bound.total))
    yearly_corrections = max(_corrections_per_year(threshold) for threshold in assets)
    if inputs.interval_s is not None:
        yearly_corrections = min(yearly_corrections, Fraction(YEAR_S, inputs.interval_s))
    correction_cost = gas_value + tightest_asset.drift * total * fee_rate
    if inputs.is_first_purchase_done:
        purchase_total = None
    else:
        purchase_total = Fraction(
            ceil_int(max(bound.total for bound in bounds if bound.is_of_purchase))
        )
    return MinimumTotal(
        total,
        binding_bound.limit,
        gas_value,
        yearly_corrections,
        yearly_corrections * correction_cost,
        purchase_total,
        binding_bound.is_gas,
    )


def suggested_settings(inputs: MinimumTotalInputs, total: Value) -> tuple[str, ...]:
    """Return the settings that would each make this total sufficient; empty if it already is, or if
    none would.
    """
    minimum_total = compute_minimum_total(inputs)
    if total <= 0 or not inputs.corrected_assets or _is_enough(minimum_total, total):
        return ()
    return tuple(
        setting
        for setting, changed_inputs in _possible_settings(inputs, minimum_total, total)
        if _is_enough(compute_minimum_total(changed_inputs), total)
    )


def _is_enough(minimum_total: MinimumTotal, total: Value) -> bool:
    return minimum_total.total is not None and total >= minimum_total.total


def _possible_settings(
    inputs: MinimumTotalInputs, minimum_total: MinimumTotal, total: Value
) -> Iterator[tuple[str, MinimumTotalInputs]]:
    """Yield settings that lower the limit of a correction, or that of gas, to this total, and the
    inputs with each.
    """
    tightest_asset = min(inputs.corrected_assets, key=lambda asset: (asset.drift, asset.symbol))
    gas_rate = minimum_total.gas_cost / total
    if (cost_after_fee := _cost_less_fee(inputs)) > 0:
        least_drift = max(gas_rate / cost_after_fee, inputs.min_trade / total)
        relative_band = least_drift * BPS / tightest_asset.target_bps
        if least_drift > tightest_asset.drift and relative_band <= MAX_SUGGESTED_BAND:
            band_percent = ceil_int(relative_band * 100)
            wide_inputs = _with_relative_drift(inputs, Fraction(band_percent, 100))
            yield f"a band of {band_percent} % of the target", wide_inputs
    needed_cost_bps = ceil_int(
        (Fraction(inputs.fee_pips, PIPS) + gas_rate / tightest_asset.drift) * BPS
    )
    if inputs.plan_cost_bps < needed_cost_bps <= MAX_SUGGESTED_COST_BPS:
        cost_text = f'limits.plan_cost = "{needed_cost_bps}bps", which costs more each time'
        yield cost_text, replace(inputs, plan_cost_bps=needed_cost_bps)
    if not inputs.is_tracking:
        tracking_text = "tracking as trigger, which waits until a trade saves more than it costs"
        yield tracking_text, _with_relative_drift(inputs, TRACKING_DRIFT)
    if minimum_total.total is not None and minimum_total.is_gas_bound:
        free_inputs = replace(inputs, gas_price_wei=0, min_trade=Fraction(0))
        free_total = compute_minimum_total(free_inputs).total or Fraction(0)  # of data fees
        gas_share = max(total - free_total, Fraction(0)) / (minimum_total.total - free_total or 1)
        digits = str(int(inputs.gas_price_wei * gas_share))
        gas_price_wei = int(digits[:3].ljust(len(digits), "0"))
        if gas_price_wei > 0:
            gas_text = f"a chain, or an hour, with gas below {format_gwei(gas_price_wei)}"
            yield gas_text, replace(inputs, gas_price_wei=gas_price_wei)


def _with_relative_drift(inputs: MinimumTotalInputs, drift: Fraction) -> MinimumTotalInputs:
    assets = (replace(asset, drift=drift * asset.target_bps / BPS) for asset in inputs.assets)
    return replace(inputs, assets=tuple(assets))


def minimum_total_inputs(
    step: StepInput, references: ReferencePrices, fee_pips: int | None
) -> MinimumTotalInputs | None:
    """Return the inputs of a running agent, with the fee of its dearest route (None: unknown); None
    if plan_cost is off or gas has no price.
    """
    native_price = references.reference_by_token.get(step.portfolio.wrapped_native)
    if step.limits.plan_cost_bps is None or native_price is None:
        return None
    snapshot = step.snapshot
    numeraire = step.portfolio.numeraire.address
    asset_thresholds = tuple(
        AssetThreshold(
            asset.token.label,
            asset.target_bps,
            correction_drift(
                step.policy.trigger,
                asset.target_bps,
                band(step.policy.trigger, asset.target_bps, asset.band),
            ),
        )
        for asset in step.effective_assets
        if asset.token.address != numeraire
    )
    return MinimumTotalInputs(
        asset_thresholds,
        next(
            (
                asset.target_bps
                for asset in step.effective_assets
                if asset.token.address == numeraire
            ),
            0,
        ),
        step.limits.plan_cost_bps,
        step.limits.min_trade or Fraction(0),
        ASSUMED_FEE_PIPS if fee_pips is None else fee_pips,
        snapshot.current_gas_price_wei,
        native_price.price,
        action_interval_s(step.policy.trigger),
        step.history.reviews.last_rebalance_s is not None,
        has_band=not is_tracking(step.policy.trigger),
        data_fee_wei=snapshot.expected_fee_beyond_gas_wei(LEG_GAS, 2 * LEG_BYTES),
        is_tracking=is_tracking(step.policy.trigger),
        leg_data_fee_wei=_leg_data_fee_wei(snapshot, LEG_GAS),
    )


def correction_drift(
    trigger: Trigger | None, target_bps: int, band_edges_bps: tuple[Fraction, Fraction]
) -> Fraction:
    """Return an asset's distance from target when a correction is due, as a share of the
    portfolio.
    """
    if is_tracking(trigger):
        return TRACKING_DRIFT * target_bps / BPS
    width_bps = min(target_bps - band_edges_bps[0], band_edges_bps[1] - target_bps)
    has_band = (
        trigger is not None and width_bps > 0 and band_edges_bps != (Fraction(0), Fraction(BPS))
    )
    if has_band:
        return width_bps / BPS
    return DRIFT_WITHOUT_BAND * target_bps / BPS


def format_minimum_total(
    inputs: MinimumTotalInputs, total: Value, decimals: int, label: str
) -> str:
    """Format the minimum total, its annual cost, and the effect of a lower total;
    `suggested_settings` returns the remedies.
    """
    minimum_total = compute_minimum_total(inputs)
    gwei_text = number_text(Fraction(inputs.gas_price_wei, GWEI))
    if not inputs.corrected_assets:
        return f"No minimum total applies: {minimum_total.binding_limit}."
    if minimum_total.total is None:
        return (
            f"No total works: {minimum_total.binding_limit} of {inputs.plan_cost_bps} bps. Raise"
            " limits.plan_cost, or add a cheaper pool."
        )

    def money(value: Value) -> str:
        return f"{format_coins(value, decimals)} {label}"

    corrections_text = (
        f"About {number_text(minimum_total.corrections_per_year)} corrections a year of a single asset (assumed"
        f" volatility {format_percent(ASSUMED_VOLATILITY)}) then cost {money(minimum_total.yearly_cost)}"
    )
    fee_rate = Fraction(inputs.fee_pips, PIPS)
    coin_price_text = shown_price_text(inputs.wei_value, 18, decimals)
    minimum_text = (
        f"Minimum total at {gwei_text} gwei: {money(minimum_total.total)}, for {minimum_total.binding_limit} (pool fees"
        f" {format_percent(fee_rate)}, native coin at {coin_price_text} {label}). {corrections_text}"
    )
    if total >= minimum_total.total:
        return f"{minimum_text}."
    if minimum_total.purchase_total is None:
        waiting_text = "corrections wait"
    elif total >= minimum_total.purchase_total:
        waiting_text = "the first purchase is made, but corrections wait"
    else:
        waiting_text = f"the first purchase, worth its cost from {money(minimum_total.purchase_total)}, and corrections wait"
    return (
        f"{minimum_text}. {money(total)} is less: {waiting_text} until they are worth their cost."
    )


def format_coins(value: Value, decimals: int) -> str:
    """Format base units as coins: without decimal places from 100 coins on, below that with two
    places, or with more for two significant figures.
    """
    coins = value / 10**decimals
    decimal_places = 0
    if coins < 100:
        decimal_places = 2
        while 0 < coins * 10**decimal_places < 10 and decimal_places < decimals:
            decimal_places += 1
    return f"{Decimal(value_text(value, decimals, decimal_places)):,f}"


def _cost_less_fee(inputs: MinimumTotalInputs) -> Fraction:
    return Fraction(inputs.plan_cost_bps, BPS) - Fraction(inputs.fee_pips, PIPS)


def _corrections_per_year(asset: AssetThreshold) -> Fraction:
    weight = Fraction(asset.target_bps, BPS)
    if asset.drift:
        return (weight * (1 - weight) * ASSUMED_VOLATILITY / asset.drift) ** 2
    return Fraction(0)


def lowest_fee_pips(pools: Iterable[Pool], token: str) -> int | None:
    """Return the lowest fee of a swap in a pool of the token; None without a pool."""
    return min(
        (
            pool.fee_for(token_in)
            for pool in pools
            for token_in in (pool.token0, pool.token1)
            if token in (pool.token0, pool.token1)
        ),
        default=None,
    )


def number_text(number: Fraction) -> str:
    """Format a number with one decimal, from 20 on with none, below one with three."""
    if number >= 20:
        return value_text(number, 0, 0)
    return value_text(number, 0, 1 if number >= 1 else 3)
