"""Minimum amounts of a liquidity action, from reference prices and limits alone, never from its
plan.
"""

from __future__ import annotations

from agent.amm.lp import minting, slippage
from agent.errors import ErrorCode, Refused
from agent.layers.liquidity.policy.book import (
    Amounts,
    PositionBook,
    max_pool_deviation_bps,
    open_position_book,
)
from agent.model import (
    Collect,
    LpAction,
    LpPosition,
    LpV2Position,
    LpV3Position,
    Provide,
    StepInput,
    Withdraw,
)
from agent.reference import reference_prices


def minimum_amounts(step: StepInput, action: LpAction) -> Amounts:
    """Return base units of (token0, token1) below which the action must not be signed. Raises
    Refused if a price or position is unknown.
    """
    prices = reference_prices(step).price_by_token
    unpriced_tokens = [token for token in (action.token0, action.token1) if token not in prices]
    if unpriced_tokens:
        raise Refused(
            f"{action.name}: {unpriced_tokens[0]} has no reference price",
            remedy="trimtab status shows which prices are missing",
            code=ErrorCode.REFERENCE_PRICE,
        )
    return minimum_amounts_in_book(open_position_book(step, prices), action)


def minimum_amounts_in_book(book: PositionBook, action: LpAction) -> Amounts:
    """Return the minimum amounts of an action, given the book. A collect has none, because it pays
    earned fees at any price.
    """
    reference_price = book.reference_price(action)
    limits = book.step.limits
    deviation_band_bps = max_pool_deviation_bps(limits)
    if deviation_band_bps is None:
        raise Refused(
            "limits.oracle_deviation and limits.slippage are both off: "
            "the price of liquidity is unbounded"
        )
    match action:
        case Withdraw():
            position = _position_of(book, action)
            if not isinstance(position, LpV2Position | LpV3Position):
                raise _unknown_position(action)
            return slippage.withdrawal_minimums(
                position, action.liquidity, reference_price, deviation_band_bps
            )
        case Provide():
            ticks = action.ticks if action.token_id is None else _position_ticks(book, action)
            sqrt_range = minting.optional_sqrt_range(ticks)
            return slippage.provision_minimums(
                sqrt_range,
                action.desired_raw,
                reference_price,
                slippage.widest_band_bps(
                    sqrt_range, reference_price, deviation_band_bps, limits.slippage_bps
                ),
            )
        case Collect():
            return 0, 0


def _position_ticks(book: PositionBook, action: Provide) -> tuple[int, int]:
    """Return the tick range of the position that grows, which overrides the action's."""
    position = _position_of(book, action)
    if not isinstance(position, LpV3Position):
        raise _unknown_position(action)
    return position.tick_lower, position.tick_upper


def _position_of(book: PositionBook, action: LpAction) -> LpPosition | None:
    return next(
        (position for _, position in book.position_states if position.name == action.name), None
    )


def _unknown_position(action: LpAction) -> Refused:
    return Refused(f"{action.name} is not a position of the wallet", code=ErrorCode.POSITION)
