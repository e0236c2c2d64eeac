"""Results of a simulation: rebalancing premium, paths, tax years, delisted holdings, funding.

The rebalancing premium is portfolio growth beyond buy and hold. Returns are logarithms of growth,
so that they add up over bars. Let x be the log return of each asset over all bars, w the initial
weights. For one bar, with weights p held over it and growths r of the assets, ln(Σ p r) − Σ p ln r
is the growth of a portfolio beyond the mean of its assets, never negative (Jensen). In continuous
time it is the excess growth rate of Fernholz & Shay (1982), "Stochastic portfolio theory and stock
market equilibrium", and Fernholz (2002), "Stochastic Portfolio Theory", (1.1.20):
½ (Σ wᵢ σᵢᵢ − Σ wᵢ wⱼ σᵢⱼ). Buy and hold has the corresponding term over all bars at once,
ln(Σ w eˣ) − Σ w x: winners gain weight. The excess return of rebalancing is therefore exactly

advantage = excess_growth + off_target − dispersion − costs
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from agent.accounting.performance import calendar_periods, year_start_s
from agent.accounting.tax_lots import TaxLotRun, run_tax_lots
from agent.backtest.data import prices_in_numeraire
from agent.backtest.funding import (
    FundingRateSeries,
    FundingSummary,
    funding_carry,
    funding_digest,
    funding_notes,
    within_bars_mask,
)
from agent.backtest.futures.simulate import FuturesResult
from agent.backtest.loss.backtests import BacktestLoss
from agent.backtest.settings import AppliedTransfer, HealthRecord, TaxRule
from agent.backtest.world import SimulatedWorld, TransactionCost
from agent.errors import ConfigError
from agent.floats import FloatArray
from agent.model import AssetDrift, Portfolio, TaxInputs
from agent.store import Store
from agent.units import (
    BPS,
    NATIVE,
    YEAR_S,
    Price,
    Token,
    Value,
    minute_text,
    shown_price_text,
    value_text,
)

WEIGHT_TOLERANCE = 1e-9
"""Tolerance of the sum of weights, for float errors."""


@dataclass(frozen=True, slots=True)
class RebalancingPremium:
    """Parts of the premium, as log growth over the whole period; the last two per year of 365 days.

    `advantage` is the growth after costs less that of holding. `excess_growth` is the gain from
    rebalancing winners into losers, bar by bar; `off_target` the gain (or loss) from weights other
    than the initial ones; `dispersion` the gain of holding as winners grow; `costs` the cost of
    trading. `excess_growth_yearly` is `excess_growth` per year, `expected_yearly` the formula's
    value for the initial weights and the covariance of the prices.
    """

    advantage: float
    excess_growth: float
    off_target: float
    dispersion: float
    costs: float
    excess_growth_yearly: float
    expected_yearly: float


def rebalancing_premium(
    prices: FloatArray,
    weights: FloatArray,
    cost_shares: FloatArray,
    times_s: NDArray[np.int64],
    start_weights: FloatArray | None = None,
) -> RebalancingPremium:
    """Compute the premium from `prices[bar, asset]` in one unit and `weights[bar, asset]` after the
    trades of each bar.

    `cost_shares[bar]` are the costs of those trades as shares of the holdings before them; times
    are Unix seconds. `start_weights` are the weights before the trades of the first bar, which buy
    and hold keeps; None without such trades. Transfers have no effect. Raises ConfigError for
    mismatched tables, prices that are not positive, weights that do not sum to one, and costs of
    100 % or more.
    """
    _require_premium_inputs(prices, weights, cost_shares, times_s)
    if start_weights is not None and not (
        start_weights.shape == weights[0].shape and abs(start_weights.sum() - 1) <= WEIGHT_TOLERANCE
    ):
        raise ConfigError(
            "rebalancing premium: the initial weights do not sum to one",
            "give the share of every holding",
        )
    log_returns = np.diff(np.log(prices), axis=0)
    bar_weights = weights[:-1]
    hold_weights = weights[0]
    if start_weights is not None:
        hold_weights = start_weights
    log_growths = np.log((bar_weights * np.exp(log_returns)).sum(axis=1))
    excess_growth = float((log_growths - (bar_weights * log_returns).sum(axis=1)).sum())
    off_target = float(((bar_weights - hold_weights) * log_returns).sum())
    total_log_returns = log_returns.sum(axis=0)
    largest_log_return = total_log_returns.max()
    hold_log_growth = float(
        np.log(hold_weights @ np.exp(total_log_returns - largest_log_return)) + largest_log_return
    )
    dispersion = hold_log_growth - float(hold_weights @ total_log_returns)
    log_costs = float(-np.log1p(-cost_shares).sum())
    years = (int(times_s[-1]) - int(times_s[0])) / YEAR_S
    return RebalancingPremium(
        advantage=float(log_growths.sum()) - log_costs - hold_log_growth,
        excess_growth=excess_growth,
        off_target=off_target,
        dispersion=dispersion,
        costs=log_costs,
        excess_growth_yearly=excess_growth / years,
        expected_yearly=excess_growth_rate(hold_weights, _covariance(log_returns))
        * len(log_returns)
        / years,
    )


def excess_growth_rate(weights: FloatArray, covariance: FloatArray) -> float:
    """Return ½ (Σ wᵢ σᵢᵢ − Σ wᵢ wⱼ σᵢⱼ) of log returns, per the time unit of the covariance:
    Fernholz (2002), (1.1.20).
    """
    return float(weights @ np.diag(covariance) - weights @ covariance @ weights) / 2


def _covariance(log_returns: FloatArray) -> FloatArray:
    """Return the covariance per bar; zero for a single bar."""
    if len(log_returns) < 2:
        return np.zeros((log_returns.shape[1], log_returns.shape[1]))
    covariance: FloatArray = np.atleast_2d(np.cov(log_returns, rowvar=False))
    return covariance


def _require_premium_inputs(
    prices: FloatArray, weights: FloatArray, cost_shares: FloatArray, times_s: NDArray[np.int64]
) -> None:
    bar_count = len(times_s)
    if (
        bar_count < 2
        or prices.ndim != 2
        or weights.shape != prices.shape
        or len(prices) != bar_count
        or cost_shares.shape != (bar_count,)
    ):
        raise ConfigError(
            f"rebalancing premium: {prices.shape} prices, {weights.shape} weights and {cost_shares.shape} costs"
            f" for {bar_count} bars",
            "give at least two bars, with a row of each",
        )
    if not (np.isfinite(prices).all() and (prices > 0).all()):
        raise ConfigError(
            "rebalancing premium: prices must be above zero",
            "fill missing prices with the previous price",
        )
    if not (np.abs(weights.sum(axis=1) - 1) <= WEIGHT_TOLERANCE).all():
        raise ConfigError(
            "rebalancing premium: weights do not sum to one", "give the share of every holding"
        )
    if not ((cost_shares < 1).all() and np.isfinite(cost_shares).all()):
        raise ConfigError(
            "rebalancing premium: costs reach 100 %", "give them as shares of the holdings"
        )


@dataclass(frozen=True, slots=True)
class YearGain:
    """Gains less losses realised in a calendar year (UTC), from the simulation's ledger, numeraire
    base units, without gas.
    """

    year: int
    realised: Value


@dataclass(frozen=True, slots=True)
class DelistedHolding:
    """A holding without a current price, `balance_raw` base units of `decimals`.

    `price` is the last price, at `priced_at_s`, in numeraire base units per base unit. `share` is
    the holding's share of the final value; None if that is zero.
    """

    symbol: str
    decimals: int
    balance_raw: int
    price: Price
    priced_at_s: int
    value: Value
    share: Fraction | None


@dataclass(frozen=True, slots=True)
class PortfolioPaths:
    """One value or row for each bar, money in whole coins of the numeraire; columns are the
    portfolio's assets. `units` are whole coins of each in the wallet.
    """

    equity: FloatArray
    hold_equity: FloatArray
    weights: FloatArray
    units: FloatArray
    prices: FloatArray
    targets: FloatArray
    bands: FloatArray


@dataclass(frozen=True, slots=True)
class SimulationResult(PortfolioPaths):
    """Result of a simulation. Values in numeraire base units; paths are floats in whole coins, one
    per bar.

    - `equity` is after all gas; `hold_equity` is buy and hold of the first bar's holdings, with
      equal deposits and withdrawals.
    - `weights`, `targets` and `bands` (lower and upper edge) are shares, `prices` the closes of
      `symbols`; missing values are NaN. `units` are the whole coins of each in the wallet.
    - `rebalances` are the costs of the swaps, each with the gas of the transactions since the swap
      before it; `gas_costs` is the gas of every transaction with its time.
    - `turnover_ratio` is the sum over rebalances of half the traded value divided by the total
      value.
    - `evaluated_bar_count` counts bars evaluated by a whole step, `halted_bar_count` those without
      a decision, for reasons in `notes`, `refusal_counts` those with a refused plan, by reason.
      `holds_by_setting` counts, by setting, bars at which a trade was due or a weight outside its
      band, but the step held.
    - `delisted_holdings` are delisted holdings at their last price, described in `notes`.
    - `twr` and `hold_twr` are time-weighted returns of the whole period, not annualised.
    - `yearly_gains` are by lot rule `lot_rule`, and with a tax rate `dated_gains` the gain less
      loss of each disposal with its time. `premium` is None with futures, or if gas consumed
      everything.
    - `policy_json` is canonical JSON of the spec's policy.
    - `futures_weights` are (bar, weights by market) from each bar at which signals or strategies
      changed the futures weights: signed shares of the target notional.
    - `futures` has the futures traded by the same steps, None without futures. The margin account
      counts in `equity`, in the weight of its collateral and in every value; in `hold_equity` it
      counts as idle collateral.
    - `health_changes` has the changes of the strategies' health, `final_health` the final state of
      each.
    - `loss` is what the picture of its loss by costs and drift is drawn from.
    - `funding` is the funding that shorts of the holdings would have received; no other figure
      includes it. None without rates.
    """

    symbols: tuple[str, ...]
    numeraire: str
    decimals: int
    times_s: NDArray[np.int64]
    rebalances: tuple[TransactionCost, ...]
    final_value: Value
    hold_value: Value
    start_value: Value
    turnover_ratio: Fraction
    fees: Value
    impact: Value
    gas: Value
    balances: tuple[tuple[str, int], ...]
    bar_count: int
    evaluated_bar_count: int
    halted_bar_count: int
    refusal_counts: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]
    config_hash: str
    data_hash: str
    seed: int
    versions: tuple[tuple[str, str], ...]
    gas_costs: tuple[tuple[int, Value], ...] = ()
    holds_by_setting: tuple[tuple[str, int], ...] = ()
    transfers: tuple[AppliedTransfer, ...] = ()
    twr: float = 0.0
    hold_twr: float = 0.0
    lot_rule: str = "fifo"
    yearly_gains: tuple[YearGain, ...] = ()
    dated_gains: tuple[tuple[int, Value], ...] = ()
    futures_yearly_gains: tuple[YearGain, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    policy_json: str = ""
    premium: RebalancingPremium | None = None
    delisted_holdings: tuple[DelistedHolding, ...] = ()
    funding: FundingSummary | None = None
    futures_weights: tuple[tuple[int, tuple[tuple[str, Fraction], ...]], ...] = ()
    futures: FuturesResult | None = None
    health_changes: tuple[HealthRecord, ...] = ()
    final_health: tuple[HealthRecord, ...] = ()
    loss: BacktestLoss | None = None
    is_gas_counted: bool = True
    """True if gas or data had a price. Without one, the gas total of zero is meaningless."""


@dataclass(frozen=True, slots=True)
class TargetBands:
    """Targets and bands as shares by token, in effect from a bar on."""

    bar: int
    targets: dict[str, float]
    bands: dict[str, tuple[float, float]]


def target_bands(bar: int, drifts: Sequence[AssetDrift], with_bands: bool) -> TargetBands:
    """Return the targets of a step, and its bands if `with_bands`, except those from 0 to 1."""
    band_by_token = {
        drift.token: (float(drift.band_low_bps) / BPS, float(drift.band_high_bps) / BPS)
        for drift in drifts
    }
    bands = {
        token: band for token, band in band_by_token.items() if with_bands and band != (0.0, 1.0)
    }
    return TargetBands(bar, {drift.token: drift.target_bps / BPS for drift in drifts}, bands)


def _shares(asset_values: FloatArray) -> FloatArray:
    """Return the share of each column in its row; zero in a row without value."""
    row_totals = asset_values.sum(axis=1, keepdims=True)
    shares: FloatArray = np.divide(
        asset_values, row_totals, out=np.zeros_like(asset_values), where=row_totals > 0
    )
    return shares


def _bar_ranges(start_bars: Sequence[int], bar_count: int) -> list[slice]:
    """Return the bars from each start to the next, from the last to the end."""
    return [slice(start, end) for start, end in pairwise((*start_bars, bar_count))]


def portfolio_paths(world: SimulatedWorld, bands_by_step: Sequence[TargetBands]) -> PortfolioPaths:
    """Build the paths from the records of bars at which holdings changed."""
    table = world.table
    holdings_records = world.holdings_records
    tokens = world.tokens
    asset_addresses = [asset.token.address for asset in world.spec.portfolio.assets]
    prices = prices_in_numeraire(world.spec, table, world.filled_closes, tokens)
    base_units_per_coin = np.array([10.0**token.decimals for token in tokens])
    equity = np.empty(table.bar_count)
    hold_equity = np.empty(table.bar_count)
    units = np.empty((table.bar_count, len(tokens)))
    record_ranges = _bar_ranges([record.bar for record in holdings_records], table.bar_count)
    for record, bar_range in zip(holdings_records, record_ranges, strict=True):
        units[bar_range] = (
            np.array([float(record.balances[token.address]) for token in tokens])
            / base_units_per_coin
        )
        equity[bar_range] = (units[bar_range] * prices[bar_range]).sum(axis=1) - float(
            record.gas_paid / 10**world.numeraire.decimals
        )
        hold_equity[bar_range] = (
            np.array([float(record.hold_balances[token.address]) for token in tokens])
            / base_units_per_coin
            * prices[bar_range]
        ).sum(axis=1)
    token_values = units * prices
    if world.venue is not None:
        margin_values = world.venue.account_values()
        collateral = world.venue.setup.collateral.address
        if world.venue.setup.policy.margin_in_weights:
            token_values[:, [token.address for token in tokens].index(collateral)] += margin_values
        equity += margin_values
    asset_values = token_values[:, : len(asset_addresses)]
    targets = np.full((table.bar_count, len(asset_addresses)), np.nan)
    bands = np.full((table.bar_count, len(asset_addresses), 2), np.nan)
    step_ranges = _bar_ranges([step_bands.bar for step_bands in bands_by_step], table.bar_count)
    for step_bands, bar_range in zip(bands_by_step, step_ranges, strict=True):
        targets[bar_range] = [step_bands.targets.get(token, 0.0) for token in asset_addresses]
        bands[bar_range] = [
            step_bands.bands.get(token, (np.nan, np.nan)) for token in asset_addresses
        ]
    return PortfolioPaths(
        equity,
        hold_equity,
        _shares(asset_values),
        units[:, : len(asset_addresses)],
        prices[:, : len(asset_addresses)],
        targets,
        bands,
    )


def time_weighted_return(
    start_value: Fraction, end_value: Fraction, flows: Sequence[tuple[Fraction, Fraction]]
) -> float:
    """Return the product of growth between transfers, less one (Global Investment Performance
    Standards); `flows` are (value before, transfer). Periods that start at zero are skipped.
    """
    total_growth = 1.0
    period_start_value = start_value
    for period_end_value, transfer in (*flows, (end_value, Fraction(0))):
        if period_start_value:
            total_growth *= float(period_end_value / period_start_value)
        period_start_value = period_end_value + transfer
    return total_growth - 1


def time_weighted_returns(
    world: SimulatedWorld, start_value: Fraction, flows: Sequence[AppliedTransfer]
) -> tuple[float, float]:
    """Return the time-weighted returns of the rebalanced portfolio, after gas, and of buy and
    hold.
    """
    last_record = world.holdings_records[-1]
    end_value = world.net_value()
    hold_value = world.value(last_record.hold_balances)
    return (
        time_weighted_return(
            start_value, end_value, [(flow.value_before, flow.value) for flow in flows]
        ),
        time_weighted_return(
            start_value,
            hold_value,
            [(transfer.hold_value_before, transfer.value) for transfer in flows],
        ),
    )


def premium_of_simulation(
    world: SimulatedWorld, paths: PortfolioPaths, rebalances: Sequence[TransactionCost]
) -> RebalancingPremium | None:
    """Return the rebalancing premium of the paths; None if gas consumed everything."""
    costs_by_bar = np.zeros(world.table.bar_count)
    for rebalance in rebalances:
        rebalance_cost = rebalance.fees + rebalance.impact + rebalance.gas
        costs_by_bar[rebalance.bar] += float(rebalance_cost / 10**world.numeraire.decimals)
    if not (paths.equity > 0).all():
        return None
    start_balances = world.holdings_records[
        0
    ].hold_balances  # before the first bar's trades; transfers come later
    tokens = world.tokens[: paths.weights.shape[1]]
    start_values = (
        np.array([float(start_balances[token.address]) / 10.0**token.decimals for token in tokens])
        * paths.prices[0]
    )
    return rebalancing_premium(
        paths.prices,
        paths.weights,
        costs_by_bar / (paths.equity + costs_by_bar),
        world.table.times_s,
        start_values / start_values.sum(),
    )


class SimulatedTaxRuns:
    """Tax runs over the simulation's ledger; the newest is kept until the ledger changes."""

    def __init__(
        self, store: Store, portfolio: Portfolio, tax_rule: TaxRule, *, is_needed: bool = False
    ) -> None:
        """`is_needed` forces the tax state even without a limit, for hedges and zones that weigh the
        tax of a sale.
        """
        self._store = store
        self._portfolio = portfolio
        self._rule = tax_rule
        self._is_needed = is_needed or tax_rule.year_limit is not None
        self._ledger_version: tuple[int, ...] | None = None
        self._tax_run: TaxLotRun | None = None

    def tax_inputs(self, now_s: int) -> TaxInputs | None:
        """Return the tax state for the gain of a plan; None if nothing depends on it."""
        if not self._is_needed:
            return None
        tax_run = self._newest_run()
        return TaxInputs(
            method=self._rule.method,
            currency="",
            rate=Fraction(1),
            lots=tax_run.open_lots(),
            realised_gain=tax_run.realised_gain(year_start_s(now_s)),
            year_limit=self._rule.year_limit,
            tax_rate_bps=self._rule.rate_bps,
        )

    def yearly_gains(self, from_s: int, until_s: int) -> tuple[YearGain, ...]:
        """Return the gain of every calendar year from the first time to the last."""
        tax_run = self._newest_run()
        year_spans = calendar_periods("year", from_s, until_s)
        return tuple(
            YearGain(
                datetime.fromtimestamp(start_s, UTC).year, tax_run.realised_gain(start_s, end_s)
            )
            for start_s, end_s in year_spans
        )

    def dated_gains(self) -> tuple[tuple[int, Value], ...]:
        """Return (chain time, gain less loss) of each disposal."""
        disposals = self._newest_run().disposals
        return tuple((disposal.disposed_s, disposal.gain) for disposal in disposals)

    def _newest_run(self) -> TaxLotRun:
        ledger_version = self._store.ledger.version()
        if self._tax_run is None or ledger_version != self._ledger_version:
            self._tax_run = self._run_tax_lots()
            self._ledger_version = ledger_version
        return self._tax_run

    def _run_tax_lots(self) -> TaxLotRun:
        ledger_entries = [
            replace(
                entry,
                postings=tuple(posting for posting in entry.postings if posting.token != NATIVE),
            )
            for entry in self._store.ledger.entries()
        ]
        return run_tax_lots(
            ledger_entries,
            self._rule.method,
            self._portfolio.numeraire.address,
            self._portfolio.wrapped_native,
        )


