"""Cost of a mined liquidity action: wallet and positions together, before and after, at equal
prices.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from agent.amm.lp import own_changes, position_changes, positions
from agent.model import (
    Collect,
    Intent,
    LpAction,
    LpPosition,
    LpPositionChange,
    LpV2Position,
    LpV3Position,
    Provide,
    Receipt,
    Snapshot,
    StepInput,
    Withdraw,
    as_lp_action,
)
from agent.reference import reference_prices
from agent.store.store import Store
from agent.units import Price, Value

NO_AMOUNTS = (0, 0)


def book_liquidity_action(
    store: Store,
    intent: Intent,
    planned_step: StepInput | None,
    price_step: StepInput,
    snapshot_after: Snapshot | None,
    native_price: Price,
    chain_s: int,
) -> Value:
    """Book a mined liquidity action, including a reverted one, and return its loss in numeraire
    base units; its turnover is zero.

    `planned_step` is the step that planned the action; None if it is unreadable, and then only gas
    counts as lost. `price_step` has the reference prices, `snapshot_after` is read right after the
    action. The larger of two losses counts: by the receipt, and by the two snapshots, both with
    wallet payments and changed positions at reference prices. A withdrawal that pays less than the
    liquidity's value is a loss, as is overpaid liquidity.
    """
    receipt = intent.receipt
    if receipt is None:
        raise ValueError(f"intent {intent.id} has no receipt to book")
    gas_value = receipt.gas_cost_wei * native_price
    granted_action = store.journal.grant(intent.id).layer_action
    booked_loss = gas_value
    if planned_step is not None and granted_action is not None and receipt.status == 1:
        action = as_lp_action(granted_action)
        prices = reference_prices(price_step).price_by_token
        position_change = own_changes.position_change(action, receipt, planned_step.snapshot.owner)
        losses = [_loss_by_receipt(action, position_change, planned_step.snapshot, receipt, prices)]
        if snapshot_after is not None:
            losses.append(
                _loss_by_snapshots(
                    action, position_change, planned_step.snapshot, snapshot_after, prices
                )
            )
        booked_loss += max((loss for loss in losses if loss is not None), default=Fraction(0))
    store.budgets.book_intent(intent, Fraction(0), booked_loss, receipt.gas_cost_wei, chain_s)
    return booked_loss


def _loss_by_receipt(
    action: LpAction,
    position_change: LpPositionChange | None,
    snapshot: Snapshot,
    receipt: Receipt,
    prices: Mapping[str, Price],
) -> Value | None:
    """Return the loss from the receipt's transfers and the position's change; None if the position
    after the action cannot be derived.
    """
    position_before = next(
        (position for position in snapshot.positions if position.name == action.name), None
    )
    position_after = _position_after(action, position_change, position_before)
    if position_after is None:
        return None
    position_gain_value = _position_value(position_after, prices)
    if position_before is not None:
        position_gain_value -= _position_value(position_before, prices)
    wallet_change_by_token = receipt.net_transfers(snapshot.owner)
    received_value = sum(
        (
            change_raw * prices[token]
            for token, change_raw in wallet_change_by_token.items()
            if token in prices
        ),
        Fraction(0),
    )
    return -received_value - position_gain_value


def _position_after(
    action: LpAction, position_change: LpPositionChange | None, position_before: LpPosition | None
) -> LpPosition | None:
    match action, position_before:
        case [Collect(), LpV3Position()]:
            return position_changes.after_collect(position_before)
        case [Provide(token_id=None, ticks=tuple()), None] if position_change is not None:
            return _minted_position(action, position_change)
        case [_, LpV2Position() | LpV3Position()] if position_change is not None:
            if position_change.liquidity_delta > 0:
                return position_changes.after_provision(
                    position_before, position_change.liquidity_delta, position_change.amounts_raw
                )
            return position_changes.after_withdrawal(
                position_before, -position_change.liquidity_delta
            )
        case _:
            return None


def _minted_position(action: Provide, position_change: LpPositionChange) -> LpV3Position:
    """Return the minted position as its valuation needs it, without fees, because it has not earned
    any yet.
    """
    tick_lower, tick_upper = position_change.ticks or (0, 0)
    return LpV3Position(
        venue=action.venue,
        manager=action.contract,
        token_id=position_change.token_id or 0,
        pool=action.pool,
        token0=action.token0,
        token1=action.token1,
        fee_pips=action.fee_pips,
        tick_lower=tick_lower,
        tick_upper=tick_upper,
        liquidity=position_change.liquidity_delta,
        inside_last_x128=NO_AMOUNTS,
        owed=NO_AMOUNTS,
        sqrt_price_x96=0,
        tick=tick_lower,
        growth_global_x128=NO_AMOUNTS,
        growth_outside_lower_x128=NO_AMOUNTS,
        growth_outside_upper_x128=NO_AMOUNTS,
        core_liquidity=position_change.liquidity_delta,
        core_inside_last_x128=NO_AMOUNTS,
        core_owed=NO_AMOUNTS,
    )


def _loss_by_snapshots(
    action: LpAction,
    position_change: LpPositionChange | None,
    snapshot_before: Snapshot,
    snapshot_after: Snapshot,
    prices: Mapping[str, Price],
) -> Value | None:
    """Return the loss from balances and positions read before and after; None if the changed
    position was not read.
    """
    position_name = action.name if position_change is None else position_change.name
    old_position_by_name, new_position_by_name = (
        {position.name: position for position in snapshot.positions}
        for snapshot in (snapshot_before, snapshot_after)
    )
    counted_position_names = {*old_position_by_name, position_name}
    if (
        isinstance(action, Withdraw)
        and action.liquidity == action.position_liquidity
        and position_name not in new_position_by_name
    ):
        counted_position_names.discard(position_name)  # empty positions are not read
    if not counted_position_names <= set(new_position_by_name):
        return None
    value_before = _counted_value(
        snapshot_before, list(old_position_by_name.values()), snapshot_after, prices
    )
    return value_before - _counted_value(
        snapshot_after,
        [
            new_position_by_name[counted_position_name]
            for counted_position_name in counted_position_names
        ],
        snapshot_before,
        prices,
    )


def _counted_value(
    snapshot: Snapshot,
    counted_positions: list[LpPosition],
    other_snapshot: Snapshot,
    prices: Mapping[str, Price],
) -> Value:
    """Return the value of the positions and of the priced tokens that are in both snapshots."""
    common_tokens = {holding.token for holding in other_snapshot.holdings} & set(prices)
    wallet_value = sum(
        (
            holding.raw * prices[holding.token]
            for holding in snapshot.holdings
            if holding.token in common_tokens
        ),
        Fraction(0),
    )
    return wallet_value + sum(
        (_position_value(position, prices) for position in counted_positions), Fraction(0)
    )


def _position_value(position: LpPosition, prices: Mapping[str, Price]) -> Value:
    """Return the value at reference prices, uncollected fees included; zero if a token has no
    price, both before and after the action.
    """
    if not {position.token0, position.token1} <= set(prices):
        return Fraction(0)
    price0 = prices[position.token0]
    price1 = prices[position.token1]
    amount0_raw, amount1_raw = positions.owned_amounts(position, price0, price1)
    return amount0_raw * price0 + amount1_raw * price1
