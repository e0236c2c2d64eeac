"""Random markets and settings for the fast kernel, and a bar-by-bar reference in plain Python, written from the rules alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import inf
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.app.research.trials import searched_grid
from agent.backtest.data import PriceTable, validate_prices
from agent.backtest.result import SimulationResult, YearGain, rebalancing_premium, time_weighted_return
from agent.backtest.settings import PERMISSIVE_LIMITS, AppliedTransfer, BacktestSpec, SimulationSettings, make_spec
from agent.backtest.simulate import simulate
from agent.backtest.stress.paths import SpotScenario, SpotSeverity, apply_scenario
from agent.backtest.stress.run import StressSpec
from agent.backtest.sweep import KernelSetting, TradingCosts
from agent.backtest.tune.grid import PolicyGrid, calendar_rule
from agent.backtest.tune.jobs import AllocatorSchedule, TuneChunk, TuneJob
from agent.backtest.tune.search import ChunkRunner, TuneResult, TuneSpec, tune
from agent.backtest.tune.statistics import Objective
from agent.backtest.workers import run_locally
from agent.backtest.world import TransactionCost
from agent.cli.research.trial_texts import parse_grid
from agent.model import Destination, Every, HybridTrigger, Threshold, Trigger
from tests.support.constants import DAY_S, HOUR_S

# --- Tables, specs and markets of simulations, so that tests state only what differs.


START_S = 1_700_000_000 - 1_700_000_000 % 3_600
COIN = 10**18
BAND = Threshold(500, None)
HALVES = {"BTC": 5_000, "USD": 5_000}
DEEP = SimulationSettings(depth=Fraction(10**9), fee_pips=1_000, start_value=Fraction(10_000))
"""Fees of 10 bps and almost no impact."""


def make_price_table(times_s: Sequence[int], closes_by_symbol: Mapping[str, Sequence[float]]) -> PriceTable:
    """Return a checked table of plain numbers."""
    closes = np.column_stack([np.asarray(symbol_closes, dtype=np.float64) for symbol_closes in closes_by_symbol.values()])
    return validate_prices(PriceTable(tuple(closes_by_symbol), np.asarray(times_s, dtype=np.int64), closes))


def hourly(bar_s: int = HOUR_S, **closes: Sequence[float]) -> PriceTable:
    """Return a table with one bar an hour, or every `bar_s`."""
    bars = len(next(iter(closes.values())))
    return make_price_table([START_S + bar_s * bar for bar in range(bars)], closes)


def random_table(
    seed: int, bars: int, symbols: Sequence[str] = ("BTC", "ETH"), volatility: float = 0.03, *, places: int = 4, bar_s: int = HOUR_S
) -> PriceTable:
    """Return geometric random walks from 100, with so many decimals."""
    steps = np.random.default_rng(seed).normal(0, volatility, (bars, len(symbols)))
    paths = np.round(100 * np.exp(np.cumsum(steps, axis=0)), places)
    return hourly(bar_s, **{symbol: paths[:, column].tolist() for column, symbol in enumerate(symbols)})


def halves(trigger: Trigger = BAND) -> BacktestSpec:
    """Return a spec with half in BTC and half in USD, which the tables lack."""
    return make_spec(HALVES, trigger, "USD")


def with_reserve(spec: BacktestSpec, symbol: str, coins: int) -> BacktestSpec:
    """Return the spec with a reserve of one asset, whole coins."""
    assets = tuple(
        replace(asset, reserve_raw=coins * asset.token.unit) if asset.token.symbol == symbol else asset for asset in spec.portfolio.assets
    )
    return replace(spec, portfolio=replace(spec.portfolio, assets=assets))


def simulation_of(table: PriceTable, spec: BacktestSpec | None = None, **changes: object) -> SimulationResult:
    """Run a simulation in a deep market, with `changes` of its settings."""
    return simulate(spec or halves(), table, replace(DEEP, **changes))  # type: ignore[arg-type]  # field names, checked by replace


# --- Portfolios, prices and specs for stress tests, so that tests state only what differs.


BARS = 18
BEGINS = 6
ENDS = 12
"""The middle third."""
RISES_AT = BEGINS


def risen_prices() -> PriceTable:
    """Return BTC at 100, and from the first bar of the middle third on at 130: 56.5 % instead of 50 %, beyond a band of five points."""
    return hourly(BTC=[100.0] * RISES_AT + [130.0] * (BARS - RISES_AT))


def guarded_spec(**limits: object) -> BacktestSpec:
    """Return a spec with half BTC, which pays the gas, half USD, and only these limits."""
    return replace(make_spec(HALVES, BAND, "USD", native="BTC"), limits=replace(PERMISSIVE_LIMITS, **limits))  # type: ignore[arg-type]  # checked by replace


def simulation_under(
    scenario: SpotScenario,
    spec: BacktestSpec,
    table: PriceTable,
    settings: SimulationSettings = DEEP,
    severity: SpotSeverity | None = None,
) -> SimulationResult:
    """Run the live step over the prices with the scenario applied."""
    laid = apply_scenario(scenario, spec, table, settings, severity or SpotSeverity(crash_bars=3))
    return simulate(spec, laid.table, laid.settings)


def wish(paths: int = 20, step_paths: int = 1, bars: int = 40, scenarios: tuple[SpotScenario, ...] = (), **others: object) -> StressSpec:
    """Return the spec of a small stress test."""
    return StressSpec(paths, step_paths, bars, scenarios, SpotSeverity(), **others)  # type: ignore[arg-type]  # field names, checked at run time


# --- Searches of settings over artificial prices, so that tests state only what differs.


CALENDAR = calendar_rule(28 * DAY_S)
FAIR = SimulationSettings(Fraction(10**9), 1_000, Fraction(10_000))
TERMS = AllocatorSchedule(7 * DAY_S, 20 * DAY_S)
WALKING = {"A": 4_000, "B": 3_000, "USD": 3_000}


def daily(closes: Mapping[str, Sequence[float]]) -> PriceTable:
    """Return a table with one bar a day."""
    return hourly(DAY_S, **closes)


def walks(seed: int, bars: int, volatility: float = 0.04) -> PriceTable:
    """Return two geometric random walks by day."""
    return random_table(seed, bars, ("A", "B"), volatility, places=6, bar_s=DAY_S)


def swinging(bars: int, seed: int = 0) -> PriceTable:
    """Return two assets that swing against each other by 30 % with a period of eight days: rebalancing at a band profits, a calendar of
    whole periods does not.
    """
    noise = np.random.default_rng(seed).normal(0, 0.002, (bars, 2))
    swing = 0.3 * np.sin(np.arange(bars) * np.pi / 4)
    return daily({"A": (100 * np.exp(swing + noise[:, 0])).tolist(), "B": (100 * np.exp(-swing + noise[:, 1])).tolist()})


def grid_of(band: str = "", every: str = "", **texts: str) -> PolicyGrid:
    """Return the grid of a search for growth, from texts as `trimtab tune` takes them."""
    return searched_grid(parse_grid(band, every, **texts), Objective.GROWTH)


def search(table: PriceTable, band: str = "2%rel..20%rel:4", every: str = "", **changes: object) -> TuneSpec:
    """Return a search for growth over bands, with `changes`."""
    tracking = str(changes.pop("tracking", ""))
    grid = grid_of(
        band, every, destination=str(changes.pop("destination", "")), allocator=str(changes.pop("allocator", "")), tracking=tracking
    )
    spec = make_spec(WALKING, Every(28 * DAY_S), "USD", interval_s=table.interval_s)
    tune_spec = TuneSpec(table, spec, FAIR, grid, CALENDAR, TERMS, Objective.GROWTH)
    return replace(tune_spec, **changes)  # type: ignore[arg-type]  # field names, checked by replace


def allowed(_job: TuneJob, _rest: Sequence[TuneChunk]) -> None:
    """Allow a search without a question."""


def tune_result_of(
    objective: TuneSpec, folder: Path | None = None, work: ChunkRunner | None = None, progress: Callable[[int, int], None] | None = None
) -> TuneResult:
    """Run a search in this process."""
    return tune(objective, work or (lambda job, rest: run_locally(job, rest, 1)), folder, allowed, progress or (lambda _done, _runs: None))


# --- Simulation results built from random walks, so that reports of any length need no simulation.


REPORT_START_S = 1_609_459_200
"""2021-01-01, UTC."""
DECIMALS = 6
SCALE = 10**DECIMALS
START = 10_000.0
HOSTILE = '</script><script>window.bad=1</script><img src=x onerror="window.bad=1">'
LINK = '<a href="https://evil.example/">free</a>&lt;b&gt;'


def result_of(
    symbols: Sequence[str] = ("BTC", "ETH", "USD"),
    bars: int = 500,
    *,
    every: int = 100,
    cost: float = 0.001,
    seed: int = 1,
    bar_s: int = HOUR_S,
    volatility: float = 0.01,
    flows: Sequence[tuple[int, float]] = (),
    drift: float = 0.0,
    numeraire: str = "USD",
) -> SimulationResult:
    """Return a result with equal targets, rebalanced every `every` bars (0: never) at `cost` of the value moved; the last symbol is the
    numeraire.
    """
    count = len(symbols)
    steps = np.random.default_rng(seed).normal(drift, volatility, (bars, count))
    steps[0] = 0
    steps[:, -1] = 0
    prices = 100 * np.exp(np.cumsum(steps, axis=0))
    prices[:, -1] = 1.0
    units = START / count / prices[0]
    hold_units = units.copy()
    equity = np.empty(bars)
    hold = np.empty(bars)
    weights = np.empty((bars, count))
    done = []
    paid = 0.0
    shares = np.zeros(bars)
    came = dict(flows)
    transfers = []
    for bar in range(bars):
        if bar in came:
            before = units @ prices[bar]
            hold_before = hold_units @ prices[bar]
            transfers.append(AppliedTransfer(bar, REPORT_START_S + bar * bar_s, exact(came[bar]), exact(before), exact(hold_before)))
            units = units * (1 + came[bar] / before)
            hold_units = hold_units * (1 + came[bar] / hold_before)
        whole = units @ prices[bar]
        if every and bar and bar % every == 0:
            moved = np.abs(units * prices[bar] - whole / count).sum() / 2
            taken = cost * moved
            paid, shares[bar] = paid + taken, taken / whole
            whole -= taken
            units = whole / count / prices[bar]
            done.append(
                TransactionCost(bar, REPORT_START_S + bar * bar_s, exact(moved), exact(taken), Fraction(0), Fraction(0), True, True)
            )
        equity[bar], hold[bar] = whole, hold_units @ prices[bar]
        weights[bar] = units * prices[bar] / whole
    targets = np.full((bars, count), 1 / count)
    times_s = REPORT_START_S + bar_s * np.arange(bars)
    result = SimulationResult(
        symbols=tuple(symbols),
        numeraire=numeraire,
        decimals=DECIMALS,
        times_s=times_s,
        equity=equity,
        hold_equity=hold,
        weights=weights,
        rebalances=tuple(done),
        final_value=exact(equity[-1]),
        hold_value=exact(hold[-1]),
        start_value=exact(START),
        turnover_ratio=sum((trade.turnover / exact(equity[trade.bar]) for trade in done), Fraction(0)),
        fees=exact(paid),
        impact=Fraction(0),
        gas=Fraction(0),
        balances=(),
        bar_count=bars,
        evaluated_bar_count=len(done) + 1,
        halted_bar_count=0,
        refusal_counts=(("price_impact", 2),) if done else (),
        notes=(),
        config_hash="c0" * 32,
        data_hash="da" * 32,
        seed=seed,
        versions=(("trimtab", "0.1.0"),),
        transfers=tuple(transfers),
        prices=prices,
        units=weights * equity[:, None] / prices,
        targets=targets,
        bands=np.stack([targets * 0.9, targets * 1.1], axis=2),
        yearly_gains=(YearGain(2021, exact(12.5)), YearGain(2022, exact(-3.25))),
        parameters=(("depth", "1000000"), ("seed", str(seed))),
        premium=rebalancing_premium(prices, weights, shares, times_s),
    )
    return with_series(result)


def with_series(series: SimulationResult, **changes: object) -> SimulationResult:
    """Return the result with changed series, and with the final values and returns of those."""
    changed = replace(series, **changes)  # type: ignore[arg-type]  # field names, checked by replace
    scale = 10**series.decimals
    final_value = Fraction(float(changed.equity[-1])) * scale
    hold_value = Fraction(float(changed.hold_equity[-1])) * scale
    flows = changed.transfers
    return replace(
        changed,
        final_value=final_value,
        hold_value=hold_value,
        twr=time_weighted_return(changed.start_value, final_value, [(flow.value_before, flow.value) for flow in flows]),
        hold_twr=time_weighted_return(changed.start_value, hold_value, [(flow.hold_value_before, flow.value) for flow in flows]),
    )


def exact(coins: float) -> Fraction:
    """Return the base units of whole coins."""
    return Fraction(float(coins)) * SCALE


MARKET_START_S = 1_600_000_000
MARKET_HOUR_S = 3_600
VALUE = 1e6
SYMBOLS = ("A", "B", "C", "D", "E")


def market(seed: int, bars: int, assets: int, missing: bool = False) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return times an hour apart, some further, and prices that move by about 3 % a bar; with `missing`, some start late, end early or
    have gaps.
    """
    chance = np.random.default_rng(seed)
    times = MARKET_START_S + np.cumsum(chance.choice([1, 1, 1, 1, 1, 1, 1, 3], bars)) * MARKET_HOUR_S
    prices = 10 ** chance.uniform(-3, 4, assets) * np.exp(np.cumsum(0.03 * chance.standard_normal((bars, assets)), axis=0))
    if missing:
        prices[chance.random((bars, assets)) < 0.01] = np.nan
        prices[: bars // 3, 1] = np.nan
        prices[bars * 2 // 3 :, assets - 1] = np.nan
        prices[0, 0] = 1.0
    return times, prices


@st.composite
def settings_of(draw: st.DrawFn, assets: int) -> KernelSetting:
    """Draw any trigger, destination and cost that the kernel supports."""
    cuts = sorted(draw(st.lists(st.integers(0, 10_000), min_size=assets - 1, max_size=assets - 1)))
    targets = tuple(b - a for a, b in zip([0, *cuts], [*cuts, 10_000], strict=True))
    absolute, relative = draw(st.sampled_from([(300, None), (800, None), (None, 1_000), (None, 2_500), (500, 2_000)]))
    band = Threshold(absolute, relative)
    every = Every(draw(st.sampled_from([3_600, 18_000, 86_400, 250_000])))
    trigger = draw(st.sampled_from([band, every, HybridTrigger(band, every)]))
    destination = draw(st.sampled_from([Destination.TARGET, Destination.HALFWAY, Destination.BAND]))
    if isinstance(trigger, Every) and destination is Destination.BAND:
        destination = Destination.TARGET
    fee = draw(st.sampled_from([0.0, 10.0, 300.0]))
    depth = draw(st.sampled_from([inf, 1e8, 3e5]))
    numeraire = draw(st.sampled_from([None, 0]))
    cooldown_s = draw(st.sampled_from([0, 0, 30_000]))
    least = draw(st.sampled_from([0.0, 0.0, 20_000.0]))
    return KernelSetting(targets, trigger, destination, TradingCosts.for_pools(fee, depth, assets, numeraire), cooldown_s, least)


def spread(shares: list[float], least: list[float], most: list[float]) -> list[float]:
    """Move each share to the nearest point of its interval, and spread the difference in proportion to the room of each."""
    land = [min(max(share, a), b) for share, a, b in zip(shares, least, most, strict=True)]
    rest = 1.0 - sum(land)
    rooms = [b - x if rest > 0 else x - a for x, a, b in zip(land, least, most, strict=True)]
    return land if sum(rooms) == 0 else [x + rest * room / sum(rooms) for x, room in zip(land, rooms, strict=True)]
