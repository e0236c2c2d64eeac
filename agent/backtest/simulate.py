"""Run the engine's step over every bar of a price table, and collect the result."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray

from agent import codec
from agent.backtest.context import SimulationContext, deadline_s, open_simulation
from agent.backtest.data import PriceTable, numeraire_prices, select_spec_symbols
from agent.backtest.funding import FundingRateSeries, require_prices
from agent.backtest.futures.simulate import (
    QUOTE,
    FuturesResult,
    beside_held,
    policies_by_bar,
    settings_digest,
)
from agent.backtest.futures.venue import FuturesSetup, SimulatedVenue
from agent.backtest.result import (
    PortfolioPaths,
    RebalanceRecord,
    SimulationResult,
    TargetBands,
    TaxLotLedger,
    delisted_holdings,
    format_delisted,
    funding_of_holdings,
    futures_years,
    portfolio_paths,
    premium_of_simulation,
    target_bands,
    time_weighted_returns,
)
from agent.backtest.settings import IN_NUMERAIRE, LEAVE, BacktestSpec, HealthLog, SimulationSettings
from agent.backtest.world import (
    EndOfPrices,
    Fill,
    SimulatedWallet,
    SimulatedWorld,
    balances_at_targets,
)
from agent.errors import ConfigError, Refused, Retryable
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.futures.execution.cycle import futures_plan
from agent.layers.futures.policy.chosen_weights import chosen_futures
from agent.layers.futures.policy.targets import emergency_orders, triggered
from agent.layers.strategies.policy.futures import chosen_shares
from agent.layers.strategies.state import CapitalSplit, StrategiesState
from agent.model import ExecutionStyle, Hold, NoTradeZone, schedules_of
from agent.policy.drift import band, has_band
from agent.policy.triggers.rules import is_plain
from agent.reference import is_dollar
from agent.units import BPS, decimal_text, floor_int

BAND_MARGIN = 1e-6
"""Distance to a band's edge, as a share of the portfolio, below which the exact step decides. Far
above float errors.
"""
AT_ONCE = 0


class DueBarFinder:
    """Finds the next bar at which a trade may be due, for policies of bands or of one schedule
    alone; for other policies every bar is due.

    With bands, a bar is quiet if every weight is inside its band by more than BAND_MARGIN; with a
    schedule, if no review is due. At quiet bars `decide` would hold and change no stored state.
    While a price is stale `decide` halts; the first of those bars is evaluated, or all of them if
    the simulation continues without the asset. Each bar's prices are compared with the current
    holdings; later bars are not used.

    With futures every bar is visited, and `is_quiet` then decides, because marks, funding payments
    and liquidations change the margin account.
    """

    def __init__(self, world: SimulatedWorld) -> None:
        self._world = world
        self._fits, self._leaves = _may_skip_bars(world), world.settings.gone == LEAVE
        self._by_time = bool(schedules_of(world.backtest.policy.trigger))
        self._due_s = AT_ONCE
        if not self._fits:
            return
        portfolio, trigger = world.backtest.portfolio, world.backtest.policy.trigger
        tokens = [asset.token for asset in portfolio.assets]
        self._prices = numeraire_prices(world.backtest, world.table, world.closes, tokens)
        edges = [
            band(trigger, asset.target_bps, asset.band, asset.max_bps) for asset in portfolio.assets
        ]
        self._bands = np.array([(float(low) / BPS, float(high) / BPS) for low, high in edges])
        named = dict.fromkeys(token.address for token in (*tokens, portfolio.numeraire))
        used = [world.columns[address] for address in named if address in world.columns]
        self._stale: NDArray[np.bool_] = np.logical_or.reduce(world.stale[:, used], axis=1)

    def evaluated(self, outcome: StepOutcome | None) -> None:
        """Record the schedule's next due time after a cycle; immediately if its review is not
        complete.
        """
        if outcome is None or outcome.kind is OutcomeKind.HALT:
            return
        waits = isinstance(outcome.decision, Hold) and outcome.decision.kept_by == ""
        done = outcome.kind in (OutcomeKind.HOLD, OutcomeKind.DONE)
        self._due_s = AT_ONCE
        if done and (outcome.decided.reviewed or waits):
            self._due_s = outcome.decided.next_s or AT_ONCE

    def next_bar(self, after: int) -> int:
        """Return the first bar after `after` to evaluate; the number of bars if there is none."""
        bars = self._world.table.bars
        if not self._fits or self._world.venue is not None or after + 1 >= bars:
            return after + 1
        start, size = after + 1, 64
        while start < bars:
            end = min(bars, start + size)
            due = self._due_bars(start, end)
            if due.any():
                return start + int(np.argmax(due))
            start, size = end, 2 * size
        return bars

    def is_quiet(self) -> bool:
        """Return whether the world's bar needs no step, in a simulation with futures: no weight is
        outside its band, no schedule is due, no futures trigger fires, no hedge is open, and every
        price is new.
        """
        world = self._world
        if not self._fits or (venue := world.venue) is None or world.settings.looks_at_all:
            return False
        bar, account, policy = world.bar, venue.book.account, venue.setup.policy
        if (
            world.pending
            or venue.open_hedges
            or self._stale[bar]
            or self._due_bars(bar, bar + 1)[0]
        ):
            return False
        spot = world.value(world.wallet.balances) * Fraction(QUOTE.unit, world.money.unit)
        return not emergency_orders(account, policy) and not triggered(account, policy, spot)

    def halted(self, start: int, end: int) -> int:
        """Return the number of unevaluated bars in [start, end) with a stale price."""
        if not self._fits or self._leaves:
            return 0
        return int(self._stale[start:end].sum())

    def count_waiting(self, start: int, end: int) -> int:
        """Return the number of bars in the range with a weight outside its band while the schedule
        is not due; zero without a band.
        """
        banded = has_band(self._world.backtest.policy.trigger)
        if not (self._fits and self._by_time and banded) or end <= start:
            return 0
        return int((self._outside(start, end, 0) & ~self._stale[start:end]).sum())

    def _due_bars(self, start: int, end: int) -> NDArray[np.bool_]:
        stale = self._stale[start:end]
        halts = stale
        if not self._leaves:
            halts = stale & ~self._stale[start - 1 : end - 1]
        if self._by_time:
            due = self._world.table.times_s[start:end] >= self._due_s
        else:
            due = self._outside(start, end, BAND_MARGIN)
        bars: NDArray[np.bool_] = (due & ~stale) | halts
        return bars

    def _outside(self, start: int, end: int, margin: float) -> NDArray[np.bool_]:
        """Return a mask of bars with a weight beyond its band, or within `margin` of an edge."""
        portfolio, balances = self._world.backtest.portfolio, self._world.wallet.balances
        amounts = np.array(
            [balances[a.token.address] / 10.0**a.token.decimals for a in portfolio.assets]
        )
        values = amounts * self._prices[start:end]
        venue = self._world.venue
        if venue is not None and venue.setup.policy.margin_in_weights:
            # at the world's bar, the only one requested
            tokens = [asset.token.address for asset in portfolio.assets]
            account = float(venue.value(self._world.money) / self._world.money.unit)
            values[:, tokens.index(venue.setup.collateral.address)] += max(0.0, account)
        whole = values.sum(axis=1, keepdims=True)
        weights = np.divide(values, whole, out=np.zeros_like(values), where=whole > 0)
        outside: NDArray[np.bool_] = (
            (weights < self._bands[:, 0] + margin) | (weights > self._bands[:, 1] - margin)
        ).any(axis=1)
        return outside


def _may_skip_bars(world: SimulatedWorld) -> bool:
    """Return whether only bands around fixed targets, or one schedule without jitter, can make this
    policy act, without other state.
    """
    spec = world.backtest
    portfolio, limits, trigger = spec.portfolio, spec.limits, spec.policy.trigger
    known = is_plain(trigger)
    if schedules_of(trigger):  # a maximum weight may be exceeded at any bar
        known = (
            known
            and spec.policy.jitter_bps == 0
            and all(asset.max_bps is None for asset in portfolio.assets)
        )
    plain = known and spec.split is None and spec.policy.only is None
    fixed = (
        portfolio.weights is None
        and not portfolio.orders.terms
        and spec.execution.pace.style is ExecutionStyle.MARKET
    )
    whole = all(asset.reserve_raw == 0 for asset in portfolio.assets)
    pegged = limits.depeg_bps is not None and any(
        is_dollar(a.token) and a.token.address in world.columns for a in portfolio.assets
    )
    return plain and fixed and whole and not pegged


Progress = Callable[[int, int], None]
"""Called with the numbers of finished bars and of all bars."""
LONGEST = 200
AMOUNT = re.compile(r"(?<![\w.])\d[\d,]*(\.\d+)?(?!\w)")
"""Numbers in a reason. Refusals that differ only in numbers count as one."""
LIBRARIES = ("trimtab", "numpy", "scipy", "polars")
__all__ = [
    "Progress",
    "RebalanceRecord",
    "SimulationResult",
    "SimulationRun",
    "open_run",
    "parameter_texts",
    "simulate",
    "spec_digest",
]


def simulate(
    spec: BacktestSpec,
    table: PriceTable,
    settings: SimulationSettings,
    progress: Progress | None = None,
    funding: Sequence[FundingRateSeries] = (),
    futures: FuturesSetup | None = None,
) -> SimulationResult:
    """Run a whole simulation. With `futures` the same steps trade spot and futures.

    The wallet begins at its targets, at the first bar at which every symbol has a price. `funding`
    does not affect trades; the result includes the funding that shorts of the holdings would have
    received. Raises ConfigError for symbols missing from the table, and errors of a step other than
    refusals and network errors.
    """
    with open_run(spec, table, settings, futures) as run:
        require_prices(funding, table.symbols, run.world.table.times_s)
        while run.next():
            if progress is not None:
                progress(run.world.bar + 1, run.world.table.bars)
        result = run.result()
        if not funding:
            return result
        summary, notes = funding_of_holdings(run.world, funding)
        return replace(result, funding=summary, notes=(*result.notes, *notes))


class SimulationRun:
    """A simulation in progress: each `next` advances to the next bar to evaluate. A context manager
    that closes its store.
    """

    def __init__(
        self,
        spec: BacktestSpec,
        table: PriceTable,
        settings: SimulationSettings,
        futures: FuturesSetup | None = None,
    ) -> None:
        self.world = _world(spec, table, settings, futures)
        self.outcome: StepOutcome | None = None
        self._context = open_simulation(self.world)
        self._goals: list[TargetBands] = []
        self._futures: list[tuple[int, tuple[tuple[str, Fraction], ...]]] = []
        self._evaluated = self._halted = 0
        self._refused: dict[str, int] = {}
        self._kept: dict[str, int] = {}
        self._refused_futures: dict[str, int] = {}
        self._health = HealthLog()
        self._ended: tuple[str, ...] = ()
        self._quiet = DueBarFinder(self.world)

    def __enter__(self) -> SimulationRun:
        self.context: SimulationContext = self._context.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)

    def next(self) -> bool:
        """Evaluate the next bar; return False at the end."""
        world, begun = self.world, self._evaluated > 0
        bar = self._next_bar() if begun else world.bar
        if bar >= world.table.bars:
            return False
        try:
            if begun:
                world.advance_to(bar)
                while self._quiet.is_quiet():
                    _count(self._kept, "policy.trigger", self._quiet.count_waiting(bar, bar + 1))
                    bar += 1
                    if bar >= world.table.bars:
                        return False
                    world.advance_to(bar)
            self._evaluate()
        except EndOfPrices:
            self._ended = (
                f"{len(world.pending)} transaction was still pending at the end of the data",
            )
            return False
        return True

    def _next_bar(self) -> int:
        """Return the next bar to evaluate, and count the quiet bars before it."""
        world = self.world
        if world.settings.looks_at_all:
            return world.bar + 1
        bar = min(self._quiet.next_bar(world.bar), world.next_transfer_bar())
        self._halted += self._quiet.halted(world.bar + 1, bar)
        _count(self._kept, "policy.trigger", self._quiet.count_waiting(world.bar + 1, bar))
        return bar

    def _evaluate(self) -> None:
        self._evaluated += 1
        self.outcome = None
        try:
            self.outcome = outcome = self.context.step()
        except (Retryable, Refused) as error:
            _count(self._refused, error.message)
            return
        self._quiet.evaluated(outcome)
        self._health.add(self.world.bar_s, outcome.step_input.layer(StrategiesState).books)
        plan = futures_plan(outcome)
        for why in () if plan is None else plan.refused:
            _count(self._refused_futures, why)
        step = outcome.step_input
        shares = (
            chosen_shares(step.config(CapitalSplit), step.layer(StrategiesState))
            if step.divides_wallet
            else chosen_futures(step)
        )
        if shares is not None and (
            not self._futures or self._futures[-1][1] != tuple(shares.items())
        ):
            self._futures.append((self.world.bar, tuple(shares.items())))
        drifts, spec = outcome.decided.drifts, self.world.backtest
        banded = has_band(spec.policy.trigger) and spec.split is None
        if drifts:
            goal = target_bands(
                self.world.bar, drifts, banded or isinstance(spec.policy.trigger, NoTradeZone)
            )
            if not self._goals:
                self._goals.append(replace(goal, bar=0))
            elif goal != replace(self._goals[-1], bar=goal.bar):
                self._goals.append(goal)
        self._halted += outcome.kind is OutcomeKind.HALT
        if outcome.kind in (OutcomeKind.REFUSED, OutcomeKind.FAILED):
            failing = [verdict.guard for verdict in outcome.verdicts if not verdict.passed]
            why = ", ".join(failing) or AMOUNT.sub("…", outcome.reason)
            _count(self._refused if plan is None else self._refused_futures, why)
        elif isinstance(outcome.decision, Hold):
            kept_by = outcome.decision.kept_by
            if not kept_by and banded and any(drift.outside for drift in drifts):
                kept_by = "policy.trigger"
            if kept_by:
                _count(self._kept, kept_by)

    def result(self) -> SimulationResult:
        """Return the result so far, up to the last bar of the table."""
        world, spec, money = self.world, self.world.backtest, self.world.money
        if world.bar < world.table.bars - 1:
            world.advance_to(world.table.bars - 1)
        world.record()
        if world.venue is not None:
            world.venue.record()
        paths, flows, fills = portfolio_paths(world, self._goals), tuple(world.flowed), world.fills
        rebalances = _rebalances(world, fills)
        scale = 10**money.decimals
        shares = [
            rebalance.turnover / (Fraction(float(paths.equity[rebalance.bar])) * scale)
            for rebalance in rebalances
        ]
        start = world.settings.start_value * scale
        if world.venue is not None:
            start += Fraction(world.venue.setup.settings.collateral_raw * scale, QUOTE.unit)
        twr, hold_twr = time_weighted_returns(world, start, flows)
        final = world.wealth()
        delisted = delisted_holdings(world, final)
        ledger = TaxLotLedger(self.context.store, spec.portfolio, spec.tax)
        return SimulationResult(
            symbols=tuple(asset.token.symbol for asset in spec.portfolio.assets),
            numeraire=money.symbol,
            decimals=money.decimals,
            times_s=world.table.times_s,
            equity=paths.equity,
            hold=paths.hold,
            weights=paths.weights,
            rebalances=rebalances,
            final_value=final,
            hold_value=world.value(world.hold),
            start_value=start,
            turnover=sum(shares, Fraction(0)),
            fees=sum((fill.fees for fill in fills), Fraction(0)),
            impact=sum((fill.impact for fill in fills), Fraction(0)),
            gas=world.gas_paid,
            balances=tuple(world.wallet.balances.items()),
            bars=world.table.bars,
            evaluated=self._evaluated,
            halted=self._halted,
            refused=tuple(sorted(self._refused.items())),
            notes=(
                *world.table.notes,
                *self._ended,
                *(format_delisted(holding, money.symbol, money.decimals) for holding in delisted),
                *_cap_note(spec, start),
            ),
            config_hash=spec_digest(
                spec, world.settings, None if world.venue is None else world.venue.setup
            ),
            data_hash=world.table.digest,
            seed=world.settings.seed,
            versions=library_versions(),
            kept=tuple(sorted(self._kept.items())),
            futures_weights=tuple(self._futures),
            flows=flows,
            twr=twr,
            hold_twr=hold_twr,
            prices=paths.prices,
            targets=paths.targets,
            bands=paths.bands,
            lots=spec.tax.method.value,
            taxes=ledger.years(int(world.table.times_s[0]), int(world.table.times_s[-1])),
            futures_taxes=futures_years(world),
            parameters=parameter_texts(world.settings),
            policy=codec.dumps(spec.policy),
            premium=(
                premium_of_simulation(world, paths, rebalances) if world.venue is None else None
            ),
            ended=delisted,
            book=self._book(paths),
            health=tuple(self._health.changes),
            strategies=self._health.newest,
        )

    def _book(self, paths: PortfolioPaths) -> FuturesResult | None:
        """Return the result of the futures traded by the steps, beside that of holding the first
        positions.
        """
        if (venue := self.world.venue) is None:
            return None
        settings, names = venue.setup.settings, venue.symbols
        weights = [
            (bar, {names[market]: weight for market, weight in future})
            for bar, future in self._futures
        ]
        spot = (paths.equity - venue.values()).tolist()
        return beside_held(
            venue.result(sorted(self._refused_futures.items())),
            venue.path,
            settings,
            [Fraction(str(value)) * QUOTE.unit for value in spot],
            policies_by_bar(settings.policy, weights, range(venue.path.bars)),
            venue.hedges(),
        )


def open_run(
    spec: BacktestSpec,
    table: PriceTable,
    settings: SimulationSettings,
    futures: FuturesSetup | None = None,
) -> SimulationRun:
    """Open a simulation to run bar by bar."""
    return SimulationRun(spec, table, settings, futures)


def parameter_texts(settings: SimulationSettings) -> tuple[tuple[str, str], ...]:
    """Return the market parameters as short texts, long series as their hash."""
    texts = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        text = str(value)
        if isinstance(value, Sequence) and not isinstance(value, str):
            text = repr(tuple(value))
        if len(text) > LONGEST:
            text = f"sha256 {sha256(text.encode()).hexdigest()}"
        texts.append((field.name, text))
    return tuple(texts)


def _cap_note(spec: BacktestSpec, start: Fraction) -> tuple[str, ...]:
    """Return a note if portfolio.max_live_value refuses every trade from the start."""
    cap, money = spec.limits.max_live_value, spec.portfolio.numeraire
    if cap is None or start <= cap:
        return ()
    texts = [decimal_text(floor_int(raw), money.decimals) for raw in (cap, start)]
    return (
        f"portfolio.max_live_value of {texts[0]} {money.label} is below the start value of"
        f" {texts[1]}, so every rebalance was refused: set --value, or raise it in a copy of the"
        " config",
    )


def spec_digest(
    spec: BacktestSpec, settings: SimulationSettings, futures: FuturesSetup | None = None
) -> str:
    """Return the SHA-256 of spec, market and futures, without `looks_at_all`, which does not change
    the result.
    """
    parts = (
        spec.portfolio,
        spec.policy,
        spec.reference,
        spec.limits,
        spec.execution,
        *spec.layers,
    )
    texts = [codec.dumps(part) for part in parts]
    texts += [
        repr(spec.tax),
        *(f"{name}={text}" for name, text in parameter_texts(settings) if name != "looks_at_all"),
    ]
    if futures is not None:
        texts += [settings_digest(futures.settings), codec.dumps(futures.policy)]
    return sha256("\n".join(texts).encode()).hexdigest()


def _world(
    spec: BacktestSpec,
    table: PriceTable,
    settings: SimulationSettings,
    futures: FuturesSetup | None,
) -> SimulatedWorld:
    money = spec.portfolio.numeraire
    used = select_spec_symbols(spec, table)
    if not isinstance(settings.gas_wei, int):
        if len(settings.gas_wei) != table.bars:
            raise ConfigError(
                f"gas prices for {len(settings.gas_wei)} bars, but the table has {table.bars}"
            )
        settings = replace(settings, gas_wei=tuple(settings.gas_wei)[table.bars - used.bars :])
    if (
        settings.flows
        and settings.flows_in == IN_NUMERAIRE
        and all(asset.token != money for asset in spec.portfolio.assets)
    ):
        raise ConfigError(
            f"--flow: {money.symbol} is not an asset of the portfolio",
            "use --flows-in pro-rata",
        )
    world = SimulatedWorld(spec, used, settings, SimulatedWallet({}, {}))
    if futures is not None:
        world.venue = SimulatedVenue(futures, used, deadline_s(spec, settings, used))
    world.advance_to(0)
    world.wallet.balances = balances_at_targets(world)
    world.hold = dict(world.wallet.balances)
    if futures is not None:
        world.hold[futures.collateral.address] += futures.margin_raw
    return world


def _count(counts: dict[str, int], why: str, times: int = 1) -> None:
    if times:
        counts[why] = counts.get(why, 0) + times


def _rebalances(world: SimulatedWorld, fills: list[Fill]) -> tuple[RebalanceRecord, ...]:
    """Return the swaps, each with the gas of the approvals before it."""
    rebalances, gas = [], Fraction(0)
    for fill in fills:
        gas += fill.gas
        if fill.swap:
            time_s = int(world.table.times_s[fill.bar])
            rebalances.append(
                RebalanceRecord(
                    fill.bar, time_s, fill.turnover, fill.fees, fill.impact, gas, fill.succeeded
                )
            )
            gas = Fraction(0)
    return tuple(rebalances)


def library_versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of the libraries that affect a result."""
    versions = []
    for name in LIBRARIES:
        try:
            versions.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(versions)
