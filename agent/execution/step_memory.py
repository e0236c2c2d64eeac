"""History that a step reads from and writes to the store: strategy accounts, gradual execution,
prices, unknown positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fractions import Fraction

from agent import codec
from agent.chain.own_positions import find_unsolicited_positions
from agent.chain.rpc import Transport
from agent.errors import ConfigError, OperatorNeeded, Refused, Retryable
from agent.execution.settlement import review_time_s
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.model import (
    Allocation,
    CashMemory,
    Intent,
    IntentKind,
    NavPoint,
    PricePoint,
    Rebalance,
    ScreenedToken,
    SignalAnswer,
    StepInput,
    Strategy,
    StrategyBooks,
    StrategyState,
    TaxState,
)
from agent.policy import risk, step_input, targets
from agent.policy.quarantine import strategies_fault
from agent.policy.signals import margin_growth, signal_requests
from agent.policy.step_input import StepMemory, StrategyMemory
from agent.policy.strategies import accounting, capital, netting
from agent.policy.triggers import rules
from agent.reference import reference_prices
from agent.signals.host import SignalHost
from agent.store.accounts.positions import CashStore, PositionStore, StrategyStore
from agent.store.budgets import BudgetStore
from agent.store.prices import AllocationStore, PriceStore
from agent.store.store import Store

HOUR_S = 3_600
DAY_S = 86_400


def read_cash(step: StepInput, cash: CashStore) -> CashMemory | None:
    """Return the account of portfolio.use_cash; None without that limit."""
    if step.portfolio.use_cash_raw is None:
        return None
    return cash.read(step.portfolio.numeraire.address, step.snapshot.head.number)


def record_cash(cash: CashStore, step: StepInput) -> None:
    """Record the account of portfolio.use_cash before the step acts on it. Raises Retryable if it
    cannot be opened at this block, or if another process wrote first.
    """
    state = step.history.cash_flows.cash
    if state is None or state.is_stored:
        return
    if not (state.is_known and cash.record(state.account, state.turn)):
        raise Retryable(
            "portfolio.use_cash: the wallet's cash changed while its account was recorded",
            "wait for the next cycle",
        )


def record_strategies(
    strategies: StrategyStore, allocations: AllocationStore, step: StepInput
) -> None:
    """Record changes of the strategy accounts, and once an hour each strategy's NAV per share and
    health. If another process wrote first, nothing is written, and the next cycle derives the
    change again.
    """
    books = step.history.sleeves
    if step.split is None or books is None or (not books.sleeves and not books.pending):
        return
    if any(booking.source.startswith(accounting.UNRECORDED_TRANSFER) for booking in books.pending):
        return
    if books.pending and not strategies.record_bookings(books.pending, books.turn):
        return
    for name, chosen in books.choices:
        if chosen != allocations.newest(name):
            allocations.record(chosen, name)
    if not books.fault:
        _record_strategy_states(strategies, step, books)


def book_internal_netting(strategies: StrategyStore, outcome: StepOutcome) -> None:
    """Book the netting between strategies if the step makes no market trade."""
    books = outcome.step_input.history.sleeves
    if outcome.kind is not OutcomeKind.HOLD or not outcome.decided.is_netting_only or books is None:
        return
    booking = accounting.netting_booking(
        outcome.step_input, outcome.step_id, netting.strategy_adjustments
    )
    if booking is not None:
        # Only onto this version of the accounts: if another process wrote since, the next cycle
        # books it.
        strategies.record_bookings((booking,), books.turn + bool(books.pending))


def _record_strategy_states(journal: StrategyStore, step: StepInput, books: StrategyBooks) -> None:
    now_s, prices = review_time_s(step.snapshot), reference_prices(step).by_token
    configured = () if step.split is None else step.split.strategies
    strategies = {strategy.name: strategy for strategy in configured}
    states, points = [], {}
    held = [capital.holdings_value(dict(book.holdings), prices) for book in books.sleeves]
    futures = margin_growth(step, sum(held, Fraction(0)))
    for book in books.sleeves:
        if book.state.noted_s is not None and book.state.noted_s // HOUR_S >= now_s // HOUR_S:
            continue
        unit = accounting.unit_value(
            capital.holdings_value(dict(book.holdings), prices), book.units
        )
        noted = capital.update_unit_index(
            book.state, strategies[book.name], unit, prices, now_s, futures
        )
        point = NavPoint(now_s, noted.unit, noted.index)
        states.append(_with_health(noted, strategies[book.name], point, journal.nav_points))
        points[book.name] = point
    if states:
        journal.record_states(states, points)


def _with_health(
    state: StrategyState,
    strategy: Strategy,
    point: NavPoint,
    points: Callable[[str, int], tuple[NavPoint, ...]],
) -> StrategyState:
    rule = strategy.health
    if rule is None:
        return state
    past = points(state.name, point.at_s - rule.window_s - 2 * DAY_S)
    return capital.update_health(
        state, rule, capital.sharpe_milli((*past, point), rule.window_s, point.at_s), point.at_s
    )


# --- History input of a step: prices, ledger balances, strategies.


def read_memory(
    bare: StepInput,
    store: Store,
    tax: TaxState | None = None,
    untradable: Iterable[ScreenedToken] = (),
    signals: SignalHost | None = None,
) -> StepMemory:
    """Return the store's history at the block of `bare` (snapshot, config and budgets), with the
    answers of the `signals` that are due.
    """
    chosen, balances = store.allocations.newest(), store.balances.expected()
    ledger = store.ledger.balances(bare.snapshot.head.number)
    strategies = read_strategies(bare, store)
    choices = {} if strategies is None else dict(strategies.choices)
    prices = _recorded_prices(bare, store.prices, chosen, choices)
    return StepMemory(
        prices,
        chosen,
        balances,
        ledger,
        strategies,
        tax,
        tuple(untradable),
        _answers(bare, prices, chosen, choices, signals),
        read_cash(bare, store.cash),
    )


def _answers(
    bare: StepInput,
    prices: tuple[PricePoint, ...],
    chosen: Allocation | None,
    choices: Mapping[str, Allocation],
    signals: SignalHost | None,
) -> tuple[SignalAnswer, ...]:
    if signals is None:
        return ()
    step = replace(bare, history=replace(bare.history, prices=prices, allocation=chosen))
    return signals.answers(signal_requests(step, choices))


def read_strategies(step: StepInput, store: Store) -> StrategyMemory | None:
    """Return the store's record of the strategies; None with a single strategy."""
    if step.split is None:
        return None
    ledger, head = store.strategies.ledger(), step.snapshot.head.number
    trades = {}
    for intent in ledger.intents if ledger.bookings else ():
        if intent.receipt is None or intent.receipt.block_number > head:
            continue
        if (own := _strategy_step(store, intent)) is not None:
            trades[intent.id] = own
    named = [strategy.name for strategy in step.split.strategies if strategy.allocator is not None]
    choices = tuple(
        (name, chosen) for name in named if (chosen := store.allocations.newest(name)) is not None
    )
    return StrategyMemory(ledger, trades, choices)


