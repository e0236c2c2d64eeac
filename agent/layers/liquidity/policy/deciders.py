"""Moves of liquidity: withdrawals above limits, and moves towards its targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from agent.errors import Refused
from agent.layers.liquidity.policy import adjustments, signals
from agent.layers.liquidity.policy.moves import WithdrawMove
from agent.layers.liquidity.policy.pools import is_in_targeted_pool
from agent.layers.liquidity.state import LiquidityState, liquidity_progress
from agent.model import (
    PORTFOLIO_SUBJECT,
    AdjustLiquidity,
    History,
    Hold,
    Snapshot,
    StepInput,
)
from agent.policy import failures, native_coin
from agent.policy import rebalance as rebalances
from agent.policy.decision import DecisionContext, DecisionResult
from agent.policy.orders import exits
from agent.policy.triggers import price_confirmation
from agent.units import Price


def withdraw_over_limit(context: DecisionContext) -> DecisionResult | None:
    """Withdraw liquidity above its limits."""
    step = context.step
    prices = context.prices
    adjustment = adjustments.limit_adjustment(step, prices)
    if not adjustment.exceeds_limit:
        return None
    wait_reason = price_confirmation.unconfirmed_reason(step, prices, signals.limit_signals)
    decision: Hold | AdjustLiquidity = AdjustLiquidity(adjustment.reason)
    if wait_reason:
        decision = rebalances.unconfirmed_hold(adjustment.reason, wait_reason)
    return context.result(native_coin.top_up(step, decision) or decision)


def withdraw_for_exits(context: DecisionContext) -> DecisionResult | None:
    """Withdraw from targeted pools what triggered orders sell, once the wallet has none of it; only
    stops and faults block it.
    """
    if context.stop_fault:
        return None
    step = context.step
    sold_tokens = exits.leaving_tokens(step.portfolio, step.history, step.targets, context.drifts)
    pooled_tokens = {
        token for token in sold_tokens if is_in_targeted_pool(step.snapshot, step.portfolio, token)
    }
    pool_addresses = _ready_pools(
        step.snapshot,
        step.history,
        tuple(
            target.pool
            for target in step.portfolio.lp_targets
            if {target.token0, target.token1} & pooled_tokens
            and target.pool not in liquidity_progress(step).failed_withdrawal_pools
            and not exits.exit_price_fault(step, target.token0, target.token1)
        ),
    )
    restricted_step = adjustments.restrict_to_pools(step, pool_addresses)
    if not pool_addresses or not _can_withdraw(restricted_step, context.prices):
        return None
    decision = AdjustLiquidity(
        exits.fired_reason(step.portfolio, step.history, {PORTFOLIO_SUBJECT, *pooled_tokens}),
        pool_addresses,
    )
    return context.result(native_coin.top_up(step, decision) or decision)


def _ready_pools(
    snapshot: Snapshot, history: History, pool_addresses: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the pools whose withdrawal is not backing off after its own failures; all pools if
    every one is, so that the guards report the reason.
    """
    now_s = snapshot.head.timestamp_s
    ready_pool_addresses = tuple(
        pool_address
        for pool_address in pool_addresses
        if failures.retry_at_s(failures.exit_failures(history, pool_address)) <= now_s
    )
    return ready_pool_addresses or pool_addresses


def _can_withdraw(step: StepInput, prices: Mapping[str, Price]) -> bool:
    """True if liquidity can be withdrawn now, because its pool is near the reference and every
    input is known.
    """
    try:
        moves = adjustments.target_adjustment(step, prices).moves
    except Refused:
        return False
    return any(isinstance(move, WithdrawMove) for move in moves)


def withdrawals_first(
    step: StepInput, prices: Mapping[str, Price]
) -> AdjustLiquidity | Hold | None:
    """Return the withdrawals of the liquidity targets; they precede swaps, which cannot spend
    liquidity.

    Provisions wait until no swap is due. No withdrawals during the cooldown after an action,
    because oscillating prices would move liquidity in every cycle.
    """
    if _active_cooldown(step) or failures.is_stopped(step.history):
        return None
    try:
        adjustment = adjustments.target_adjustment(step, prices)
    except Refused:
        return None
    if not any(isinstance(move, WithdrawMove) for move in adjustment.moves):
        return None
    if wait_reason := price_confirmation.unconfirmed_reason(
        step, prices, signals.liquidity_signals, needs_all=True
    ):
        return rebalances.unconfirmed_hold(adjustment.reason, wait_reason)
    return AdjustLiquidity(adjustment.reason)


def liquidity_or_hold(
    step: StepInput, prices: Mapping[str, Price], hold: Hold
) -> Hold | AdjustLiquidity:
    """Return the moves of the liquidity targets outside the cooldown; else the hold, with the
    skipped moves and their reasons.
    """
    try:
        adjustment = adjustments.target_adjustment(step, prices)
    except Refused as refusal:
        return replace(hold, reason=f"{hold.reason}; liquidity is unchanged: {refusal.message}")
    skipped_text = "".join(
        f"; {skipped_item.subject}: {skipped_item.why}" for skipped_item in adjustment.skipped
    )
    if not adjustment.moves:
        return replace(hold, reason=hold.reason + skipped_text)
    if failures.is_stopped(step.history):
        return replace(
            hold,
            reason=(
                f"{hold.reason}; {adjustment.reason}, but too many transactions failed in a row:"
                " trimtab resume"
            ),
        )
    if cooldown := _active_cooldown(step):
        return replace(hold, reason=f"{hold.reason}; {adjustment.reason}; {cooldown.reason}")
    if wait_reason := price_confirmation.unconfirmed_reason(
        step, prices, signals.liquidity_signals, needs_all=True
    ):
        return replace(hold, reason=f"{hold.reason}; {adjustment.reason}, but {wait_reason}")
    return AdjustLiquidity(adjustment.reason)


def _active_cooldown(step: StepInput) -> rebalances.Cooldown | None:
    """Return the cooldown after a rebalance or a liquidity action."""
    last_action_s = step.layer(LiquidityState).last_action_s
    return rebalances.active_cooldown(
        step.snapshot, step.policy, step.history, (last_action_s, "liquidity action")
    )
