"""Records of the strategies: changes of their accounts, NAV per share and health of each hour, and
the netting of a cycle without a market trade.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.questions import market_terms
from agent.layers.strategies.policy import accounting, capital, health, netting
from agent.layers.strategies.policy.decide import StrategiesResult
from agent.layers.strategies.policy.futures import with_market_growth
from agent.layers.strategies.state import (
    CapitalSplit,
    NavPoint,
    StrategiesState,
    Strategy,
    StrategyBooks,
    StrategyState,
)
from agent.layers.strategies.store import StrategyStore
from agent.model import StepInput
from agent.reference import reference_prices
from agent.store.store import Store
from agent.units import DAY_S, HOUR_S


def record_after_input(store: Store, step: StepInput) -> None:
    """Record changes of the strategy accounts, new allocations, and once an hour each strategy's
    NAV per share and health. If another process wrote first, or a transfer is not recorded yet,
    whose id its booking needs, nothing is written, and the next cycle derives the change again.
    """
    strategy_store = store.layer_repository(StrategyStore)
    books = step.layer(StrategiesState).books
    if (
        not step.config(CapitalSplit).strategies
        or books is None
        or (not books.strategy_books and not books.unstored_bookings)
    ):
        return
    if any(
        booking.source.startswith(accounting.UNRECORDED_TRANSFER_SOURCE)
        for booking in books.unstored_bookings
    ):
        return
    if books.unstored_bookings and not strategy_store.record_bookings(
        books.unstored_bookings, books.record_version
    ):
        return
    for name, allocation in books.allocation_by_strategy:
        if allocation != store.allocations.newest(name):
            store.allocations.record(allocation, name)
    if not books.fault:
        record_version = books.record_version + bool(books.unstored_bookings)
        _record_strategy_states(strategy_store, step, books, record_version)


def book_after_cycle(store: Store, outcome: StepOutcome) -> None:
    """Book the netting between strategies if the cycle makes no market trade."""
    books = outcome.step_input.layer(StrategiesState).books
    is_netting_only = outcome.decision_result.layer(StrategiesResult).is_netting_only
    if outcome.kind is not OutcomeKind.HOLD or not is_netting_only or books is None:
        return
    booking = accounting.netting_booking(
        outcome.step_input, outcome.step_id, netting.strategy_adjustments
    )
    if booking is not None:
        # Only onto the version that record_after_input left, one higher if it wrote: if another
        # process wrote since, the next cycle books it.
        record_version = books.record_version + bool(books.unstored_bookings)
        store.layer_repository(StrategyStore).record_bookings((booking,), record_version)


def _record_strategy_states(
    strategy_store: StrategyStore, step: StepInput, books: StrategyBooks, record_version: int
) -> None:
    now_s = step.snapshot.trusted_time_s
    prices = reference_prices(step).price_by_token
    strategy_by_name = {
        strategy.name: strategy for strategy in step.config(CapitalSplit).strategies
    }
    updated_states = []
    point_by_name = {}
    book_values = [
        capital.holdings_value(dict(book.holdings), prices) for book in books.strategy_books
    ]
    growth_inputs = market_terms(step, sum(book_values, Fraction(0)))
    for book, book_value in zip(books.strategy_books, book_values, strict=True):
        if book.state.recorded_s is not None and book.state.recorded_s // HOUR_S >= now_s // HOUR_S:
            continue
        nav_per_unit = accounting.nav_per_unit(book_value, book.units)
        strategy = strategy_by_name[book.name]
        updated_state = health.update_unit_index(book.state, strategy, nav_per_unit, prices, now_s)
        updated_state = with_market_growth(updated_state, book.state, strategy, growth_inputs)
        nav_point = NavPoint(now_s, updated_state.unit_nav, updated_state.index)
        updated_states.append(
            _with_health(updated_state, strategy, nav_point, strategy_store.nav_points)
        )
        point_by_name[book.name] = nav_point
    if updated_states:
        strategy_store.record_states(updated_states, point_by_name, record_version)


def _with_health(
    state: StrategyState,
    strategy: Strategy,
    point: NavPoint,
    read_nav_points: Callable[[str, int], tuple[NavPoint, ...]],
) -> StrategyState:
    rule = strategy.health
    if rule is None:
        return state
    past_points = read_nav_points(state.name, point.at_s - rule.window_s - 2 * DAY_S)
    return health.update_health(
        state,
        rule,
        health.sharpe_milli((*past_points, point), rule.window_s, point.at_s),
        point.at_s,
    )
