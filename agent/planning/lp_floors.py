"""The least amounts that an action with liquidity may be signed with, by reference prices and limits alone: never from its plan."""

from __future__ import annotations

from agent.errors import Refused
from agent.lp import floors, mint
from agent.model import Collect, LpAction, LpV2Position, LpV3Position, Provide, StepInput, Withdraw
from agent.policy.lp_book import Amounts, Book, band_bps, open_book
from agent.reference import reference_prices


def least_amounts(step: StepInput, action: LpAction) -> Amounts:
    """Base units of (token0, token1) below which the action must not be signed. Raises Refused when a price or position is unknown."""
    prices = {token: found.price for token, found in reference_prices(step).prices.items()}
    unknown = [token for token in (action.token0, action.token1) if token not in prices]
    if unknown:
        raise Refused(f"{action.name}: {unknown[0]} has no reference price", remedy="see status for what has no price")
    return floors_in(open_book(step, prices), action)


def floors_in(book: Book, action: LpAction) -> Amounts:
    """The same where the book is at hand. A collect pays what was earned, whatever the price."""
    ratio, limits = book.prices[action.token0] / book.prices[action.token1], book.step.limits
    band = band_bps(limits)
    if band is None:
        raise Refused("limits.oracle_deviation and limits.slippage are both off: nothing bounds the price of liquidity")
    match action:
        case Withdraw():
            position = next((found for _, found in book.pairs if found.name == action.name), None)
            if not isinstance(position, LpV2Position | LpV3Position):
                raise Refused(f"{action.name} is no position of the wallet")
            return floors.out_floor(position, action.liquidity, ratio, band)
        case Provide():
            ticks = action.ticks if action.token_id is None else _ticks(book, action)
            within = None if ticks is None else mint.ends(ticks)
            return floors.in_floor(within, action.desired_raw, ratio, floors.widest(within, ratio, band, limits.slippage_bps))
        case Collect():
            return 0, 0


def _ticks(book: Book, action: Provide) -> tuple[int, int]:
    """The range of a position that grows: its own, whatever the action says."""
    position = next((found for _, found in book.pairs if found.name == action.name), None)
    if not isinstance(position, LpV3Position):
        raise Refused(f"{action.name} is no position of the wallet")
    return position.tick_lower, position.tick_upper
