"""Liquidity positions of target pairs that are not in the store: their target would mint again."""

from __future__ import annotations

from agent.chain.pools.own_positions import find_unsolicited_positions
from agent.chain.rpc import Transport
from agent.errors import ErrorCode, Retryable
from agent.layers.liquidity.state import LiquidityState
from agent.model import StepInput
from agent.store.accounts.budgets import BudgetStore
from agent.store.accounts.positions import PositionStore


def record_unknown_positions(
    step: StepInput,
    position_store: PositionStore,
    budgets: BudgetStore,
    transport: Transport,
    position_manager: str | None,
) -> StepInput:
    """Return the step with the V3 positions of target pairs that are not in the store.

    Scans the wallet once per new or adopted store, because a store restored from before a mint
    lacks that position, and its target would mint a second one. Later unsolicited positions are
    ignored (T11). Raises Retryable if the chain cannot be read.
    """
    target_pairs = {
        (target.token0, target.token1)
        for target in step.portfolio.lp_targets
        if target.tick_spacing is not None
    }
    if position_manager is None or not target_pairs or position_store.is_scanned():
        return step
    head = step.snapshot.head
    block_ref = {"blockHash": head.hash, "requireCanonical": True}
    owner = step.snapshot.owner
    unsolicited = find_unsolicited_positions(
        transport,
        owner,
        position_manager,
        (),
        step.portfolio.positions,
        block_ref,
        checks_all=True,
    )
    if unsolicited.unchecked_count:
        raise Retryable(
            f"{unsolicited.unchecked_count} answers of the position manager {position_manager} on"
            f" positions of {owner} cannot be read",
            "try again, or use another endpoint",
            code=ErrorCode.ANSWER,
        )
    position_store.record_scan(
        [
            position.name
            for position in unsolicited.positions
            if position.liquidity > 0 and position.tokens in target_pairs
        ],
        head.timestamp_s,
    )
    return step.with_layer(budgets.history(head.timestamp_s).layer(LiquidityState))
