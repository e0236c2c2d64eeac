"""What rebalancing itself earned: how much faster the portfolio grew than one that was bought at the same weights and left alone.

Returns are logarithms of growth, so that they add up over bars. Let x be the log return of each asset over all bars, w the weights at
the start. Of one bar, with weights p that were held over it and growths r of the assets, ln(Σ p r) − Σ p ln r is what a portfolio grows
by beyond the mean of its assets, never below zero (Jensen); in continuous time it is the excess growth rate of Fernholz & Shay (1982),
"Stochastic portfolio theory and stock market equilibrium", and Fernholz (2002), "Stochastic Portfolio Theory", (1.1.20):
½ (Σ wᵢ σᵢᵢ − Σ wᵢ wⱼ σᵢⱼ). Holding has the same of its own kind over all bars at once, ln(Σ w eˣ) − Σ w x: winners weigh more and
more. So what rebalancing was ahead by is, exactly,

    advantage = excess_growth + off_target − dispersion − costs
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from agent.backtest.data import FundingSummary
from agent.errors import ConfigError
from agent.units import YEAR_S, Price, Value

Floats = NDArray[np.float64]
WEIGHT_TOLERANCE = 1e-9
"""By how much weights may miss one: what floats lose."""


@dataclass(frozen=True, slots=True)
class RebalancingPremium:
    """All as logarithms of growth over the whole time, but for the last two, which are such per year of 365 days.

    `advantage` is that of the rebalanced portfolio after costs less that of holding. `excess_growth` is what trading moves into each
    other brought, bar by bar; `off_target` what it brought (or lost) that weights were not those of the start; `dispersion` what
    holding gained by letting winners grow; `costs` what trading took. `excess_growth_yearly` is the second of these per year,
    `expected_yearly` what the formula says of the weights of the start and the covariance of the prices.
    """

    advantage: float
    excess_growth: float
    off_target: float
    dispersion: float
    costs: float
    excess_growth_yearly: float
    expected_yearly: float


def rebalancing_premium(
    prices: Floats, weights: Floats, cost_shares: Floats, times_s: NDArray[np.int64], bought: Floats | None = None
) -> RebalancingPremium:
    """`prices[bar, asset]` in one unit, `weights[bar, asset]` held after the trades of each bar, `cost_shares[bar]` of all that was
    held before those trades what they took; Unix seconds. `bought` are the weights before the trades of the first bar, which holding
    keeps; None where there were none. What those trades took is in `costs`. Flows from and to the owner change none of it.

    Raises ConfigError for tables that do not fit each other, prices that are not above zero, weights that do not sum to one, and
    costs that are not below all.
    """
    _check(prices, weights, cost_shares, times_s)
    if bought is not None and not (bought.shape == weights[0].shape and abs(bought.sum() - 1) <= WEIGHT_TOLERANCE):
        raise ConfigError("harvest: what was bought does not sum to one", "give shares of everything that is held, as of each bar")
    logs = np.diff(np.log(prices), axis=0)
    held, start = weights[:-1], weights[0] if bought is None else bought
    gross = np.log((held * np.exp(logs)).sum(axis=1))
    excess = float((gross - (held * logs).sum(axis=1)).sum())
    off_target = float(((held - start) * logs).sum())
    whole = logs.sum(axis=0)
    top = whole.max()
    holding = float(np.log(start @ np.exp(whole - top)) + top)
    dispersion = holding - float(start @ whole)
    costs = float(-np.log1p(-cost_shares).sum())
    years = (int(times_s[-1]) - int(times_s[0])) / YEAR_S
    return RebalancingPremium(
        advantage=float(gross.sum()) - costs - holding,
        excess_growth=excess,
        off_target=off_target,
        dispersion=dispersion,
        costs=costs,
        excess_growth_yearly=excess / years,
        expected_yearly=excess_growth_rate(start, _covariance(logs)) * len(logs) / years,
    )


def excess_growth_rate(weights: Floats, covariance: Floats) -> float:
    """½ (Σ wᵢ σᵢᵢ − Σ wᵢ wⱼ σᵢⱼ) of log returns, per whatever time the covariance is per: Fernholz (2002), (1.1.20)."""
    return float(weights @ np.diag(covariance) - weights @ covariance @ weights) / 2


def _covariance(logs: Floats) -> Floats:
    """Of one bar; of a single bar it is not known, and nothing is expected."""
    if len(logs) < 2:
        return np.zeros((logs.shape[1], logs.shape[1]))
    found: Floats = np.atleast_2d(np.cov(logs, rowvar=False))
    return found


def _check(prices: Floats, weights: Floats, cost_shares: Floats, times_s: NDArray[np.int64]) -> None:
    bars = len(times_s)
    if bars < 2 or prices.ndim != 2 or weights.shape != prices.shape or len(prices) != bars or cost_shares.shape != (bars,):
        raise ConfigError(
            f"harvest: {prices.shape} prices, {weights.shape} weights and {cost_shares.shape} costs for {bars} bars",
            "give two bars or more, and as many rows of each",
        )
    if not (np.isfinite(prices).all() and (prices > 0).all()):
        raise ConfigError("harvest: a price is not above zero", "fill what is missing with the newest price before it")
    if not (np.abs(weights.sum(axis=1) - 1) <= WEIGHT_TOLERANCE).all():
        raise ConfigError("harvest: weights do not sum to one", "give shares of everything that is held")
    if not ((cost_shares < 1).all() and np.isfinite(cost_shares).all()):
        raise ConfigError("harvest: costs are all there was, or no number", "give them as shares of what was held")


# --- What a simulation found: money exact, paths over the bars as floats, and all that is needed to repeat it.


@dataclass(frozen=True, slots=True)
class RebalanceRecord:
    """One rebalance, at the bar whose prices it was carried out at. Values in numeraire base units, gas that of its approvals too."""

    bar: int
    time_s: int
    turnover: Value
    fees: Value
    impact: Value
    gas: Value
    succeeded: bool


@dataclass(frozen=True, slots=True)
class AppliedTransfer:
    """What the owner put in (above zero) or took out, at the prices of its bar. `before` is what the portfolio was worth just before
    with all gas taken off, `hold_before` what holding was worth. Values in numeraire base units.
    """

    bar: int
    time_s: int
    value: Value
    before: Value
    hold_before: Value


@dataclass(frozen=True, slots=True)
class YearGain:
    """Gains less losses that a calendar year (UTC) realised by the books of the run, numeraire base units, gas left out."""

    year: int
    realised: Value


@dataclass(frozen=True, slots=True)
class DelistedHolding:
    """One holding, base units of `decimals`; `price` is its last one, in numeraire base units per base unit, of `time_s`. `share` is
    what of the final value it makes; None where that is nothing.
    """

    symbol: str
    decimals: int
    raw: int
    price: Price
    time_s: int
    value: Value
    share: Fraction | None


def _no_path() -> NDArray[np.float64]:
    return np.empty(0)


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """What a simulation found. Values in numeraire base units; paths are floats in whole coins, one for each bar.

    `equity` has all gas taken off; `hold` is what the holdings of the first bar are worth, with the same deposits and withdrawals.
    `weights`, `targets`, `bands` (lower and upper edge) are shares and `prices` closes of `symbols`; what does not exist is NaN.
    `turnover` is the sum, over rebalances, of half of all that moved by what all was worth. `looked` counts bars that a whole step
    looked at, `halted` those at which something was stale or contradictory, `refused` by reason those at which a plan was, `kept` by
    setting those at which something was to be done, or a weight was outside its band, and the step held all the same.
    `ended` are holdings without a price any more, at the last one, in `notes` as words.
    `twr` and `hold_twr` are time-weighted returns of the whole period, not a year's. `taxes` are by lot rule `lots`.
    `harvest` is what rebalancing itself earned; None where gas ate all that there was. `policy` is canonical JSON of what was tried.
    `funding` is what shorts of the holdings would have got, and part of nothing else; None where no rates were given.
    """

    symbols: tuple[str, ...]
    numeraire: str
    decimals: int
    times_s: NDArray[np.int64]
    equity: NDArray[np.float64]
    hold: NDArray[np.float64]
    weights: NDArray[np.float64]
    rebalances: tuple[RebalanceRecord, ...]
    final_value: Value
    hold_value: Value
    start_value: Value
    turnover: Fraction
    fees: Value
    impact: Value
    gas: Value
    balances: tuple[tuple[str, int], ...]
    bars: int
    looked: int
    halted: int
    refused: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]
    config_hash: str
    data_hash: str
    seed: int
    versions: tuple[tuple[str, str], ...]
    kept: tuple[tuple[str, int], ...] = ()
    flows: tuple[AppliedTransfer, ...] = ()
    twr: float = 0.0
    hold_twr: float = 0.0
    prices: NDArray[np.float64] = field(default_factory=_no_path)
    targets: NDArray[np.float64] = field(default_factory=_no_path)
    bands: NDArray[np.float64] = field(default_factory=_no_path)
    lots: str = "fifo"
    taxes: tuple[YearGain, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    policy: str = ""
    harvest: RebalancingPremium | None = None
    ended: tuple[DelistedHolding, ...] = ()
    funding: FundingSummary | None = None

    @property
    def gas_counted(self) -> bool:
        """Whether gas had a price at all; where it had none, its sum of zero says nothing."""
        return dict(self.parameters).get("gas_wei") != "0"
