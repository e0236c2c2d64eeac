"""Amounts, value and expected loss of the confirmed liquidity positions, at reference prices and
never at a pool's spot alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from math import isqrt

from agent.amm.lp import impermanent_loss, positions
from agent.errors import Refused
from agent.layers.liquidity.state import LiquidityState
from agent.model import (
    ConfirmedPosition,
    LpMissingPosition,
    LpPosition,
    LpV2Position,
    LpV3Position,
    Portfolio,
    Snapshot,
    StepInput,
)
from agent.units import BPS, Price, Value, safe_label

PositionStates = Iterable[tuple[ConfirmedPosition, LpPosition]]
"""Each position's config entry (the owner's confirmation) with its on-chain state."""
FORECAST_MOVES_BPS = (-5_000, -2_500, -1_000, 1_000, 2_500, 5_000)
"""Price moves of the forecasts, in bps."""
REMEDY = "see trimtab lp; correct or remove it in portfolio.positions"


class RangeState(Enum):
    """Position of the reference price relative to a position's range."""

    WHOLE = "every price"
    INSIDE = "in range"
    BELOW = "below its range"
    ABOVE = "above its range"
    EMPTY = "no liquidity"
    GONE = "gone: burned or never minted"


@dataclass(frozen=True, slots=True)
class LossForecast:
    """Impermanent loss for a further price change of `moving_token` by `move_bps` at a constant
    price of the other token. `loss_share` is per unit of the held value, `loss_value` in numeraire
    base units.
    """

    move_bps: int
    moving_token: str
    loss_share: Fraction
    loss_value: Value


@dataclass(frozen=True, slots=True)
class PositionReport:
    """One confirmed position. Raw pairs are (token0, token1) base units, values numeraire base
    units at reference prices.

    `redeemable_raw` and `fees_raw` are the amounts that the contracts pay now, `counted_raw` those
    that weights count. `value` is the value of `counted_raw`, `hold_value` of the provided amounts,
    and `fees` of uncollected earnings; `loss` is `hold_value` less the liquidity's value without
    fees (negative: a gain). `pool_deviation` is the pool's deviation from the reference.
    """

    confirmed: ConfirmedPosition
    state: RangeState
    redeemable_raw: tuple[int, int]
    fees_raw: tuple[int, int]
    counted_raw: tuple[int, int]
    value: Value
    hold_value: Value
    fees: Value
    loss: Value
    lvr_per_day: Value
    forecasts: tuple[LossForecast, ...]
    expected_loss: Value
    pool_deviation: Fraction | None


def position_faults(snapshot: Snapshot, portfolio: Portfolio) -> tuple[str, ...]:
    """Return why a confirmed position cannot be counted: it was not read, or has a token that is
    not an asset. Unknown is never zero.
    """
    read_names = {position.name for position in snapshot.positions}
    why_by_subject = {
        unreadable_item.subject: unreadable_item.why
        for unreadable_item in snapshot.unreadable_items
    }
    asset_addresses = {asset.token.address for asset in portfolio.assets}
    reasons = []
    for confirmed_position in portfolio.positions:
        foreign_tokens = [
            token
            for token in (confirmed_position.token0, confirmed_position.token1)
            if token not in asset_addresses
        ]
        if foreign_tokens:
            reasons.append(
                f"position {confirmed_position.name} holds {' and '.join(foreign_tokens)}: not in the portfolio's assets"
            )
        elif confirmed_position.name not in read_names:
            reasons.append(
                f"position {confirmed_position.name}: {why_by_subject.get(f'position {confirmed_position.name}', 'it was not read')}"
            )
    return tuple(reasons)


def faults(step: StepInput) -> tuple[str, ...]:
    """Return the faults of `position_faults` for a step."""
    return position_faults(step.snapshot, step.portfolio)


def undecided_positions_reason(step: StepInput) -> str:
    """Return why trading is blocked until the owner adopts or forgets some positions; empty if
    there are none.
    """
    undecided_names = step.layer(LiquidityState).undecided_positions
    if not undecided_names:
        return ""
    names_text = ", ".join(undecided_names)
    return (
        f"the wallet holds liquidity that this store does not know ({names_text}); adopt it"
        " or ignore it: trimtab lp take, trimtab lp forget"
    )


def confirmed_positions(
    snapshot: Snapshot, portfolio: Portfolio
) -> tuple[tuple[ConfirmedPosition, LpPosition], ...]:
    """Return every confirmed position with its data; unconfirmed positions do not count (T11).
    Raises Refused.
    """
    reasons = position_faults(snapshot, portfolio)
    if reasons:
        raise Refused("; ".join(reasons), remedy=REMEDY)
    position_by_name = {position.name: position for position in snapshot.positions}
    return tuple(
        (confirmed_position, position_by_name[confirmed_position.name])
        for confirmed_position in portfolio.positions
    )


