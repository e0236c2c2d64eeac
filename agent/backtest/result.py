"""What a simulation found: money exact, paths over the bars as floats, and all that is needed to repeat it."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from agent.backtest.funding import Funding
from agent.backtest.harvest import Harvest
from agent.units import Price, Value


@dataclass(frozen=True, slots=True)
class Rebalanced:
    """One rebalance, at the bar whose prices it was carried out at. Values in numeraire base units, gas that of its approvals too."""

    bar: int
    time_s: int
    turnover: Value
    fees: Value
    impact: Value
    gas: Value
    succeeded: bool


@dataclass(frozen=True, slots=True)
class Flowed:
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
class Ended:
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
    rebalances: tuple[Rebalanced, ...]
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
    flows: tuple[Flowed, ...] = ()
    twr: float = 0.0
    hold_twr: float = 0.0
    prices: NDArray[np.float64] = field(default_factory=_no_path)
    targets: NDArray[np.float64] = field(default_factory=_no_path)
    bands: NDArray[np.float64] = field(default_factory=_no_path)
    lots: str = "fifo"
    taxes: tuple[YearGain, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    policy: str = ""
    harvest: Harvest | None = None
    ended: tuple[Ended, ...] = ()
    funding: Funding | None = None

    @property
    def gas_counted(self) -> bool:
        """Whether gas had a price at all; where it had none, its sum of zero says nothing."""
        return dict(self.parameters).get("gas_wei") != "0"