def _strategy_step(store: Store, intent: Intent) -> StepInput | None:
    """Return the step of a swap that a strategy's trigger caused; None for exits, unreadable steps,
    and swaps caused only by the owner's request or limits.max_weight.
    """
    if intent.kind is not IntentKind.SWAP:
        return None
    try:
        plan, text = store.journal.grant(intent.id).plan, store.steps.input_json(intent.step_id)
        step = codec.loads_optional(StepInput, text)
        decision = None if plan is None else plan.decision
        if (
            step is None
            or not isinstance(decision, Rebalance)
            or not decision.by_trigger
            or strategies_fault(step)
        ):
            return None
        if step.split is None:
            return None
        netted = netting.net_strategies(step, reference_prices(step).by_token)
        return step if netted.answer.fired else None
    except (ConfigError, OperatorNeeded, Refused, KeyError):
        return None


def _recorded_prices(
    step: StepInput,
    recorded: PriceStore,
    chosen: Allocation | None,
    choices: Mapping[str, Allocation],
) -> tuple[PricePoint, ...]:
    """Return recorded prices as far back as this config needs: all prices within trigger windows,
    and older prices at the interval of each due allocation.
    """
    portfolio, split, now_s = step.portfolio, step.split, step.snapshot.head.timestamp_s
    numeraire, weights = portfolio.numeraire.address, portfolio.weights
    back_s = rules.required_history_s(step.policy, split)
    needs = list(step_input.strategy_history_needed(split, choices, portfolio, now_s))
    if weights is not None:
        needs.append((targets.allocation_history_s(portfolio, chosen, now_s), weights.step_s))
    needs.append(risk.price_history_needed(step.policy))
    until_s = now_s - back_s - bool(back_s)
    older = {
        point
        for choice_s, step_s in needs
        if choice_s > back_s
        for point in recorded.between(numeraire, now_s - choice_s, until_s, step_s)
    }
    hourly = recorded.between(numeraire, now_s - back_s, now_s) if back_s else ()
    return (*sorted(older, key=lambda point: (point.at_s, point.token)), *hourly)


# --- Liquidity positions of target pairs that are not in the store: their target would mint again.


def with_unknown_positions(
    step: StepInput,
    positions: PositionStore,
    budgets: BudgetStore,
    line: Transport,
    manager: str | None,
) -> StepInput:
    """Return the step with the V3 positions of target pairs that are not in the store.

    Scans the wallet once per new or adopted store, because a store restored from before a mint
    lacks that position, and its target would mint a second one. Later unsolicited positions are
    ignored (T11). Raises Retryable if the chain cannot be read.
    """
    pairs = {
        (target.token0, target.token1)
        for target in step.portfolio.lp_targets
        if target.tick_spacing is not None
    }
    if manager is None or not pairs or positions.scanned():
        return step
    head = step.snapshot.head
    at = {"blockHash": head.hash, "requireCanonical": True}
    found = find_unsolicited_positions(
        line, step.snapshot.owner, manager, (), step.portfolio.positions, at
    ).found
    positions.record(
        [item.name for item in found if item.liquidity > 0 and item.tokens in pairs],
        head.timestamp_s,
    )
    return replace(
        step, history=replace(step.history, undecided=budgets.history(head.timestamp_s).undecided)
    )