def futures_yearly_gains(world: SimulatedWorld) -> tuple[YearGain, ...]:
    """Return the profit that futures realised in each calendar year: profit of reductions less
    funding and penalties; empty without futures.
    """
    if (venue := world.venue) is None:
        return ()
    times_s = world.table.times_s
    year_gains = []
    for start_s, end_s in calendar_periods("year", int(times_s[0]), int(times_s[-1])):
        bar_before_year, last_bar = (
            int(bar) - 1 for bar in np.searchsorted(times_s, [start_s, end_s])
        )
        realised_gain = venue.realised_profit_until(
            world.numeraire, last_bar
        ) - venue.realised_profit_until(world.numeraire, bar_before_year)
        year_gains.append(YearGain(datetime.fromtimestamp(start_s, UTC).year, realised_gain))
    return tuple(year_gains)


VALUE_DECIMALS = 2
COIN_DECIMALS = 6
"""Decimal places of a value and of an amount of coins in text."""


def delisted_holdings(world: SimulatedWorld, final_value: Value) -> tuple[DelistedHolding, ...]:
    """Return the holdings whose last price is too old for a step at the last bar of the
    backtest.
    """
    holdings = []
    for token in world.tokens:
        column = world.column_by_token.get(token.address)
        balance_raw = world.wallet.balances.get(token.address, 0)
        if (
            column is None
            or token == world.numeraire
            or not balance_raw
            or not world.is_stale[world.bar, column]
        ):
            continue
        price = world.prices[token.address]
        value = balance_raw * world.prices[token.address]
        price_time_s = int(world.price_times_s[world.bar, column])
        share = value / final_value if final_value > 0 else None
        holdings.append(
            DelistedHolding(
                token.label, token.decimals, balance_raw, price, price_time_s, value, share
            )
        )
    return tuple(holdings)