def holdings(step: StepInput, prices: Mapping[str, Price]) -> dict[str, int]:
    """Return base units by token in confirmed positions, uncollected fees included. Raises Refused
    if a position or price is unknown.
    """
    return positions.look_through(
        [position for _, position in confirmed_positions(step.snapshot, step.portfolio)], prices
    )


def holdings_by_place(step: StepInput, prices: Mapping[str, Price]) -> dict[tuple[str, str], int]:
    """Return base units by position and token; a missing price counts as one. Raises Refused if a
    position is unknown.
    """
    raw_by_position_and_token: dict[tuple[str, str], int] = {}
    for _, position in confirmed_positions(step.snapshot, step.portfolio):
        if isinstance(position, LpV2Position | LpV3Position):
            token_pair = position.token0, position.token1
            price0, price1 = (prices.get(token) or Fraction(1) for token in token_pair)
            owned_raw = positions.owned_amounts(position, price0, price1)
            raw_by_position_and_token |= {
                (position.name, token_pair[0]): owned_raw[0],
                (position.name, token_pair[1]): owned_raw[1],
            }
    return raw_by_position_and_token


def total_value(snapshot: Snapshot, portfolio: Portfolio, prices: Mapping[str, Price]) -> Value:
    """Return the value of all confirmed positions. Raises Refused if one is unknown."""
    return value_of_positions(confirmed_positions(snapshot, portfolio), prices)


def value_of_positions(position_states: PositionStates, prices: Mapping[str, Price]) -> Value:
    """Return the value of these positions. Raises Refused if a price is missing."""
    raw_by_token = positions.look_through([position for _, position in position_states], prices)
    return sum((raw * prices[token] for token, raw in raw_by_token.items()), Fraction(0))


def expected_loss(snapshot: Snapshot, portfolio: Portfolio, prices: Mapping[str, Price]) -> Value:
    """Return the mean impermanent loss of all confirmed positions over their horizons. Raises
    Refused if one is unknown.
    """
    return expected_loss_of(confirmed_positions(snapshot, portfolio), prices)


def expected_loss_of(position_states: PositionStates, prices: Mapping[str, Price]) -> Value:
    """Return the mean impermanent loss of these positions over their horizons. Raises Refused if a
    price is missing.
    """
    loss = Fraction(0)
    for confirmed_position, position in position_states:
        price0, price1 = _token_prices(position, prices)
        curve = impermanent_loss.liquidity_curve(position, price0, price1)
        liquidity_raw = positions.amounts_at_reference(position, price0, price1)
        loss += _expected_loss(
            confirmed_position, curve, _pair_value(liquidity_raw, price0, price1)
        )
    return loss


def position_reports(
    snapshot: Snapshot, portfolio: Portfolio, prices: Mapping[str, Price]
) -> tuple[PositionReport, ...]:
    """Return a full report of every confirmed position that was read. One without prices is left
    out, as from the portfolio.
    """
    position_by_name = {position.name: position for position in snapshot.positions}
    return tuple(
        _position_report(
            portfolio, confirmed_position, position_by_name[confirmed_position.name], prices
        )
        for confirmed_position in portfolio.positions
        if confirmed_position.name in position_by_name
        and {confirmed_position.token0, confirmed_position.token1} <= set(prices)
    )


def position_warnings(snapshot: Snapshot, portfolio: Portfolio) -> tuple[str, ...]:
    """Return warnings on the positions; they never stop a step."""
    confirmed_names = {confirmed_position.name for confirmed_position in portfolio.positions}
    return tuple(
        f"position {position.name} does not exist: it was burned or never minted; remove it from"
        " portfolio.positions"
        for position in snapshot.positions
        if isinstance(position, LpMissingPosition) and position.name in confirmed_names
    )


