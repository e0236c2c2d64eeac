"""Read a step's memory from the store: prices, ledger, strategies, and unknown liquidity positions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from agent import codec
from agent.chain.own_positions import find_unsolicited_positions
from agent.chain.rpc import Transport
from agent.errors import ConfigError, OperatorNeeded, Refused
from agent.model import (
    Allocation,
    Intent,
    IntentKind,
    PricePoint,
    Rebalance,
    ScreenedToken,
    StepInput,
    TaxState,
)
from agent.policy import risk, targets
from agent.policy.step_input import StepMemory, StrategyMemory
from agent.policy.strategies import netting
from agent.policy.triggers import rules
from agent.ports import BudgetJournal, PositionJournal, PriceJournal, StepStorage
from agent.reference import reference_prices


def read_memory(bare: StepInput, store: StepStorage, tax: TaxState | None = None, untradable: Iterable[ScreenedToken] = ()) -> StepMemory:
    """Return the store's memory at the block of `bare`, which has snapshot, config and budgets."""
    chosen, balances, ledger = store.allocations.newest(), store.balances.expected(), store.ledger.balances(bare.snapshot.head.number)
    strategies = read_strategies(bare, store)
    choices = {} if strategies is None else dict(strategies.choices)
    prices = _recorded_prices(bare, store.prices, chosen, choices)
    return StepMemory(prices, chosen, balances, ledger, strategies, tax, tuple(untradable))


def read_strategies(step: StepInput, store: StepStorage) -> StrategyMemory | None:
    """Return the store's memory of the strategies; None with a single strategy."""
    if step.split is None:
        return None
    ledger, head = store.strategies.ledger(), step.snapshot.head.number
    settled = [one for one in ledger.intents if one.receipt is not None and one.receipt.block_number <= head] if ledger.bookings else []
    trades = {intent.id: own for intent in settled if (own := _strategy_step(store, intent)) is not None}
    named = [one.name for one in step.split.strategies if one.allocator is not None]
    choices = tuple((name, chosen) for name in named if (chosen := store.allocations.newest(name)) is not None)
    return StrategyMemory(ledger, trades, choices)


def _strategy_step(store: StepStorage, intent: Intent) -> StepInput | None:
    """Return the step of a swap for the strategies' own goal, else None. None for swaps requested
    by the owner or limits.max_weight alone, for exits, and for unreadable steps.
    """
    if intent.kind is not IntentKind.SWAP:
        return None
    try:
        plan, text = store.journal.grant(intent.id).plan, store.steps.input_json(intent.step_id)
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
    step: StepInput, recorded: PriceJournal, chosen: Allocation | None, choices: Mapping[str, Allocation]
) -> tuple[PricePoint, ...]:
    """Return recorded prices as far back as this config needs: all within trigger windows, before
    that one per interval of each due allocation.
    """
    portfolio, split, now_s = step.portfolio, step.split, step.snapshot.head.timestamp_s
    numeraire, weights = portfolio.numeraire.address, portfolio.weights
    back_s = rules.required_history_s(step.policy, split)
    needs = list(netting.strategy_history_needed(split, choices, portfolio, now_s))
    if weights is not None:
        needs.append((targets.allocation_history_s(portfolio, chosen, now_s), weights.step_s))
    needs.append(risk.price_history_needed(step.policy))
    until_s = now_s - back_s - bool(back_s)
    older = {
        point for choice_s, step_s in needs if choice_s > back_s for point in recorded.between(numeraire, now_s - choice_s, until_s, step_s)
    }
    hourly = recorded.between(numeraire, now_s - back_s, now_s) if back_s else ()
    return (*sorted(older, key=lambda point: (point.at_s, point.token)), *hourly)


# --- Scan of the wallet for liquidity of targeted pairs that the store does not know: it would be provided a second time.


def with_unknown_positions(
    step: StepInput, positions: PositionJournal, budgets: BudgetJournal, line: Transport, manager: str | None
) -> StepInput:
    """Return the step with V3 positions of targeted pairs that the store does not know; scans the
    wallet once per new or adopted store. A store restored from before a mint lacks that position,
    and its target would mint a second one. Later unsolicited positions change nothing (T11). Raises
    Retryable if the chain cannot be read.
    """
    pairs = {(target.token0, target.token1) for target in step.portfolio.lp_targets if target.tick_spacing is not None}
    if manager is None or not pairs or positions.scanned():
        return step
    head = step.snapshot.head
    at = {"blockHash": head.hash, "requireCanonical": True}
    found = find_unsolicited_positions(line, step.snapshot.owner, manager, (), step.portfolio.positions, at).found
    positions.record([one.name for one in found if one.liquidity > 0 and one.tokens in pairs], head.timestamp_s)
    return replace(step, history=replace(step.history, undecided=budgets.history(head.timestamp_s).undecided))
