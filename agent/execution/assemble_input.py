"""Build the step input: add recorded prices, ledger, strategies, positions and gradual execution from the store to a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from agent import codec
from agent.chain.own_positions import find_unsolicited_positions
from agent.chain.rpc import Transport
from agent.errors import ConfigError, OperatorNeeded, Refused
from agent.execution.settlement import review_time_s
from agent.execution.step_context import OutcomeKind, StepOutcome, StepReaders
from agent.model import (
    Allocation,
    ExecutionStyle,
    ExpectedBalances,
    History,
    Intent,
    IntentKind,
    LedgerBalance,
    PricePoint,
    Rebalance,
    ScreenedToken,
    SliceDraw,
    StepInput,
    TaxState,
)
from agent.model.strategies import NavPoint, Strategy, StrategyBooks, StrategyState
from agent.policy import risk, targets
from agent.policy.gradual_execution import MILLION
from agent.policy.step_input import StepMemory, StrategyMemory
from agent.policy.strategies import accounting, health, netting
from agent.policy.triggers import market_events
from agent.ports import Grant, Journal
from agent.ports.storage import StrategyJournal
from agent.reference import reference_prices

HOUR_S = 3_600
DAY_S = 86_400


class StrategyInputStore(StrategyJournal, Protocol):
    """Part of a store that strategy books are brought up to date from."""

    def grant(self, intent_id: str) -> Grant:
        """Return the grant an intent was recorded with."""
        ...

    def step_input(self, step_id: str) -> str | None:
        """Input of a step as JSON; None if it was not recorded."""
        ...

    def allocation(self, owner: str = "") -> Allocation | None:
        """Newest weights chosen for a strategy."""
        ...


def record_strategies(journal: Journal, step: StepInput) -> None:
    """Record changes of the strategy books; once an hour also each strategy's NAV per share and health.

    Nothing is written if another process wrote first: the next cycle finds the change again.
    """
    books = step.history.sleeves
    if step.split is None or books is None or (not books.sleeves and not books.pending):
        return
    if any(booking.source.startswith(accounting.UNRECORDED_TRANSFER) for booking in books.pending):
        return
    if books.pending and not journal.record_strategy_bookings(books.pending, books.turn):
        return
    for name, chosen in books.choices:
        if chosen != journal.allocation(name):
            journal.record_allocation(chosen, name)
    if not books.fault:
        _record_strategy_states(journal, step, books)


def book_internal_netting(journal: Journal, outcome: StepOutcome) -> None:
    """Book the internal netting between strategies of a step that has nothing to trade on the market."""
    books = outcome.step_input.history.sleeves
    if outcome.kind is not OutcomeKind.HOLD or not outcome.decided.is_netting_only or books is None:
        return
    booking = accounting.netting_booking(outcome.step_input, outcome.step_id, netting.strategy_adjustments)
    if booking is not None:  # of exactly this version: if another process wrote since, the next cycle does it
        journal.record_strategy_bookings((booking,), books.turn + bool(books.pending))


def _record_strategy_states(journal: Journal, step: StepInput, books: StrategyBooks) -> None:
    now_s, prices = review_time_s(step.snapshot), reference_prices(step).by_token
    strategies = {one.name: one for one in step.split.strategies} if step.split is not None else {}
    states, points = [], {}
    for sleeve in books.sleeves:
        if sleeve.state.noted_s is not None and sleeve.state.noted_s // HOUR_S >= now_s // HOUR_S:
            continue
        unit = accounting.unit_value(accounting.holdings_value(dict(sleeve.holdings), prices), sleeve.units)
        noted = health.update_unit_index(sleeve.state, strategies[sleeve.name], unit, prices, now_s)
        point = NavPoint(now_s, noted.unit, noted.index)
        states.append(_with_health(noted, strategies[sleeve.name], point, journal.nav_points))
        points[sleeve.name] = point
    if states:
        journal.record_strategy_states(states, points)


def _with_health(
    state: StrategyState, strategy: Strategy, point: NavPoint, points: Callable[[str, int], tuple[NavPoint, ...]]
) -> StrategyState:
    rule = strategy.health
    if rule is None:
        return state
    past = points(state.name, point.at_s - rule.window_s - 2 * DAY_S)
    return health.update_health(state, rule, health.sharpe_milli((*past, point), rule.window_s, point.at_s), point.at_s)


# --- The step with its history from the store: the same for a live and for a simulated chain.


class StepInputStore(StrategyInputStore, Protocol):
    """Part of a store that a step is assembled from."""

    def books(self) -> ExpectedBalances:
        """Expected balances and the newest transfers."""
        ...

    def ledger_balances(self, head_block: int) -> tuple[LedgerBalance, ...]:
        """Balances of the wallet by the ledger at that block."""
        ...

    def prices(self, numeraire: str, since_s: int, until_s: int, every_s: int = ...) -> tuple[PricePoint, ...]:
        """Recorded prices in that numeraire, oldest first; of each `every_s` the last of each token."""
        ...


def read_memory(
    bare: StepInput, store: StepInputStore, tax: TaxState | None = None, untradable: Iterable[ScreenedToken] = ()
) -> StepMemory:
    """Return what the store remembers at the block of `bare`, which has snapshot, config and budgets."""
    chosen, strategies = store.allocation(), read_strategies(bare, store)
    choices = () if strategies is None else strategies.choices
    return StepMemory(
        prices=_recorded_prices(bare, store, chosen, dict(choices)),
        allocation=chosen,
        balances=store.books(),
        ledger=store.ledger_balances(bare.snapshot.head.number),
        strategies=strategies,
        tax=tax,
        untradable=tuple(untradable),
    )


def read_strategies(step: StepInput, store: StrategyInputStore) -> StrategyMemory | None:
    """Return what the store remembers of the strategies; None with a single strategy."""
    if step.split is None:
        return None
    ledger, head = store.strategy_ledger(), step.snapshot.head.number
    settled = [one for one in ledger.intents if one.receipt is not None and one.receipt.block_number <= head] if ledger.bookings else []
    trades = {intent.id: own for intent in settled if (own := _strategy_step(store, intent)) is not None}
    named = [one.name for one in step.split.strategies if one.allocator is not None]
    choices = tuple((name, chosen) for name in named if (chosen := store.allocation(name)) is not None)
    return StrategyMemory(ledger, trades, choices)


def _strategy_step(store: StrategyInputStore, intent: Intent) -> StepInput | None:
    """Return the step of a swap that carried out the strategies' own goal, else None.

    None for swaps asked for by the owner or limits.max_weight alone, for exits, and for steps that cannot be read.
    """
    if intent.kind is not IntentKind.SWAP:
        return None
    try:
        plan, text = store.grant(intent.id).plan, store.step_input(intent.step_id)
        step = None if text is None else codec.loads(StepInput, text)
        decision = None if plan is None else plan.decision
        if step is None or not isinstance(decision, Rebalance) or not decision.by_trigger or netting.strategies_fault(step):
            return None
        if step.split is None:
            return None
        return step if netting.net_strategies(step, reference_prices(step).by_token).answer.fired else None
    except (ConfigError, OperatorNeeded, Refused, KeyError):
        return None


def _recorded_prices(
    step: StepInput, store: StepInputStore, chosen: Allocation | None, choices: Mapping[str, Allocation]
) -> tuple[PricePoint, ...]:
    """Recorded prices as far back as this config needs: all that triggers see, before that one per interval of each due allocation."""
    portfolio, split, now_s = step.portfolio, step.split, step.snapshot.head.timestamp_s
    numeraire, weights = portfolio.numeraire.address, portfolio.weights
    back_s = market_events.required_history_s(portfolio, step.policy, split)
    needs = list(netting.strategy_history_needed(split, choices, portfolio, now_s))
    if weights is not None:
        needs.append((targets.allocation_history_s(portfolio, chosen, now_s), weights.step_s))
    needs.append(risk.price_history_needed(step.policy))
    until_s = now_s - back_s - bool(back_s)
    older = {
        point for choice_s, step_s in needs if choice_s > back_s for point in store.prices(numeraire, now_s - choice_s, until_s, step_s)
    }
    hourly = store.prices(numeraire, now_s - back_s, now_s) if back_s else ()
    return (*sorted(older, key=lambda point: (point.at_s, point.token)), *hourly)


# --- Scan of the wallet for liquidity of targeted pairs that the store does not know: it would be provided a second time.


class PositionInputStore(Protocol):
    """Part of a store that remembers liquidity positions."""

    def positions_scanned(self) -> bool:
        """True if the wallet was scanned for positions."""
        ...

    def record_positions(self, names: Iterable[str], now_s: int) -> None:
        """Remember positions that the owner has to decide on."""
        ...

    def history(self, chain_now_s: int) -> History:
        """History with the undecided positions."""
        ...


def with_unknown_positions(step: StepInput, memory: PositionInputStore, line: Transport, manager: str | None) -> StepInput:
    """Return the step with V3 positions of targeted pairs that the store does not know; scans the wallet once per new or adopted store.

    A store restored from before a mint does not know that position, and its target would mint a second one. Positions that strangers send
    later change nothing (T11). Raises Retryable if the chain cannot be read.
    """
    pairs = {(target.token0, target.token1) for target in step.portfolio.lp_targets if target.tick_spacing is not None}
    if manager is None or not pairs or memory.positions_scanned():
        return step
    head = step.snapshot.head
    at = {"blockHash": head.hash, "requireCanonical": True}
    found = find_unsolicited_positions(line, step.snapshot.owner, manager, (), step.portfolio.positions, at).found
    memory.record_positions([one.name for one in found if one.liquidity > 0 and one.tokens in pairs], head.timestamp_s)
    return replace(step, history=replace(step.history, undecided=memory.history(head.timestamp_s).undecided))


# --- Records of gradual execution: its start, each slice before anything of it is sent, its end.


RANDOM_SLICE_STYLES = (ExecutionStyle.ROUNDS, ExecutionStyle.TWAP)
"""Styles whose rounds are of random size."""


def with_slice_draw(readers: StepReaders, step: StepInput, journal: Journal) -> StepInput:
    """Return the step with the draw for a first slice stored, so that a restart plans the same."""
    history = step.history
    if step.execution.pace.style not in RANDOM_SLICE_STYLES or history.campaign is not None or history.draw is not None:
        return step
    draw = _draw(readers)
    journal.store_next_draw(draw)
    return replace(step, history=replace(history, draw=draw))


def record_execution_changes(journal: Journal, outcome: StepOutcome) -> None:
    """Record gradual executions that a cycle ended, and those it began that only wait for their price."""
    decided, under = outcome.decided, outcome.step_input.history.campaign
    if decided.ended and under is not None:
        journal.end_gradual_execution(under.id, "ended", decided.ended, outcome.step_input.snapshot.head.timestamp_s)
    if decided.begins is not None and outcome.kind is OutcomeKind.HOLD:
        journal.begin_gradual_execution(decided.begins)


def begin_slice(readers: StepReaders, journal: Journal, outcome: StepOutcome) -> None:
    """Record the slice that is about to be sent, with the draw for the one after it; a new execution before its first slice.

    Does nothing if the plan is no slice. Another attempt at a slice is recorded beside the first.
    """
    decided, under = outcome.decided, outcome.step_input.history.campaign
    at_s = outcome.step_input.snapshot.head.timestamp_s
    if decided.order:
        journal.begin_slice(decided.order, 1, outcome.step_id, at_s, _draw(readers))
        return
    if decided.begins is not None:
        number = 1 if decided.round is None else decided.round.number
        journal.begin_slice(journal.begin_gradual_execution(decided.begins), number, outcome.step_id, at_s, _draw(readers))
    elif decided.round is not None and under is not None:
        journal.begin_slice(under.id, decided.round.number, outcome.step_id, at_s, _draw(readers))


def _draw(readers: StepReaders) -> SliceDraw:
    return SliceDraw(int(readers.chance() * MILLION), int(readers.chance() * MILLION))
