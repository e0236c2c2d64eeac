"""What an action with liquidity really cost: wallet and positions together, before and after, at one set of reference prices."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from agent.lp import change, exact, own
from agent.model import (
    Collect,
    Intent,
    LpAction,
    LpMove,
    LpPosition,
    LpV2Position,
    LpV3Position,
    Provide,
    Receipt,
    Snapshot,
    StepInput,
    Withdraw,
)
from agent.ports import Journal
from agent.units import Price, Value

NO_FEES = (0, 0)


def book(
    journal: Journal,
    intent: Intent,
    basis: StepInput | None,
    after: Snapshot | None,
    prices: Mapping[str, Price],
    native_price: Price,
    chain_s: int,
) -> Value:
    """Books a mined action, a reverted one too, and returns its loss in numeraire base units; it turns nothing over.

    `basis` is the step that it was planned in (None: not readable any more, then only its gas is known to be lost), `after` a
    snapshot read right after it. The loss is the worse of what the receipt and of what both snapshots say: what the wallet
    paid and got, and what the positions that changed stand for at reference prices. A withdrawal that pays less than the
    liquidity stood for is a loss, and so is liquidity that was bought too dear.
    """
    receipt = intent.receipt
    if receipt is None:
        raise ValueError(f"intent {intent.id} has no receipt to book")
    gas_value = receipt.gas_cost_wei * native_price
    action = journal.grant(intent.id).action
    lost = gas_value
    if basis is not None and action is not None and receipt.status == 1:
        done = own.move(action, receipt, basis.snapshot.owner)
        told = [_by_receipt(action, done, basis, receipt, prices)]
        if after is not None:
            told.append(_by_snapshots(action, done, basis.snapshot, after, prices))
        lost += max((loss for loss in told if loss is not None), default=Fraction(0))
    journal.book(intent, Fraction(0), lost, receipt.gas_cost_wei, chain_s)
    return lost


def _by_receipt(action: LpAction, done: LpMove | None, basis: StepInput, receipt: Receipt, prices: Mapping[str, Price]) -> Value | None:
    """Lost by the receipt's transfers, and by the contracts' own account of the position as it was read before."""
    before = next((position for position in basis.snapshot.positions if position.name == action.name), None)
    after = _became(action, done, before)
    if after is None:
        return None
    change_of_position = _worth(after, prices) - (Fraction(0) if before is None else _worth(before, prices))
    moved = receipt.net(basis.snapshot.owner)
    return -sum((raw * prices[token] for token, raw in moved.items() if token in prices), Fraction(0)) - change_of_position


def _became(action: LpAction, done: LpMove | None, before: LpPosition | None) -> LpPosition | None:
    """The position after the action; None where that cannot be said."""
    match action, before:
        case Collect(), LpV3Position():
            return change.collected(before)
        case Provide(token_id=None, ticks=tuple()), None if done is not None:
            return _minted(action, done)
        case _, LpV2Position() | LpV3Position() if done is not None:
            return (
                change.put_in(before, done.liquidity, done.amounts_raw) if done.liquidity > 0 else change.taken_out(before, -done.liquidity)
            )
        case _:
            return None


def _minted(action: Provide, done: LpMove) -> LpV3Position:
    """What was minted, as far as its worth goes: it has earned nothing yet."""
    lower, upper = done.ticks or (0, 0)
    return LpV3Position(
        action.venue, action.contract, done.token_id or 0, action.pool, action.token0, action.token1, action.fee_pips, lower, upper,
        done.liquidity, NO_FEES, NO_FEES, 0, lower, NO_FEES, NO_FEES, NO_FEES, done.liquidity, NO_FEES, NO_FEES,
    )  # fmt: skip


def _by_snapshots(action: LpAction, done: LpMove | None, before: Snapshot, after: Snapshot, prices: Mapping[str, Price]) -> Value | None:
    """Lost by balances and positions read before and after; None while the position that changed could not be read."""
    name = action.name if done is None else done.name
    had, has = ({position.name: position for position in read.positions} for read in (before, after))
    known = {*had, name}
    if isinstance(action, Withdraw) and action.liquidity == action.held and name not in has:
        known.discard(name)  # nothing is left of it, so that it is read no more
    if not known <= set(has):
        return None
    return _total(before, list(had.values()), after, prices) - _total(after, [has[one] for one in known], before, prices)


def _total(read: Snapshot, positions: list[LpPosition], other: Snapshot, prices: Mapping[str, Price]) -> Value:
    """Value of the positions and of the tokens with a price that both snapshots could read."""
    both = {holding.token for holding in other.holdings} & set(prices)
    held = sum((holding.raw * prices[holding.token] for holding in read.holdings if holding.token in both), Fraction(0))
    return held + sum((_worth(position, prices) for position in positions), Fraction(0))


def _worth(position: LpPosition, prices: Mapping[str, Price]) -> Value:
    """At reference prices, uncollected fees included; nothing where a token has none: it counted nothing before either."""
    if not {position.token0, position.token1} <= set(prices):
        return Fraction(0)
    price0, price1 = prices[position.token0], prices[position.token1]
    raw0, raw1 = exact.held(position, price0, price1)
    return raw0 * price0 + raw1 * price1
