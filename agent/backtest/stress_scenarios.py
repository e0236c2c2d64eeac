"""What may go wrong in a market, laid over a path of prices: crash, lost peg, dear gas, thin pools, feeds that fall silent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from agent.backtest.columns import priced_gas
from agent.backtest.table import PriceTable
from agent.backtest.wanted import Settings, Wanted
from agent.errors import ConfigError
from agent.reference.peg import is_dollar
from agent.units import BPS


class Scenario(Enum):
    """CALM is the path as it is."""

    CALM = "calm"
    CRASH = "crash"
    DEPEG = "depeg"
    GAS = "gas-spike"
    POOL = "illiquid-pool"
    ORACLE = "oracle-outage"


@dataclass(frozen=True, slots=True)
class Severity:
    """How bad it gets. A crash takes `crash_bps` of every price that is no dollar's, over `crash_bars`, and nothing comes back; a dollar
    loses `depeg_bps` of its worth; a unit of gas costs `gas_wei`; pools hold `depth_part` of what they did.
    """

    crash_bps: int = 5_000
    crash_bars: int = 24
    depeg_bps: int = 1_000
    gas_wei: int = 500 * 10**9
    depth_part: Fraction = Fraction(1, 1_000)

    def __post_init__(self) -> None:
        """Raises ConfigError naming the option of what cannot be."""
        for name, share in (("--crash", self.crash_bps), ("--depeg", self.depeg_bps)):
            if not 0 < share < BPS:
                raise ConfigError(f"{name}: {share / 100:g}%", "a fall is above 0 and below 100%")
        if self.crash_bars < 1:
            raise ConfigError(f"--crash-bars: {self.crash_bars}", "a fall takes 1 bar or more")
        if not 0 < self.depth_part <= 1:
            raise ConfigError(f"--thin: {float(self.depth_part):g}", "write what is left of the depth, above 0 and at most 1")
        if self.gas_wei <= 0:
            raise ConfigError(f"--gas-spike: {self.gas_wei} wei", "a price of gas is above 0, such as 500 gwei")


@dataclass(frozen=True, slots=True)
class Laid:
    """A path with a scenario laid over it. `unit` is what a coin of the numeraire is worth at each bar in what the file counts in,
    where it is the numeraire itself that loses its peg, else 1.
    """

    table: PriceTable
    settings: Settings
    unit: NDArray[np.float64]


def lay(scenario: Scenario, wanted: Wanted, table: PriceTable, settings: Settings, severity: Severity) -> Laid:
    """The middle third of the path gets worse; a crash begins there and stays. Raises ConfigError for what this portfolio cannot meet."""
    first = max(1, table.bars // 3)
    end = max(first + 1, 2 * table.bars // 3)
    plain = Laid(table, settings, np.ones(table.bars))
    match scenario:
        case Scenario.CALM:
            return plain
        case Scenario.CRASH:
            return replace(plain, table=_crashed(wanted, table, severity, first))
        case Scenario.DEPEG:
            return _depegged(wanted, plain, severity, slice(first, end))
        case Scenario.GAS:
            _require_priced_gas(wanted, table)
            usual = [settings.gas_wei] * table.bars if isinstance(settings.gas_wei, int) else list(settings.gas_wei)
            dear = [severity.gas_wei if first <= bar < end else price for bar, price in enumerate(usual)]
            return replace(plain, settings=replace(settings, gas_wei=tuple(dear)))
        case Scenario.POOL:
            return replace(plain, settings=replace(settings, thin=(first, end, severity.depth_part)))
        case Scenario.ORACLE:
            return replace(plain, settings=replace(settings, silent=(first, end)))


def unfit(
    scenarios: Sequence[Scenario], wanted: Wanted, table: PriceTable, settings: Settings, severity: Severity
) -> list[tuple[str, str]]:
    """Those that this portfolio cannot meet, and why."""
    found = []
    for scenario in scenarios:
        try:
            lay(scenario, wanted, table, settings, severity)
        except ConfigError as error:
            found.append((scenario.value, error.message.removeprefix(f"{scenario.value}: ")))
    return found


def dollar_of(wanted: Wanted) -> str:
    """The first asset that its symbol marks as a dollar. Raises ConfigError where there is none."""
    found = next((asset.token.symbol for asset in wanted.portfolio.assets if is_dollar(asset.token)), None)
    if found is None:
        raise ConfigError("depeg: no asset of this portfolio is a dollar by its symbol", "leave depeg out of --scenarios")
    return found


def _crashed(wanted: Wanted, table: PriceTable, severity: Severity, first: int) -> PriceTable:
    numeraire = wanted.portfolio.numeraire.symbol
    safe = {token.symbol for token in wanted.tokens if is_dollar(token)} | {numeraire}
    falls = [column for column, symbol in enumerate(table.symbols) if symbol not in safe]
    if not falls:
        raise ConfigError("crash: every asset of this portfolio is a dollar or the numeraire", "leave crash out of --scenarios")
    done = np.clip((np.arange(table.bars) - first + 1) / severity.crash_bars, 0, 1)
    closes = table.closes.copy()
    closes[:, falls] *= ((1 - severity.crash_bps / BPS) ** done)[:, None]
    return replace(table, closes=closes)


def _depegged(wanted: Wanted, plain: Laid, severity: Severity, during: slice) -> Laid:
    symbol, table = dollar_of(wanted), plain.table
    factor = np.ones(table.bars)
    factor[during] = 1 - severity.depeg_bps / BPS
    if symbol in table.symbols:
        closes = table.closes.copy()
        closes[:, table.symbols.index(symbol)] *= factor
        fallen = replace(table, closes=closes)
    else:
        fallen = replace(table, symbols=(*table.symbols, symbol), closes=np.column_stack([table.closes, factor]))
    unit = factor if symbol == wanted.portfolio.numeraire.symbol else plain.unit
    return replace(plain, table=fallen, unit=unit)


def _require_priced_gas(wanted: Wanted, table: PriceTable) -> None:
    if not priced_gas(wanted, table):
        raise ConfigError("gas-spike: no price of the native coin is known", "name the asset that it is: --native ETH")
