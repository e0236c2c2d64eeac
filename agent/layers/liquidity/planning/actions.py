"""Liquidity moves as exact actions: amounts to the wei, minimums from the reference price, cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from agent.amm.lp import action_gas, minting, positions, slippage
from agent.errors import ErrorCode, Refused
from agent.layers.liquidity.policy.adjustments import (
    gas_unit_value,
    next_adjustment,
    restrict_to_pools,
    target_adjustment,
)
from agent.layers.liquidity.policy.book import (
    PositionBook,
    max_pool_deviation_bps,
    open_position_book,
)
from agent.layers.liquidity.policy.moves import CollectMove, PlannedMove, ProvideMove, WithdrawMove
from agent.layers.liquidity.policy.pools import POSITIONS_PLACE
from agent.layers.liquidity.policy.provisions import (
    book_after_provision,
    book_after_withdrawal,
    provision_gas_units,
    quote_provision,
)
from agent.layers.questions import raw_outside_wallet
from agent.model import (
    AdjustLiquidity,
    Asset,
    Collect,
    LpAction,
    LpV2Position,
    Plan,
    PlanCost,
    Provide,
    SkippedItem,
    StepInput,
    Verdict,
    Withdraw,
)
from agent.planning.approval_gas import approval_gas_units, with_data_fee
from agent.policy.decision import DecisionResult
from agent.reference import reference_prices
from agent.units import Value, largest_remainder

ZERO = Fraction(0)


def plan_decision(step: StepInput, decision_result: DecisionResult) -> Plan:
    """Return the plan of a decision on liquidity. Raises Refused as `plan_liquidity` does."""
    if not isinstance(decision := decision_result.decision, AdjustLiquidity):
        raise TypeError(f"{type(decision).__name__} moves no liquidity")
    return plan_liquidity(step, decision)


def plan_liquidity(step: StepInput, decision: AdjustLiquidity) -> Plan:
    """Return the actions that restore liquidity limits, else those of its targets, of `only_pools`
    alone if the decision names some; one transaction each, in order. `skipped` names the rest.
    Raises Refused with the reasons if nothing can be done now.
    """
    prices = reference_prices(step).price_by_token
    adjust = target_adjustment if decision.only_pools else next_adjustment
    adjustment = adjust(restrict_to_pools(step, decision.only_pools), prices)
    book = open_position_book(step, prices)
    actions: list[LpAction] = []
    skew = Fraction(0)
    for move in adjustment.moves:
        action, book_after = _exact_action(book, move)
        if isinstance(action, Provide):
            skew += book.overpayment(action, action.amounts_raw, book_after)
        actions.append(action)
        book = book_after
    if not actions:
        why = (
            "; ".join(
                f"{skipped_item.subject}: {skipped_item.why}" for skipped_item in adjustment.skipped
            )
            or "liquidity is on target"
        )
        verdicts: tuple[Verdict, ...] = ()
        if adjustment.exceeds_limit:
            limit_text = "a withdrawal that is possible now"
            verdicts = (Verdict("impermanent_loss", adjustment.reason, limit_text, False),)
        raise Refused(
            f"no liquidity action is possible now: {why}",
            verdicts,
            "see the reasons; trimtab lp shows every position",
        )
    value_per_gas_unit = gas_unit_value(
        step.snapshot, step.portfolio, step.limits, prices, is_needed=False
    )
    plan = _plan(
        step,
        decision,
        actions,
        book,
        PlanCost(
            ZERO, ZERO, skew, value_per_gas_unit * sum(action.gas_units for action in actions)
        ),
        adjustment.skipped,
    )
    approvals_gas_value = value_per_gas_unit * approval_gas_units(step, plan)
    return with_data_fee(
        step,
        replace(plan, cost=replace(plan.cost, approval_gas=approvals_gas_value)),
        prices.get(step.portfolio.wrapped_native, ZERO),
    )


def _exact_action(book: PositionBook, move: PlannedMove) -> tuple[LpAction, PositionBook]:
    """Return one move with its exact amounts and minimums, and the book after it."""
    match move:
        case WithdrawMove():
            return _withdraw(book, move), book_after_withdrawal(
                book, move.confirmed_position, move.position, move.liquidity
            )
        case CollectMove():
            return _collect(book, move), book.after_collection(move.confirmed_position)
        case ProvideMove():
            return _provide(book, move)


def _withdraw(book: PositionBook, move: WithdrawMove) -> Withdraw:
    confirmed_position = move.confirmed_position
    position = move.position
    is_v2_pair = isinstance(position, LpV2Position)
    amounts_raw = positions.principal(position, move.liquidity)
    minimums = slippage.withdrawal_minimums(
        position,
        move.liquidity,
        book.reference_price(confirmed_position),
        max_pool_deviation_bps(book.step.limits) or 0,
    )
    return Withdraw(
        venue=confirmed_position.venue,
        contract=confirmed_position.contract,
        token_id=confirmed_position.token_id,
        pool=position.pair if isinstance(position, LpV2Position) else position.pool,
        token0=confirmed_position.token0,
        token1=confirmed_position.token1,
        liquidity=move.liquidity,
        amounts_raw=amounts_raw,
        min_raw=slippage.nonzero_minimums(minimums, amounts_raw),
        fees_raw=positions.uncollected_fees(position),
        gas_units=action_gas.V2_REMOVE_UNITS if is_v2_pair else action_gas.V3_WITHDRAW_UNITS,
        reason=move.reason,
        position_liquidity=position.liquidity,
    )


def _collect(book: PositionBook, move: CollectMove) -> Collect:
    confirmed_position = move.confirmed_position
    position = move.position
    return Collect(
        venue=confirmed_position.venue,
        contract=confirmed_position.contract,
        token_id=position.token_id,
        pool=position.pool,
        token0=confirmed_position.token0,
        token1=confirmed_position.token1,
        fees_raw=positions.uncollected_fees(position),
        gas_units=action_gas.V3_COLLECT_UNITS,
        reason=move.reason,
    )


def _provide(book: PositionBook, move: ProvideMove) -> tuple[Provide, PositionBook]:
    target = move.target
    existing_position = move.existing_position
    pool = next(
        candidate for candidate in book.step.snapshot.pools if candidate.address == target.pool
    )
    liquidity, amounts_raw = quote_provision(
        book, pool, existing_position, move.ticks, move.desired_raw
    )
    sqrt_range = minting.optional_sqrt_range(move.ticks)
    limits = book.step.limits
    reference_price = book.reference_price(target)
    widest_band_bps = slippage.widest_band_bps(
        sqrt_range, reference_price, max_pool_deviation_bps(limits) or 0, limits.slippage_bps
    )
    book_after = book_after_provision(
        book, target, pool, existing_position, move.ticks, move.desired_raw
    )
    if book_after is None:
        raise Refused(
            f"liquidity in {target.pool}: no amount can be provided",
            code=ErrorCode.AMOUNT,
        )
    action = Provide(
        venue=target.venue,
        contract=target.contract,
        token_id=None if existing_position is None else existing_position.token_id,
        pool=target.pool,
        token0=target.token0,
        token1=target.token1,
        fee_pips=target.fee_pips,
        ticks=move.ticks,
        liquidity=liquidity,
        desired_raw=move.desired_raw,
        amounts_raw=amounts_raw,
        min_raw=slippage.nonzero_minimums(
            slippage.provision_minimums(
                sqrt_range, move.desired_raw, reference_price, widest_band_bps
            ),
            amounts_raw,
        ),
        gas_units=provision_gas_units(sqrt_range, existing_position),
        reason=move.reason,
    )
    return action, book_after


def _plan(
    step: StepInput,
    decision: AdjustLiquidity,
    actions: list[LpAction],
    book_after: PositionBook,
    cost: PlanCost,
    skipped_items: Iterable[SkippedItem],
) -> Plan:
    """Return the plan with its predictions. Actions have no turnover: they cost gas, and skew if
    liquidity is overpaid.
    """
    raw_in_positions = positions.look_through(
        [position for _, position in book_after.position_states], book_after.prices
    )
    raw_elsewhere = raw_outside_wallet(step, book_after.prices, {POSITIONS_PLACE})

    def asset_value(asset: Asset) -> Value:
        address = asset.token.address
        locked_raw = raw_in_positions.get(address, 0) + raw_elsewhere.get(address, 0)
        return (max(0, book_after.counted_raw(asset)) + locked_raw) * book_after.prices[address]

    assets = step.portfolio.assets
    asset_values = [asset_value(asset) for asset in assets]
    weights_bps = largest_remainder(asset_values) if sum(asset_values) > 0 else [0] * len(assets)
    return Plan(
        block=step.snapshot.head.number,
        decision=decision,
        legs=(),
        holdings_after=tuple(
            (asset.token.address, book_after.wallet_raw_by_token[asset.token.address])
            for asset in assets
        ),
        weights_after_bps=tuple(
            (asset.token.address, bps) for asset, bps in zip(assets, weights_bps, strict=True)
        ),
        cost=cost,
        turnover=ZERO,
        gross_volume=ZERO,
        gas_units=sum(action.gas_units for action in actions),
        gap=None,
        verdicts=(),
        skipped=tuple(skipped_items),
        expires_block=step.snapshot.head.number + step.execution.expire_blocks,
        layer_actions=tuple(actions),
    )
