"""Runs the engine's step over every bar of a price table, and tells what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray

from agent import codec
from agent.backtest.desk import Desk, open_desk
from agent.backtest.harvest import Harvest, harvest
from agent.backtest.quiet import Quiet
from agent.backtest.table import PriceTable
from agent.backtest.wanted import Settings, Wanted
from agent.backtest.world import EndOfTable, Fill, Wallet, World, at_targets
from agent.errors import Refused, Retryable
from agent.execution.outcome import Outcome, OutcomeKind
from agent.units import Value

Progress = Callable[[int, int], None]
"""Is told how many bars of how many are done."""
LIBRARIES = ("trimtab", "numpy", "scipy", "polars")


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
class SimulationResult:
    """What a simulation found. Values in numeraire base units; paths are floats in whole coins, one for each bar.

    `equity` has all gas taken off; `hold` is what the holdings of the first bar are worth. `weights` are shares of `symbols`.
    `turnover` is the sum, over rebalances, of half of all that moved by what all was worth. `looked` counts bars that a whole step
    looked at, `halted` those at which something was stale or contradictory, `refused` by reason those at which a plan was.
    `harvest` is what rebalancing itself earned; None where gas ate all that there was.
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
    harvest: Harvest | None = None


def simulate(wanted: Wanted, table: PriceTable, settings: Settings, progress: Progress | None = None) -> SimulationResult:
    """The whole of it. The wallet begins at its targets, at the first bar at which each of its symbols has a price.

    Raises ConfigError for symbols that the table lacks, and whatever a step raises that is no refusal and no network.
    """
    with run(wanted, table, settings) as going:
        while going.next():
            if progress is not None:
                progress(going.world.bar + 1, going.world.table.bars)
        return going.result()


class Run:
    """A simulation under way: each `next` goes on to the next bar that has to be looked at. A context that closes its store."""

    def __init__(self, wanted: Wanted, table: PriceTable, settings: Settings) -> None:
        self.world = _world(wanted, table, settings)
        self.outcome: Outcome | None = None
        self._context = open_desk(self.world)
        self._held: list[tuple[int, dict[str, int], Fraction]] = []
        self._looked = self._halted = 0
        self._refused: dict[str, int] = {}
        self._ended: tuple[str, ...] = ()
        self._quiet = Quiet(self.world)

    def __enter__(self) -> Run:
        self.desk: Desk = self._context.__enter__()
        self._hold()
        return self

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)

    def next(self) -> bool:
        """Looks at the next bar; False once there is none."""
        world, every = self.world, self.world.settings.looks_at_all
        begun = self._looked > 0
        bar = world.bar if not begun else world.bar + 1 if every else self._quiet.next_bar(world.bar)
        if begun and not every:
            self._halted += self._quiet.halted(world.bar + 1, bar)
        if bar >= world.table.bars:
            return False
        try:
            if begun:
                world.go_to(bar)
            self._look()
        except EndOfTable:
            self._ended = (f"{len(world.pending)} transaction was on its way when the data ended",)
            return False
        return True

    def _look(self) -> None:
        self._looked += 1
        self.outcome = None
        try:
            self.outcome = self.desk.step()
        except (Retryable, Refused) as error:
            self._count(error.message)
        else:
            self._halted += self.outcome.kind is OutcomeKind.HALT
            if self.outcome.kind in (OutcomeKind.REFUSED, OutcomeKind.FAILED):
                failing = [verdict.guard for verdict in self.outcome.verdicts if not verdict.passed]
                self._count(", ".join(failing) or self.outcome.reason)
        self._hold()

    def _count(self, why: str) -> None:
        self._refused[why] = self._refused.get(why, 0) + 1

    def _hold(self) -> None:
        world = self.world
        gas = sum((fill.gas for fill in world.fills), Fraction(0))
        if not self._held or (world.wallet.balances, gas) != self._held[-1][1:]:
            self._held.append((world.bar, dict(world.wallet.balances), gas))

    def result(self) -> SimulationResult:
        """What was found so far, up to the last bar of the table."""
        world = self.world
        if world.bar < world.table.bars - 1:
            world.go_to(world.table.bars - 1)
        wanted, money = world.wanted, world.money
        equity, weights = _path(world, self._held)
        hold, _ = _path(world, self._held[:1])
        fills = world.fills
        gas = sum((fill.gas for fill in fills), Fraction(0))
        rebalances = _rebalances(world, fills)
        scale = 10**money.decimals
        shares = [one.turnover / (Fraction(float(equity[one.bar])) * scale) for one in rebalances]
        return SimulationResult(
            symbols=tuple(asset.token.symbol for asset in wanted.portfolio.assets),
            numeraire=money.symbol,
            decimals=money.decimals,
            times_s=world.table.times_s,
            equity=equity,
            hold=hold,
            weights=weights,
            rebalances=rebalances,
            final_value=world.value(world.wallet.balances) - gas,
            hold_value=world.value(self._held[0][1]),
            start_value=world.settings.start_value * scale,
            turnover=sum(shares, Fraction(0)),
            fees=sum((fill.fees for fill in fills), Fraction(0)),
            impact=sum((fill.impact for fill in fills), Fraction(0)),
            gas=gas,
            balances=tuple(world.wallet.balances.items()),
            bars=world.table.bars,
            looked=self._looked,
            halted=self._halted,
            refused=tuple(sorted(self._refused.items())),
            notes=(*world.table.notes, *self._ended),
            config_hash=digest(wanted, world.settings),
            data_hash=world.table.digest,
            seed=world.settings.seed,
            versions=_versions(),
            harvest=_harvest(world, equity, weights, rebalances),
        )