def _position_report(
    portfolio: Portfolio,
    confirmed_position: ConfirmedPosition,
    position: LpPosition,
    prices: Mapping[str, Price],
) -> PositionReport:
    price0, price1 = _token_prices(position, prices)
    liquidity_raw = positions.amounts_at_reference(position, price0, price1)
    fees_raw = positions.uncollected_fees(position)
    liquidity_value = _pair_value(liquidity_raw, price0, price1)
    hold_value = _pair_value(confirmed_position.entry_raw, price0, price1)
    if isinstance(position, LpV2Position):
        fees_value = _v2_fees(position, confirmed_position, price0, price1)
        value_without_fees = liquidity_value - fees_value
    else:
        fees_value = _pair_value(fees_raw, price0, price1)
        value_without_fees = liquidity_value
    curve = impermanent_loss.liquidity_curve(position, price0, price1)
    return PositionReport(
        confirmed=confirmed_position,
        state=_range_state(position, curve),
        redeemable_raw=positions.principal(position),
        fees_raw=fees_raw,
        counted_raw=(liquidity_raw[0] + fees_raw[0], liquidity_raw[1] + fees_raw[1]),
        value=liquidity_value + _pair_value(fees_raw, price0, price1),
        hold_value=hold_value,
        fees=fees_value,
        loss=hold_value - value_without_fees,
        lvr_per_day=(
            Fraction(0)
            if curve is None
            else liquidity_value
            * impermanent_loss.lvr_per_day(curve, confirmed_position.volatility_bps)
        ),
        forecasts=_loss_forecasts(portfolio, position, curve, liquidity_value),
        expected_loss=_expected_loss(confirmed_position, curve, liquidity_value),
        pool_deviation=_pool_deviation(position, price0 / price1),
    )


def _expected_loss(
    confirmed_position: ConfirmedPosition,
    curve: impermanent_loss.LiquidityCurve | None,
    liquidity_value: Value,
) -> Value:
    if curve is None:
        return Fraction(0)
    return liquidity_value * impermanent_loss.expected_loss(
        curve, confirmed_position.volatility_bps, confirmed_position.horizon_s
    )


def _loss_forecasts(
    portfolio: Portfolio,
    position: LpPosition,
    curve: impermanent_loss.LiquidityCurve | None,
    liquidity_value: Value,
) -> tuple[LossForecast, ...]:
    """Return the forecasts for a price move of the token that is not the numeraire, or of the first
    if neither is.
    """
    is_token0_moving = position.token0 != portfolio.numeraire.address
    moving_label = portfolio.token(position.token0 if is_token0_moving else position.token1).label
    if curve is None:
        return ()
    forecasts = []
    for move_bps in FORECAST_MOVES_BPS:
        price_factor = Fraction(BPS + move_bps, BPS)
        price_ratio_factor, token1_price_factor = (
            (price_factor, Fraction(1)) if is_token0_moving else (1 / price_factor, price_factor)
        )
        loss_share = impermanent_loss.impermanent_loss_at(curve, price_ratio_factor)
        forecasts.append(
            LossForecast(
                move_bps,
                moving_label,
                loss_share,
                liquidity_value
                * impermanent_loss.hold_value_at(curve, price_ratio_factor)
                * token1_price_factor
                * loss_share,
            )
        )
    return tuple(forecasts)


def _v2_fees(
    position: LpV2Position, confirmed_position: ConfirmedPosition, price0: Price, price1: Price
) -> Value:
    """Return the fees earned by a V2 position, in value: the growth of √(a0·a1) over the
    provided √(e0·e1) (whitepaper v2, section 2.4).

    2·√(a0·a1·p0·p1) is the value of a share whose pool is at the reference price.
    """
    root_growth = isqrt(positions.v2_product(position)) - isqrt(
        confirmed_position.entry_raw[0] * confirmed_position.entry_raw[1]
    )
    if root_growth <= 0:
        return Fraction(0)
    fee_share = Fraction(root_growth, isqrt(positions.v2_product(position)))
    return (
        _pair_value(positions.amounts_at_reference(position, price0, price1), price0, price1)
        * fee_share
    )


def _range_state(position: LpPosition, curve: impermanent_loss.LiquidityCurve | None) -> RangeState:
    if isinstance(position, LpMissingPosition):
        return RangeState.GONE
    if curve is None:
        return RangeState.EMPTY
    if isinstance(position, LpV2Position):
        return RangeState.WHOLE
    if curve.in_range:
        return RangeState.INSIDE
    if curve.low_sqrt_ratio > 1:
        return RangeState.BELOW
    return RangeState.ABOVE


def _pool_deviation(position: LpPosition, reference_price: Fraction) -> Fraction | None:
    """Return the relative distance of the pool's price from the reference; None without a pool
    price.
    """
    pool_price = positions.pool_price(position)
    if pool_price is None:
        return None
    return abs(pool_price / reference_price - 1)


def _token_prices(position: LpPosition, prices: Mapping[str, Price]) -> tuple[Price, Price]:
    for token in (position.token0, position.token1):
        if token not in prices:
            raise Refused(
                f"{position.name}: {safe_label('', token)} has no reference price",
                remedy="trimtab status shows which prices are missing",
            )
    return prices[position.token0], prices[position.token1]


def _pair_value(amounts_raw: tuple[int, int], price0: Price, price1: Price) -> Value:
    return amounts_raw[0] * price0 + amounts_raw[1] * price1