def format_delisted_holding(
    holding: DelistedHolding, numeraire_symbol: str, numeraire_decimals: int
) -> str:
    """Describe the holding in one sentence."""
    time_text = minute_text(holding.priced_at_s)
    share_text = (
        "" if holding.share is None else f", {float(100 * holding.share):.2f} % of the final value"
    )
    amount_text = value_text(Fraction(holding.balance_raw), holding.decimals, COIN_DECIMALS)
    return (
        f"{amount_text} {holding.symbol} have no price after {time_text} UTC: at the last price,"
        f" {shown_price_text(holding.price, holding.decimals, numeraire_decimals)} {numeraire_symbol},"
        f" their value is {value_text(holding.value, numeraire_decimals, VALUE_DECIMALS)}"
        f" {numeraire_symbol}{share_text}"
    )


def funding_of_holdings(
    world: SimulatedWorld, series: Sequence[FundingRateSeries]
) -> tuple[FundingSummary, tuple[str, ...]]:
    """Return the carry of each series, in order, and notes on missing data. Symbols outside the
    portfolio have no carry.
    """
    token_by_symbol = {token.symbol: token for token in world.tokens}
    bar_times_s = world.table.times_s
    record_bars = np.array([record.bar for record in world.holdings_records])
    carries = []
    notes = []
    for rate_series in series:
        token = token_by_symbol.get(rate_series.symbol)
        carries.append(
            funding_carry(rate_series, bar_times_s, partial(_held_value, world, token, record_bars))
        )
        notes += funding_notes(rate_series, bar_times_s)
        if token is None:
            notes.append(f"funding: {rate_series.symbol} is not held; its rates are ignored")
        elif (missing_count := _count_missing_prices(world, rate_series)) > 0:
            notes.append(
                f"funding: at {missing_count} times {rate_series.symbol} had no price; the last price was used"
            )
    symbols_with_rates = {rated_series.symbol for rated_series in series} | {world.numeraire.symbol}
    symbols_without_rates = [
        asset.token.symbol
        for asset in world.spec.portfolio.assets
        if asset.token.symbol not in symbols_with_rates
    ]
    if symbols_without_rates:
        notes.append(
            f"funding: no rates of {', '.join(symbols_without_rates)}, so funding of a short of it is unknown"
        )
    return FundingSummary(tuple(carries), funding_digest(series)), tuple(notes)


def _held_value(
    world: SimulatedWorld, token: Token | None, record_bars: NDArray[np.int64], bar: int
) -> Value:
    """Return the value of the token's holding after that bar, at the bar's price."""
    if token is None:
        return Fraction(0)
    record_index = int(np.searchsorted(record_bars, bar, side="right")) - 1
    return world.holdings_records[record_index].balances.get(token.address, 0) * world.price(
        token, bar
    )


def _count_missing_prices(world: SimulatedWorld, series: FundingRateSeries) -> int:
    """Return the number of times of the series for which an older price was used."""
    table = world.table
    if series.symbol not in table.symbols:
        return 0
    rate_times_s = series.times_s[within_bars_mask(series, table.times_s)]
    price_bars = np.searchsorted(table.times_s, rate_times_s, side="right") - 1
    return int(np.isnan(table.closes[price_bars, table.symbols.index(series.symbol)]).sum())
