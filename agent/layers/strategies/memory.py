"""Record of the strategies in the store, with the steps of their swaps."""

from __future__ import annotations

from agent import codec
from agent.errors import ConfigError, OperatorNeeded, Refused
from agent.layers.strategies.policy import netting
from agent.layers.strategies.policy.faults import strategies_fault
from agent.layers.strategies.policy.inputs import StrategyMemory
from agent.layers.strategies.state import CapitalSplit
from agent.layers.strategies.store import StrategyStore
from agent.model import Intent, IntentKind, Rebalance, StepInput
from agent.reference import reference_prices
from agent.store.store import Store


def read_memory(step: StepInput, store: Store) -> StrategyMemory:
    """Return the store's record of the strategies; nothing with a single strategy."""
    if not step.config(CapitalSplit).strategies:
        return StrategyMemory()
    ledger = store.layer_repository(StrategyStore).ledger()
    head_block = step.snapshot.head.number
    steps_by_intent = {}
    for intent in ledger.unbooked_intents if ledger.bookings else ():
        if intent.receipt is None or intent.receipt.block_number > head_block:
            continue
        if (strategy_step := _strategy_step(store, intent)) is not None:
            steps_by_intent[intent.id] = strategy_step
    return StrategyMemory(ledger, steps_by_intent)


def _strategy_step(store: Store, intent: Intent) -> StepInput | None:
    """Return the step of a swap that a strategy's trigger caused; None for exits, unreadable steps,
    and swaps caused only by the owner's request or limits.max_weight.
    """
    if intent.kind is not IntentKind.SWAP:
        return None
    try:
        plan = store.journal.grant(intent.id).plan
        input_json = store.steps.input_json(intent.step_id)
        step = codec.loads_optional(StepInput, input_json)
        decision = None if plan is None else plan.decision
        if (
            step is None
            or not isinstance(decision, Rebalance)
            or not decision.by_trigger
            or strategies_fault(step)
            or not step.config(CapitalSplit).strategies
        ):
            return None
        netting_result = netting.net_strategies(step, reference_prices(step).price_by_token)
        return step if netting_result.trigger_result.fired else None
    except (ConfigError, OperatorNeeded, Refused, KeyError):
        return None
