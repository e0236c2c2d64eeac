"""Run the engine's step over every bar of a price table, and collect the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray

from agent import codec
from agent.backtest.context import SimulationContext, open_simulation, tx_validity_s
from agent.backtest.data import PriceTable, prices_in_numeraire, select_spec_symbols
from agent.backtest.funding import FundingRateSeries, require_prices
from agent.backtest.futures.simulate import (
    QUOTE,
    FuturesResult,
    held_book,
    policies_by_bar,
)
from agent.backtest.futures.venue import FuturesSetup, SimulatedVenue
from agent.backtest.loss.backtests import backtest_loss
from agent.backtest.result import (
    PortfolioPaths,
    SimulatedTaxRuns,
    SimulationResult,
    TargetBands,
    delisted_holdings,
    format_delisted_holding,
    funding_of_holdings,
    futures_yearly_gains,
    portfolio_paths,
    premium_of_simulation,
    target_bands,
    time_weighted_returns,
)
from agent.backtest.settings import (
    IN_NUMERAIRE,
    LEAVE_WHEN_GONE,
    NUMBER_PATTERN,
    BacktestSpec,
    ChoiceLog,
    HaltLog,
    HealthLog,
    SimulationSettings,
)
from agent.backtest.tracking_bars import RuleAtStep, rule_after
from agent.backtest.world import (
    EndOfPrices,
    SimulatedWallet,
    SimulatedWorld,
    TransactionCost,
    balances_at_targets,
)
from agent.errors import ConfigError, Refused, Retryable
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.floats import FloatArray
from agent.layers.futures.execution.cycle import futures_plan_of
from agent.layers.futures.policy.chosen_weights import chosen_share_by_market
from agent.layers.futures.policy.targets import due_triggers, emergency_sizes
from agent.layers.strategies.policy.futures import target_market_shares
from agent.layers.strategies.state import CapitalSplit, StrategiesState
from agent.model import ExecutionStyle, Hold, NoTradeZone, schedules_of
from agent.policy.drift import band, has_band
from agent.policy.triggers.rules import is_band_and_schedule_only
from agent.reference import is_dollar
from agent.units import BPS, decimal_text, floor_int, pluralize

DEPEG_MARGIN_BPS = 1
"""Distance from limits.depeg within which every bar is evaluated."""
BAND_MARGIN = 1e-6
"""Distance to a band's edge, as a share of the portfolio, below which the exact step decides. Far
above float errors.
"""
DUE_NOW_S = 0


class DueBarFinder:
    """Finds the next bar at which a trade may be due, for policies of bands, of one schedule or of
    the tracking rule alone; for other policies every bar is due.

    With bands, a bar is quiet if every weight is inside its band by more than BAND_MARGIN; with a
    schedule, if no review is due; by the tracking rule, if no token comes near its trigger
    (agent/backtest/tracking_bars.py). At quiet bars `decide` would hold and change no stored state.
    While a price is stale `decide` halts; the first of those bars is evaluated, or all of them if
    the simulation continues without the asset. Each bar's prices are compared with the current
    holdings; later bars are not used.

    With futures every bar is visited, and `is_quiet` then decides, because marks, funding payments
    and liquidations change the margin account.
    """

    def __init__(self, world: SimulatedWorld) -> None:
        self._world = world
        self._can_skip_bars = _may_skip_bars(world)
        self._trades_without_stale = world.settings.stale_asset_mode == LEAVE_WHEN_GONE
        self._is_scheduled = bool(schedules_of(world.spec.policy.trigger))
        self._due_s = DUE_NOW_S
        self._is_tracking = isinstance(world.spec.policy.trigger, NoTradeZone)
        self._rule: RuleAtStep | None = None
        if not self._can_skip_bars:
            return
        portfolio = world.spec.portfolio
        trigger = world.spec.policy.trigger
        tokens = [asset.token for asset in portfolio.assets]
        self._prices = prices_in_numeraire(world.spec, world.table, world.filled_closes, tokens)
        band_edges_bps = [
            band(trigger, asset.target_bps, asset.band, asset.max_bps) for asset in portfolio.assets
        ]
        self._bands = np.array(
            [(float(low_bps) / BPS, float(high_bps) / BPS) for low_bps, high_bps in band_edges_bps]
        )
        native_tokens = [
            token
            for token in world.spec.tokens
            if self._is_tracking and token.address == portfolio.wrapped_native
        ]
        self._native_prices = prices_in_numeraire(
            world.spec, world.table, world.filled_closes, native_tokens or [portfolio.numeraire]
        )[:, 0] * bool(native_tokens)
        addresses = dict.fromkeys(
            token.address for token in (*tokens, portfolio.numeraire, *native_tokens)
        )
        columns = [
            world.column_by_token[address]
            for address in addresses
            if address in world.column_by_token
        ]
        self._is_stale: NDArray[np.bool_] = np.logical_or.reduce(world.is_stale[:, columns], axis=1)

    def note_outcome(self, outcome: StepOutcome | None) -> None:
        """Record the schedule's next due time after a cycle; immediately if its review is not
        complete. Record the tracking rule; `outcome` is None after a refusal.
        """
        if self._is_tracking and self._can_skip_bars:
            self._rule = rule_after(outcome)
        if outcome is None or outcome.kind is OutcomeKind.HALT:
            return
        is_waiting = isinstance(outcome.decision, Hold) and outcome.decision.limiting_rule == ""
        has_succeeded = outcome.kind in (OutcomeKind.HOLD, OutcomeKind.DONE)
        self._due_s = DUE_NOW_S
        if has_succeeded and (outcome.decision_result.is_reviewed or is_waiting):
            self._due_s = outcome.decision_result.next_s or DUE_NOW_S

    def next_bar(self, bar: int) -> int:
        """Return the first bar after `bar` to evaluate; the number of bars if there is none."""
        bar_count = self._world.table.bar_count
        if not self._can_skip_bars or self._world.venue is not None or bar + 1 >= bar_count:
            return bar + 1
        if self._is_tracking and self._rule is None:
            return bar + 1
        start_bar = bar + 1
        block_size = 64
        while start_bar < bar_count:
            end_bar = min(bar_count, start_bar + block_size)
            is_due = self._due_bar_mask(start_bar, end_bar)
            if is_due.any():
                return start_bar + int(np.argmax(is_due))
            start_bar = end_bar
            block_size = 2 * block_size
        return bar_count

    def is_quiet(self) -> bool:
        """Return whether the world's bar needs no step, in a simulation with futures: no weight is
        outside its band, no schedule is due, no futures trigger fires, no hedge is open, the owner
        moved nothing, and every price is new.
        """
        world = self._world
        if not self._can_skip_bars or (venue := world.venue) is None or world.settings.looks_at_all:
            return False
        if venue.setup.policy.schedule is not None:
            return False
        bar = world.bar
        account = venue.book.account
        policy = venue.setup.policy
        if (
            world.pending_transactions
            or venue.has_open_hedge
            or self._is_stale[bar]
            or (world.applied_transfers and world.applied_transfers[-1].bar == bar)
            or self._due_bar_mask(bar, bar + 1)[0]
        ):
            return False
        spot_value = world.value(world.wallet.balances) * Fraction(QUOTE.unit, world.numeraire.unit)
        return not emergency_sizes(account, policy) and not due_triggers(
            account, policy, spot_value
        )

    def count_halted(self, start_bar: int, end_bar: int) -> int:
        """Return the number of unevaluated bars in [start, end) with a stale price."""
        if not self._can_skip_bars or self._trades_without_stale:
            return 0
        return int(self._is_stale[start_bar:end_bar].sum())

    def count_waiting_bars(self, start_bar: int, end_bar: int) -> int:
        """Return the number of bars in the range with a weight outside its band while the schedule
        is not due; zero without a band.
        """
        is_banded = has_band(self._world.spec.policy.trigger)
        if not (self._can_skip_bars and self._is_scheduled and is_banded) or end_bar <= start_bar:
            return 0
        return int(
            (
                self._is_outside_band(start_bar, end_bar, 0) & ~self._is_stale[start_bar:end_bar]
            ).sum()
        )

    def quiet_bands(self, start_bar: int, end_bar: int) -> list[TargetBands]:
        """Return targets and ranges at unevaluated bars in [start, end), if they move as those of
        the tracking rule do.
        """
        rule = self._rule
        if rule is None or end_bar <= start_bar:
            return []
        rule_range = rule.at(*self._rule_values(rule, start_bar, end_bar))
        return rule.target_bands(rule_range, start_bar)

    def _due_bar_mask(self, start_bar: int, end_bar: int) -> NDArray[np.bool_]:
        is_stale = self._is_stale[start_bar:end_bar]
        needs_halt = is_stale
        if not self._trades_without_stale:
            needs_halt = is_stale & ~self._is_stale[start_bar - 1 : end_bar - 1]
        if self._is_scheduled:
            is_due = self._world.table.times_s[start_bar:end_bar] >= self._due_s
        elif self._rule is not None:
            is_due = self._rule.may_fire(*self._rule_values(self._rule, start_bar, end_bar))
        else:
            is_due = self._is_outside_band(start_bar, end_bar, BAND_MARGIN)
        is_due_or_halts: NDArray[np.bool_] = (is_due & ~is_stale) | needs_halt
        return is_due_or_halts

    def _asset_values(self, start_bar: int, end_bar: int) -> NDArray[np.float64]:
        """Return the value of each asset in the wallet, in whole coins of the numeraire."""
        balances = self._world.wallet.balances
        coin_amounts = np.array(
            [
                balances[held_asset.token.address] / 10.0**held_asset.token.decimals
                for held_asset in self._world.spec.portfolio.assets
            ]
        )
        asset_values: NDArray[np.float64] = coin_amounts * self._prices[start_bar:end_bar]
        return asset_values

    def _rule_values(
        self, rule: RuleAtStep, start_bar: int, end_bar: int
    ) -> tuple[FloatArray, FloatArray]:
        """Return the values of the assets, and of the gas of a leg, at these bars."""
        gas_prices_wei = np.array(self._world.settings.gas_price_wei, dtype=np.float64)
        if gas_prices_wei.ndim:
            gas_prices_wei = gas_prices_wei[start_bar:end_bar]
        leg_values = rule.leg_values(gas_prices_wei, self._native_prices[start_bar:end_bar])
        return self._asset_values(start_bar, end_bar), leg_values

    def _is_outside_band(
        self, start_bar: int, end_bar: int, edge_margin: float
    ) -> NDArray[np.bool_]:
        """Return a mask of bars with a weight beyond its band, or within `edge_margin` of an
        edge.
        """
        portfolio = self._world.spec.portfolio
        asset_values = self._asset_values(start_bar, end_bar)
        venue = self._world.venue
        if venue is not None and venue.setup.policy.margin_in_weights:
            # at the world's bar, the only one requested
            tokens = [asset.token.address for asset in portfolio.assets]
            margin_value = float(
                venue.account_value(self._world.numeraire) / self._world.numeraire.unit
            )
            asset_values[:, tokens.index(venue.setup.collateral.address)] += max(0.0, margin_value)
        total_values = asset_values.sum(axis=1, keepdims=True)
        weights = np.divide(
            asset_values, total_values, out=np.zeros_like(asset_values), where=total_values > 0
        )
        is_outside: NDArray[np.bool_] = (
            (weights < self._bands[:, 0] + edge_margin)
            | (weights > self._bands[:, 1] - edge_margin)
        ).any(axis=1)
        return is_outside


def _may_skip_bars(world: SimulatedWorld) -> bool:
    """Return whether only bands around fixed targets, one schedule without jitter, or the tracking
    rule can make this policy act, without other state.
    """
    spec = world.spec
    portfolio = spec.portfolio
    limits = spec.limits
    trigger = spec.policy.trigger
    is_simple_trigger = is_band_and_schedule_only(trigger) or _is_simple_tracking(world)
    if schedules_of(trigger):  # a maximum weight may be exceeded at any bar
        is_simple_trigger = (
            is_simple_trigger
            and spec.policy.jitter_bps == 0
            and all(asset.max_bps is None for asset in portfolio.assets)
        )
    is_simple_policy = is_simple_trigger and spec.split is None and spec.policy.trade_side is None
    has_fixed_targets = (
        portfolio.allocator is None
        and not portfolio.orders.terms
        and spec.execution.pace.style is ExecutionStyle.MARKET
    )
    has_no_reserves = all(asset.reserve_raw == 0 for asset in portfolio.assets)
    may_depeg = limits.depeg_bps is not None and any(
        is_dollar(asset.token.symbol)
        and not _stays_near_one(world, asset.token.address, limits.depeg_bps - DEPEG_MARGIN_BPS)
        for asset in portfolio.assets
    )
    return is_simple_policy and has_fixed_targets and has_no_reserves and not may_depeg


def _stays_near_one(world: SimulatedWorld, token_address: str, max_distance_bps: float) -> bool:
    """Return whether every price of a dollar token is within that distance of 1."""
    column = world.column_by_token.get(token_address)
    if column is None:
        return True
    distances_bps = np.abs(world.filled_closes[:, column] - 1) * BPS
    return bool((distances_bps < max_distance_bps).all())


def _is_simple_tracking(world: SimulatedWorld) -> bool:
    """Return whether the trigger is the tracking rule, with the same volatilities and fees at every
    bar and without tax, targets above zero without a maximum, and nothing beside spot.
    """
    spec = world.spec
    settings = world.settings
    trigger = spec.policy.trigger
    if not isinstance(trigger, NoTradeZone) or trigger.risk.horizon_s is not None:
        return False
    has_constant_costs = (
        not settings.recorded_pools
        and settings.thin_pool_bars is None
        and settings.stale_asset_mode != LEAVE_WHEN_GONE
    )
    return (
        has_constant_costs
        and trigger.risk.estimation_window is None
        and world.venue is None
        and not trigger.risk.after_tax
        and all(asset.target_bps and asset.max_bps is None for asset in spec.portfolio.assets)
    )


Progress = Callable[[int, int], None]
"""Called with the numbers of finished bars and of all bars."""
MAX_TEXT_LENGTH = 200
VERSIONED_LIBRARIES = ("trimtab", "numpy", "scipy", "polars")


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
    with SimulationRun(spec, table, settings, futures) as run:
        require_prices(funding, table.symbols, run.world.table.times_s)
        while run.evaluate_next_bar():
            if progress is not None:
                progress(run.world.bar + 1, run.world.table.bar_count)
        simulation_result = run.finish()
        if not funding:
            return simulation_result
        funding_summary, notes = funding_of_holdings(run.world, funding)
        return replace(
            simulation_result, funding=funding_summary, notes=(*simulation_result.notes, *notes)
        )


class SimulationRun:
    """A simulation in progress: each `evaluate_next_bar` advances to the next bar to evaluate. A
    context manager that closes its store.
    """

    def __init__(
        self,
        spec: BacktestSpec,
        table: PriceTable,
        settings: SimulationSettings,
        futures: FuturesSetup | None = None,
    ) -> None:
        self.world = _build_world(spec, table, settings, futures)
        self.outcome: StepOutcome | None = None
        self._context_manager = open_simulation(self.world)
        self._target_bands: list[TargetBands] = []
        self._futures_weights: list[tuple[int, tuple[tuple[str, Fraction], ...]]] = []
        self._evaluated_bars = 0
        self._halts = HaltLog()
        self._choices = ChoiceLog(spec.portfolio, spec.max_change_bps)
        self._refusal_counts: dict[str, int] = {}
        self._hold_counts: dict[str, int] = {}
        self._futures_refusal_counts: dict[str, int] = {}
        self._health_log = HealthLog()
        self._end_notes: tuple[str, ...] = ()
        self._due_bar_finder = DueBarFinder(self.world)

    def __enter__(self) -> SimulationRun:
        self.context: SimulationContext = self._context_manager.__enter__()
        return self

    def __exit__(self, *exception_details: object) -> None:
        self._context_manager.__exit__(None, None, None)

    def evaluate_next_bar(self) -> bool:
        """Evaluate the next bar; return False at the end."""
        world = self.world
        has_begun = self._evaluated_bars > 0
        bar = self._next_bar() if has_begun else world.bar
        if bar >= world.table.bar_count:
            return False
        try:
            if has_begun:
                world.advance_to(bar)
                while self._due_bar_finder.is_quiet():
                    _add_count(
                        self._hold_counts,
                        "policy.trigger",
                        self._due_bar_finder.count_waiting_bars(bar, bar + 1),
                    )
                    bar += 1
                    if bar >= world.table.bar_count:
                        return False
                    world.advance_to(bar)
            self._step_and_record()
        except EndOfPrices:
            self._end_notes = (
                f"pending at the end of the data: {pluralize(len(world.pending_transactions), 'transaction')}",
            )
            return False
        return True

    def _next_bar(self) -> int:
        """Return the next bar to evaluate, and count the quiet bars before it."""
        world = self.world
        if world.settings.looks_at_all:
            return world.bar + 1
        bar = min(self._due_bar_finder.next_bar(world.bar), world.next_transfer_bar())
        self._target_bands += self._due_bar_finder.quiet_bands(world.bar + 1, bar)
        self._halts.add_unevaluated(self._due_bar_finder.count_halted(world.bar + 1, bar))
        _add_count(
            self._hold_counts,
            "policy.trigger",
            self._due_bar_finder.count_waiting_bars(world.bar + 1, bar),
        )
        return bar

    def _step_and_record(self) -> None:
        self._evaluated_bars += 1
        self.outcome = None
        transaction_costs = self.world.transaction_costs
        earlier_count = len(transaction_costs)
        try:
            self.outcome = outcome = self.context.run_bar_cycle()
        except (Retryable, Refused) as error:
            _add_count(self._refusal_counts, error.message)
            self._due_bar_finder.note_outcome(None)
            return
        self._due_bar_finder.note_outcome(outcome)
        transaction_costs[earlier_count:] = [
            replace(cost, reason=outcome.decision.reason)
            for cost in transaction_costs[earlier_count:]
        ]
        self._choices.add(outcome.step_input.history.allocation)
        self._health_log.add(self.world.bar_time_s, outcome.step_input.layer(StrategiesState).books)
        futures_plan = futures_plan_of(outcome)
        for reason in () if futures_plan is None else futures_plan.refusal_texts:
            _add_count(self._futures_refusal_counts, reason)
        step_input = outcome.step_input
        futures_weights = (
            target_market_shares(step_input.config(CapitalSplit), step_input.layer(StrategiesState))
            if step_input.divides_wallet
            else chosen_share_by_market(step_input)
        )
        if futures_weights is not None and (
            not self._futures_weights
            or self._futures_weights[-1][1] != tuple(futures_weights.items())
        ):
            self._futures_weights.append((self.world.bar, tuple(futures_weights.items())))
        drifts = outcome.decision_result.drifts
        spec = self.world.spec
        is_banded = has_band(spec.policy.trigger) and spec.split is None
        if drifts:
            bands_at_bar = target_bands(
                self.world.bar, drifts, is_banded or isinstance(spec.policy.trigger, NoTradeZone)
            )
            if not self._target_bands:
                self._target_bands.append(replace(bands_at_bar, bar=0))
            elif bands_at_bar != replace(self._target_bands[-1], bar=bands_at_bar.bar):
                self._target_bands.append(bands_at_bar)
        if outcome.kind is OutcomeKind.HALT:
            self._halts.add(outcome.reason)
        if outcome.kind in (OutcomeKind.REFUSED, OutcomeKind.FAILED):
            failed_guards = [
                verdict.guard for verdict in outcome.refusal_verdicts if not verdict.passed
            ]
            reason = ", ".join(failed_guards) or NUMBER_PATTERN.sub("…", outcome.reason)
            _add_count(
                self._refusal_counts if futures_plan is None else self._futures_refusal_counts,
                reason,
            )
        elif isinstance(outcome.decision, Hold):
            limiting_rule = outcome.decision.limiting_rule
            if not limiting_rule and is_banded and any(drift.is_outside_band for drift in drifts):
                limiting_rule = "policy.trigger"
            if limiting_rule:
                _add_count(self._hold_counts, limiting_rule)

    def finish(self) -> SimulationResult:
        """End the run at the last bar of the table, and return its result."""
        world = self.world
        spec = self.world.spec
        numeraire = self.world.numeraire
        if world.bar < world.table.bar_count - 1:
            world.advance_to(world.table.bar_count - 1)
        world.record_holdings()
        if world.venue is not None:
            world.venue.record_figures()
        paths = portfolio_paths(world, self._target_bands)
        applied_transfers = tuple(world.applied_transfers)
        transaction_costs = world.transaction_costs
        rebalances = _swap_costs(transaction_costs)
        raw_per_coin = 10**numeraire.decimals
        turnover_shares = [
            rebalance.turnover / (Fraction(float(paths.equity[rebalance.bar])) * raw_per_coin)
            for rebalance in rebalances
        ]
        start_value = world.settings.start_value * raw_per_coin + world.reserves_value
        if world.venue is not None:
            start_value += Fraction(
                world.venue.setup.settings.collateral_raw * raw_per_coin, QUOTE.unit
            )
        twr, hold_twr = time_weighted_returns(world, start_value, applied_transfers)
        final_value = world.net_value()
        delisted = delisted_holdings(world, final_value)
        tax_runs = SimulatedTaxRuns(self.context.store, spec.portfolio, spec.tax)
        return SimulationResult(
            symbols=tuple(asset.token.symbol for asset in spec.portfolio.assets),
            numeraire=numeraire.symbol,
            decimals=numeraire.decimals,
            times_s=world.table.times_s,
            equity=paths.equity,
            hold_equity=paths.hold_equity,
            weights=paths.weights,
            rebalances=rebalances,
            final_value=final_value,
            hold_value=world.value(world.hold_balances),
            start_value=start_value,
            turnover_ratio=sum(turnover_shares, Fraction(0)),
            fees=sum((cost.fees for cost in transaction_costs), Fraction(0)),
            impact=sum((cost.impact for cost in transaction_costs), Fraction(0)),
            gas=world.gas_paid,
            gas_costs=tuple((cost.time_s, cost.gas) for cost in transaction_costs if cost.gas),
            balances=tuple(world.wallet.balances.items()),
            bar_count=world.table.bar_count,
            evaluated_bar_count=self._evaluated_bars,
            halted_bar_count=self._halts.bar_count,
            refusal_counts=tuple(sorted(self._refusal_counts.items())),
            notes=(
                *world.table.notes,
                *self._end_notes,
                *self._halts.notes(),
                *self._choices.notes(),
                *self.context.signals.notes(),
                *(
                    format_delisted_holding(holding, numeraire.symbol, numeraire.decimals)
                    for holding in delisted
                ),
                *self._live_value_note(start_value),
            ),
            config_hash=spec_digest(
                spec, world.settings, None if world.venue is None else world.venue.setup
            ),
            data_hash=world.table.digest,
            seed=world.settings.seed,
            versions=library_versions(),
            holds_by_setting=tuple(sorted(self._hold_counts.items())),
            futures_weights=tuple(self._futures_weights),
            transfers=applied_transfers,
            twr=twr,
            hold_twr=hold_twr,
            prices=paths.prices,
            units=paths.units,
            loss=None
            if world.venue is not None
            else backtest_loss(
                spec,
                world.settings,
                {
                    asset.token.symbol: float(close)
                    for asset, close in zip(spec.portfolio.assets, paths.prices[0], strict=True)
                    if close > 0
                },
            ),
            targets=paths.targets,
            bands=paths.bands,
            lot_rule=spec.tax.method.value,
            yearly_gains=tax_runs.yearly_gains(
                int(world.table.times_s[0]), int(world.table.times_s[-1])
            ),
            dated_gains=tax_runs.dated_gains() if spec.tax.rate_bps else (),
            futures_yearly_gains=futures_yearly_gains(world),
            parameters=parameter_texts(world.settings),
            is_gas_counted=world.settings.gas_price_wei != 0 or world.settings.data_fee_wei != 0,
            policy_json=codec.dumps(spec.policy),
            premium=(
                premium_of_simulation(world, paths, rebalances) if world.venue is None else None
            ),
            delisted_holdings=delisted,
            futures=self._futures_result(paths),
            health_changes=tuple(self._health_log.changes),
            final_health=self._health_log.newest_records,
        )

    def _live_value_note(self, start_value: Fraction) -> tuple[str, ...]:
        """Return a note if portfolio.max_live_value refused trades."""
        max_live_value = self.world.spec.limits.max_live_value
        numeraire = self.world.numeraire
        refused_count = sum(
            count
            for reason, count in (
                *self._refusal_counts.items(),
                *self._futures_refusal_counts.items(),
            )
            if "max_live_value" in reason
        )
        if max_live_value is None or (start_value <= max_live_value and not refused_count):
            return ()
        value_text, start_text = (
            decimal_text(floor_int(raw), numeraire.decimals)
            for raw in (max_live_value, start_value)
        )
        effect_text = (
            f"refused rebalances {pluralize(refused_count, 'time')}, while the portfolio was worth more"
            if start_value <= max_live_value
            else f"is below the start value of {start_text}, so every rebalance was refused"
        )
        return (
            f"portfolio.max_live_value of {value_text} {numeraire.label} {effect_text}: set a lower --value,"
            " or raise it in a copy of the config",
        )

    def _futures_result(self, paths: PortfolioPaths) -> FuturesResult | None:
        """Return the result of the futures traded by the steps, beside that of holding the first
        positions.
        """
        if (venue := self.world.venue) is None:
            return None
        path = venue.path
        settings = venue.setup.settings
        symbol_by_market = venue.symbol_by_market
        weights_by_bar = [
            (bar, {symbol_by_market[market]: weight for market, weight in weights})
            for bar, weights in self._futures_weights
        ]
        policies = policies_by_bar(settings.policy, weights_by_bar, range(path.bar_count))
        spot_values = [
            Fraction(str(spot_value)) * QUOTE.unit
            for spot_value in (paths.equity - venue.account_values()).tolist()
        ]
        return FuturesResult(
            path,
            settings,
            settings.digest(policies),
            venue.result(sorted(self._futures_refusal_counts.items())),
            held_book(path, settings, spot_values, policies),
            venue.hedges(),
            venue.setup.notes,
        )


def parameter_texts(settings: SimulationSettings) -> tuple[tuple[str, str], ...]:
    """Return the market parameters as short texts, long series as their hash."""
    named_texts = []
    for field in fields(settings):
        setting_value = getattr(settings, field.name)
        setting_text = str(setting_value)
        if isinstance(setting_value, Sequence) and not isinstance(setting_value, str):
            setting_text = repr(tuple(setting_value))
        if len(setting_text) > MAX_TEXT_LENGTH:
            setting_text = f"sha256 {sha256(setting_text.encode()).hexdigest()}"
        named_texts.append((field.name, setting_text))
    return tuple(named_texts)


def spec_digest(
    spec: BacktestSpec, settings: SimulationSettings, futures: FuturesSetup | None = None
) -> str:
    """Return the SHA-256 of spec, market and futures, without `looks_at_all`, which does not change
    the result.
    """
    hashed_parts = (
        spec.portfolio,
        spec.policy,
        spec.reference,
        spec.limits,
        spec.execution,
        *spec.layers,
    )
    hashed_texts = [codec.dumps(config_part) for config_part in hashed_parts]
    hashed_texts += [
        repr(spec.tax),
        *(
            f"{parameter_name}={parameter_text}"
            for parameter_name, parameter_text in parameter_texts(settings)
            if parameter_name != "looks_at_all"
        ),
    ]
    if futures is not None:
        hashed_texts += [futures.settings.digest(), codec.dumps(futures.policy)]
    return sha256("\n".join(hashed_texts).encode()).hexdigest()


def _build_world(
    spec: BacktestSpec,
    table: PriceTable,
    settings: SimulationSettings,
    futures: FuturesSetup | None,
) -> SimulatedWorld:
    numeraire = spec.portfolio.numeraire
    selected_table = select_spec_symbols(spec, table)
    if not isinstance(settings.gas_price_wei, int):
        if len(settings.gas_price_wei) != table.bar_count:
            raise ConfigError(
                f"gas prices for {len(settings.gas_price_wei)} bars, but the table has {table.bar_count}"
            )
        settings = replace(
            settings,
            gas_price_wei=tuple(settings.gas_price_wei)[
                table.bar_count - selected_table.bar_count :
            ],
        )
    if (
        settings.flows
        and settings.transfer_mode == IN_NUMERAIRE
        and all(asset.token != numeraire for asset in spec.portfolio.assets)
    ):
        raise ConfigError(
            f"--flow: {numeraire.symbol} is not an asset of the portfolio",
            "use --flows-in pro-rata",
        )
    world = SimulatedWorld(spec, selected_table, settings, SimulatedWallet({}, {}))
    if futures is not None:
        world.venue = SimulatedVenue(
            futures, selected_table, tx_validity_s(spec, settings, selected_table)
        )
    world.advance_to(0)
    world.wallet.balances = balances_at_targets(world)
    world.reserves_value = world.value(
        {asset.token.address: asset.reserve_raw for asset in spec.portfolio.assets}
    )
    world.hold_balances = dict(world.wallet.balances)
    if futures is not None:
        world.hold_balances[futures.collateral.address] += futures.margin_raw
    return world


def _add_count(counts: dict[str, int], reason: str, count: int = 1) -> None:
    if count:
        counts[reason] = counts.get(reason, 0) + count


def _swap_costs(transaction_costs: Sequence[TransactionCost]) -> tuple[TransactionCost, ...]:
    """Return the costs of the swaps, each with the gas of the transactions since the swap before it."""
    rebalances = []
    gas_value = Fraction(0)
    for cost in transaction_costs:
        gas_value += cost.gas
        if cost.is_swap:
            rebalances.append(replace(cost, gas=gas_value))
            gas_value = Fraction(0)
    return tuple(rebalances)


def library_versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of the libraries that affect a result."""
    versions = []
    for library in VERSIONED_LIBRARIES:
        try:
            versions.append((library, version(library)))
        except PackageNotFoundError:
            continue
    return tuple(versions)