def run(wanted: Wanted, table: PriceTable, settings: Settings) -> Run:
    """A simulation to be gone through bar by bar."""
    return Run(wanted, table, settings)


def digest(wanted: Wanted, settings: Settings) -> str:
    """SHA-256 of what is tried out and how the market is made."""
    parts = (wanted.portfolio, wanted.policy, wanted.reference, wanted.limits, wanted.execution, wanted.split)
    texts = [codec.dumps(part) for part in parts if part is not None]
    gas = settings.gas_wei if isinstance(settings.gas_wei, int) else tuple(settings.gas_wei)
    texts.append(repr((settings.depth, settings.fee_pips, settings.start_value, settings.pool, gas, settings.latency_bars, settings.seed)))
    return sha256("\n".join(texts).encode()).hexdigest()


def _world(wanted: Wanted, table: PriceTable, settings: Settings) -> World:
    money = wanted.portfolio.numeraire
    symbols = [symbol for address, symbol in wanted.symbols if symbol in table.symbols or address != money.address]
    world = World(wanted, table.only(symbols), settings, Wallet({}, {}))
    world.go_to(0)
    world.wallet.balances = at_targets(world)
    return world


def _path(world: World, held: list[tuple[int, dict[str, int], Fraction]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Worth and weights at the end of each bar, in whole coins, with the gas paid until then taken off the worth."""
    portfolio, money, table = world.wanted.portfolio, world.money, world.table
    columns = {address: table.symbols.index(symbol) for address, symbol in world.wanted.symbols if symbol in table.symbols}
    ones = np.ones(table.bars)
    closes = {token.address: world.closes[:, columns[token.address]] if token.address in columns else ones for token in world.tokens}
    unit = closes.get(money.address, ones)
    values = np.empty((table.bars, len(world.tokens)))
    equity = np.empty(table.bars)
    for number, (bar, balances, gas) in enumerate(held):
        end = held[number + 1][0] if number + 1 < len(held) else table.bars
        for column, token in enumerate(world.tokens):
            values[bar:end, column] = balances[token.address] / 10.0**token.decimals * closes[token.address][bar:end] / unit[bar:end]
        equity[bar:end] = values[bar:end].sum(axis=1) - float(gas / 10**money.decimals)
    weights = values[:, : len(portfolio.assets)]
    found: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return equity, found


def _harvest(world: World, equity: NDArray[np.float64], weights: NDArray[np.float64], done: tuple[Rebalanced, ...]) -> Harvest | None:
    """See agent/backtest/harvest.py: prices of the assets in the numeraire, and each bar's costs of what was held before."""
    if (equity <= 0).any():
        return None
    table, money = world.table, world.money
    columns = {address: table.symbols.index(symbol) for address, symbol in world.wanted.symbols if symbol in table.symbols}
    ones, taken = np.ones(table.bars), np.zeros(table.bars)
    closes = [world.closes[:, columns[a]] if (a := asset.token.address) in columns else ones for asset in world.wanted.portfolio.assets]
    unit = world.closes[:, columns[money.address]] if money.address in columns else ones
    for one in done:
        taken[one.bar] += float((one.fees + one.impact + one.gas) / 10**money.decimals)
    return harvest(np.column_stack(closes) / unit[:, None], weights, taken / (equity + taken), table.times_s)


def _rebalances(world: World, fills: list[Fill]) -> tuple[Rebalanced, ...]:
    """Swaps with the gas of the approvals before them."""
    found, gas = [], Fraction(0)
    for fill in fills:
        gas += fill.gas
        if fill.swap:
            time_s = int(world.table.times_s[fill.bar])
            found.append(Rebalanced(fill.bar, time_s, fill.turnover, fill.fees, fill.impact, gas, fill.succeeded))
            gas = Fraction(0)
    return tuple(found)


def _versions() -> tuple[tuple[str, str], ...]:
    found = []
    for name in LIBRARIES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)
