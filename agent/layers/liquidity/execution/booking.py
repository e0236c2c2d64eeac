"""Cost of a mined liquidity action: wallet and positions together, before and after, at equal prices."""

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
    lp_action,
)
from agent.reference import reference_prices
from agent.store.store import Store
from agent.units import Price, Value

NO_FEES = (0, 0)


def book_liquidity_action(
    store: Store,
    intent: Intent,
    own: StepInput | None,
    basis: StepInput,
    after: Snapshot | None,
    native_price: Price,
    chain_s: int,
) -> Value:
    """Book a mined liquidity action, including a reverted one, and return its loss in numeraire
    base units; its turnover is zero.

    `own` is the step that planned the action; None if it is unreadable, and then only gas counts
    as lost. `basis` has the reference prices, `after` is a snapshot read right after the action. The larger of two losses counts: by the
    receipt, and by the two snapshots, both with wallet payments and changed positions at reference
    prices. A withdrawal that pays less than the liquidity's value is a loss, as is overpaid
    liquidity.
    """
    receipt = intent.receipt
    if receipt is None:
        raise ValueError(f"intent {intent.id} has no receipt to book")
    gas_value = receipt.gas_cost_wei * native_price
    granted = store.journal.grant(intent.id).action
    lost = gas_value
    if own is not None and granted is not None and receipt.status == 1:
        action = lp_action(granted)
        prices = reference_prices(basis).by_token
        done = own_changes.position_change(action, receipt, own.snapshot.owner)
        bookings = [_by_receipt(action, done, own.snapshot, receipt, prices)]
        if after is not None:
            bookings.append(_by_snapshots(action, done, own.snapshot, after, prices))
        lost += max((loss for loss in bookings if loss is not None), default=Fraction(0))
    store.budgets.book(intent, Fraction(0), lost, receipt.gas_cost_wei, chain_s)
    return lost


def _by_receipt(
    action: LpAction,
    done: LpPositionChange | None,
    snapshot: Snapshot,
    receipt: Receipt,
    prices: Mapping[str, Price],
) -> Value | None:
    """Return the loss from the receipt's transfers and the position's change; None if the position
    after the action cannot be derived.
    """
    before = next(
        (position for position in snapshot.positions if position.name == action.name), None
    )
    after = _position_after(action, done, before)
    if after is None:
        return None
    gained = _position_value(after, prices)
    if before is not None:
        gained -= _position_value(before, prices)
    moved = receipt.net(snapshot.owner)
    received = sum(
        (raw * prices[token] for token, raw in moved.items() if token in prices), Fraction(0)
    )
    return -received - gained


def _position_after(
    action: LpAction, done: LpPositionChange | None, before: LpPosition | None
) -> LpPosition | None:
    match action, before:
        case [Collect(), LpV3Position()]:
            return position_changes.after_collect(before)
        case [Provide(token_id=None, ticks=tuple()), None] if done is not None:
            return _minted(action, done)
        case [_, LpV2Position() | LpV3Position()] if done is not None:
            if done.liquidity > 0:
                return position_changes.after_provision(before, done.liquidity, done.amounts_raw)
            return position_changes.after_withdrawal(before, -done.liquidity)
        case _:
            return None


def _minted(action: Provide, done: LpPositionChange) -> LpV3Position:
    """Return the minted position as its valuation needs it, without fees, because it has not earned
    any yet.
    """
    lower, upper = done.ticks or (0, 0)
    return LpV3Position(
        action.venue, action.contract, done.token_id or 0, action.pool, action.token0, action.token1, action.fee_pips, lower, upper,
        done.liquidity, NO_FEES, NO_FEES, 0, lower, NO_FEES, NO_FEES, NO_FEES, done.liquidity, NO_FEES, NO_FEES,
    )  # fmt: skip


def _by_snapshots(
    action: LpAction,
    done: LpPositionChange | None,
    before: Snapshot,
    after: Snapshot,
    prices: Mapping[str, Price],
) -> Value | None:
    """Return the loss from balances and positions read before and after; None if the changed
    position was not read.
    """
    name = action.name if done is None else done.name
    old, new = (
        {position.name: position for position in read.positions} for read in (before, after)
    )
    counted = {*old, name}
    if isinstance(action, Withdraw) and action.liquidity == action.held and name not in new:
        counted.discard(name)  # empty positions are not read
    if not counted <= set(new):
        return None
    value_before = _total(before, list(old.values()), after, prices)
    return value_before - _total(after, [new[key] for key in counted], before, prices)


def _total(
    read: Snapshot, pairs: list[LpPosition], other: Snapshot, prices: Mapping[str, Price]
) -> Value:
    """Return the value of the positions and of the priced tokens that are in both snapshots."""
    both = {holding.token for holding in other.holdings} & set(prices)
    in_wallet = sum(
        (holding.raw * prices[holding.token] for holding in read.holdings if holding.token in both),
        Fraction(0),
    )
    return in_wallet + sum((_position_value(position, prices) for position in pairs), Fraction(0))


def _position_value(position: LpPosition, prices: Mapping[str, Price]) -> Value:
    """Return the value at reference prices, uncollected fees included; zero if a token has no
    price, both before and after the action.
    """
    if not {position.token0, position.token1} <= set(prices):
        return Fraction(0)
    price0, price1 = prices[position.token0], prices[position.token1]
    raw0, raw1 = positions.owned_amounts(position, price0, price1)
    return raw0 * price0 + raw1 * price1
