"""Wallet and liquidity positions during planning: balances, exposure and expected loss after each
move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.amm import pools
from agent.amm.lp import position_changes, positions, slippage
from agent.layers.liquidity.policy import valuation
from agent.layers.liquidity.policy.pools import POSITIONS_PLACE
from agent.layers.questions import value_outside_wallet
from agent.model import (
    Asset,
    ConfirmedPosition,
    Limits,
    LpAction,
    LpPosition,
    LpTarget,
    LpV2Position,
    LpV3Position,
    Pool,
    StepInput,
)
from agent.policy import native_coin
from agent.units import BPS, Price, Value, ceil_int


@dataclass(frozen=True, slots=True)
class LiquidityLimits:
    """Limits on expected loss and weight of liquidity, in shares of the portfolio; None if off."""

    loss: Fraction | None
    weight: Fraction | None

    def scaled(self, factor: Fraction) -> LiquidityLimits:
        """Return both limits times a factor."""
        loss = self.loss
        weight = self.weight
        if loss is not None:
            loss *= factor
        if weight is not None:
            weight *= factor
        return LiquidityLimits(loss, weight)


@dataclass(frozen=True, slots=True)
class LiquidityExposure:
    """Expected loss and value of liquidity, and the portfolio's total, numeraire base units."""

    loss: Value
    value: Value
    portfolio_value: Value

    def is_within(self, limits: LiquidityLimits) -> bool:
        """True if both are at or below their limits."""
        return not self.exceeds_loss(limits) and not self.exceeds_weight(limits)

    def exceeds_loss(self, limits: LiquidityLimits) -> bool:
        """True if the expected loss is above its limit."""
        return limits.loss is not None and self.loss > limits.loss * self.portfolio_value

    def exceeds_weight(self, limits: LiquidityLimits) -> bool:
        """True if the value is above its limit."""
        return limits.weight is not None and self.value > limits.weight * self.portfolio_value


Amounts = tuple[int, int]
"""Base units of (token0, token1)."""
TickRange = tuple[int, int]
"""Lower and upper tick of a V3 position."""


@dataclass(frozen=True, slots=True)
class PositionBook:
    """Balances of wallet and positions: `wallet_raw_by_token` are the wallet's base units by token,
    `uncertain_raw_by_token` the part that is predicted and may turn out lower, `position_states`
    the positions.
    """

    step: StepInput
    prices: Mapping[str, Price]
    wallet_raw_by_token: Mapping[str, int]
    uncertain_raw_by_token: Mapping[str, int]
    position_states: tuple[tuple[ConfirmedPosition, LpPosition], ...]

    def exposure(self) -> LiquidityExposure:
        """Return expected loss and value of the liquidity in this book. Raises Refused if a price
        is missing.
        """
        positions_value = valuation.value_of_positions(self.position_states, self.prices)
        wallet_value = sum(
            (
                max(0, self.counted_raw(asset)) * self.prices[asset.token.address]
                for asset in self.step.portfolio.assets
            ),
            Fraction(0),
        )
        expected_loss = valuation.expected_loss_of(self.position_states, self.prices)
        other_value = value_outside_wallet(self.step, self.prices, {POSITIONS_PLACE})
        portfolio_value = wallet_value + positions_value + other_value
        return LiquidityExposure(expected_loss, positions_value, portfolio_value)

    def counted_raw(self, asset: Asset) -> int:
        """Return the base units of an asset above its reserve, without those in positions; negative
        below the reserve.
        """
        free_raw = self.wallet_raw_by_token[asset.token.address] - native_coin.reserved_raw(
            self.step.limits, asset
        )
        if asset.includes_native:
            free_raw += self.step.snapshot.native_wei
        return free_raw

    def spendable_raw(self, token: str) -> int:
        """Return the base units that may be provided: the certain balance less the reserve, at most
        the amount approved in this step.
        """
        asset = next(
            (asset for asset in self.step.portfolio.assets if asset.token.address == token), None
        )
        if asset is None:
            return 0
        uncertain_raw = self.uncertain_raw_by_token.get(token, 0)
        free_raw = max(
            0,
            min(self.wallet_raw_by_token[token], self.counted_raw(asset)) - uncertain_raw,
        )
        return min(free_raw, dict(self.step.progress.spend_caps).get(token, free_raw))

    def after_withdrawal(
        self, confirmed_position: ConfirmedPosition, liquidity_out: int, minimums: Amounts
    ) -> PositionBook:
        """Return the book after a withdrawal from a position; only `minimums` and the fees count as
        certain.
        """
        position = self.position_state_of(confirmed_position)
        if not isinstance(position, LpV2Position | LpV3Position):
            return self
        principal = positions.principal(position, liquidity_out)
        fees = positions.uncollected_fees(position)
        return self._with_position(
            confirmed_position, position_changes.after_withdrawal(position, liquidity_out)
        )._with_wallet_changes(
            confirmed_position,
            (principal[0] + fees[0], principal[1] + fees[1]),
            (principal[0] - minimums[0], principal[1] - minimums[1]),
        )

    def after_collection(self, confirmed_position: ConfirmedPosition) -> PositionBook:
        """Return the book after the fees of a position were collected."""
        position = self.position_state_of(confirmed_position)
        if not isinstance(position, LpV3Position):
            return self
        return self._with_position(
            confirmed_position, position_changes.after_collect(position)
        )._with_wallet_changes(confirmed_position, positions.uncollected_fees(position), (0, 0))

    def after_provision(
        self, confirmed_position: ConfirmedPosition, liquidity_in: int, amounts: Amounts
    ) -> PositionBook:
        """Return the book after liquidity was added to a position."""
        position = self.position_state_of(confirmed_position)
        if not isinstance(position, LpV2Position | LpV3Position):
            return self
        return self._with_position(
            confirmed_position, position_changes.after_provision(position, liquidity_in, amounts)
        )._with_wallet_changes(confirmed_position, (-amounts[0], -amounts[1]), (0, 0))

    def after_mint(
        self, target: LpTarget, position: LpV3Position, amounts: Amounts
    ) -> PositionBook:
        """Return the book after a new position was minted."""
        confirmed_position = new_confirmed_position(target)
        return replace(
            self, position_states=(*self.position_states, (confirmed_position, position))
        )._with_wallet_changes(confirmed_position, (-amounts[0], -amounts[1]), (0, 0))

    def position_state_of(self, confirmed_position: ConfirmedPosition) -> LpPosition:
        """Return the current state of a confirmed position."""
        return next(
            position
            for candidate, position in self.position_states
            if candidate.name == confirmed_position.name
        )

    def reference_price(self, token_pair: ConfirmedPosition | LpTarget | LpAction) -> Fraction:
        """Return the reference price of token0 in token1, base units."""
        return self.prices[token_pair.token0] / self.prices[token_pair.token1]

    def pair_value(
        self, token_pair: ConfirmedPosition | LpTarget | LpAction, amounts_raw: Amounts
    ) -> Value:
        """Return the value of a pair of amounts at reference prices."""
        return (
            amounts_raw[0] * self.prices[token_pair.token0]
            + amounts_raw[1] * self.prices[token_pair.token1]
        )

    def value_without_fees(
        self, confirmed_position: ConfirmedPosition, position: LpPosition
    ) -> Value:
        """Return the value of a position's liquidity without its fees."""
        return self.pair_value(
            confirmed_position,
            positions.amounts_at_reference(
                position,
                self.prices[confirmed_position.token0],
                self.prices[confirmed_position.token1],
            ),
        )

    def position_value(self, confirmed_position: ConfirmedPosition, position: LpPosition) -> Value:
        """Return the value of a position, uncollected fees included."""
        return self.value_without_fees(confirmed_position, position) + self.pair_value(
            confirmed_position, positions.uncollected_fees(position)
        )

    def overpayment(
        self, action: LpTarget | LpAction, amounts: Amounts, book_after: PositionBook
    ) -> Value:
        """Return the cost of providing `amounts` above the value of the liquidity gained, caused by
        a pool off the reference (T1).
        """
        gained_value = valuation.value_of_positions(
            book_after.position_states, self.prices
        ) - valuation.value_of_positions(self.position_states, self.prices)
        return max(Fraction(0), self.pair_value(action, amounts) - gained_value)

    def _with_position(
        self, changed_position: ConfirmedPosition, position_after: LpPosition
    ) -> PositionBook:
        position_states = tuple(
            (
                confirmed_position,
                position_after if confirmed_position.name == changed_position.name else position,
            )
            for confirmed_position, position in self.position_states
        )
        return replace(self, position_states=position_states)

    def _with_wallet_changes(
        self, confirmed_position: ConfirmedPosition, amounts_raw: Amounts, uncertain_raw: Amounts
    ) -> PositionBook:
        raw_by_token = dict(self.wallet_raw_by_token)
        uncertain_by_token = dict(self.uncertain_raw_by_token)
        for token, change_raw, uncertain_change_raw in zip(
            (confirmed_position.token0, confirmed_position.token1),
            amounts_raw,
            uncertain_raw,
            strict=True,
        ):
            raw_by_token[token] = raw_by_token.get(token, 0) + change_raw
            uncertain_by_token[token] = uncertain_by_token.get(token, 0) + uncertain_change_raw
        return replace(
            self, wallet_raw_by_token=raw_by_token, uncertain_raw_by_token=uncertain_by_token
        )


def open_position_book(step: StepInput, prices: Mapping[str, Price]) -> PositionBook:
    """Return the book of the snapshot. Raises Refused if a position is unknown."""
    raw_by_token = {holding.token: holding.raw for holding in step.snapshot.holdings}
    return PositionBook(
        step, prices, raw_by_token, {}, valuation.confirmed_positions(step.snapshot, step.portfolio)
    )


def new_confirmed_position(target: LpTarget) -> ConfirmedPosition:
    """Return the confirmed position that a target implies, since the owner wrote the target. The
    provided amounts are not known here.
    """
    token_id = None
    if target.tick_spacing is not None:
        token_id = position_changes.UNMINTED_TOKEN_ID
    return ConfirmedPosition(
        target.venue,
        target.contract,
        token_id,
        target.token0,
        target.token1,
        (0, 0),
        None,
        target.volatility_bps,
        target.horizon_s,
    )


def liquidity_limits(limits: Limits) -> LiquidityLimits:
    """Return limits.impermanent_loss and limits.lp_max_weight as shares."""
    loss, weight = (
        None if limit_bps is None else Fraction(limit_bps, BPS)
        for limit_bps in (limits.impermanent_loss_bps, limits.lp_max_weight_bps)
    )
    return LiquidityLimits(loss, weight)


def max_pool_deviation_bps(limits: Limits) -> int | None:
    """Return the largest pool deviation from the reference while liquidity moves, in bps; None with
    both limits off.

    It is oracle_deviation plus slippage: no move begins beyond oracle_deviation, and slippage
    bounds the price change until the transaction is mined.
    """
    limits_bps = [
        bps for bps in (limits.oracle_deviation_bps, limits.slippage_bps) if bps is not None
    ]
    return sum(limits_bps) if limits_bps else None


def pool_price(pool: Pool) -> Fraction | None:
    """Return token1 base units per token0 base unit; None if the pool has no price."""
    if not pool.has_price:
        return None
    return pools.marginal_price(pool, pool.token0)


def price_deviation_reason(
    limits: Limits, price: Fraction | None, reference_price: Fraction
) -> str:
    """Return why a pool at this price must not be used (T11); empty if it may be."""
    max_deviation_bps = max_pool_deviation_bps(limits)
    if max_deviation_bps is None:
        return "limits.oracle_deviation and limits.slippage are both off: the price is unbounded"
    if price is None:
        return "its pool has no price"
    deviation = abs(price / reference_price - 1)
    if limits.oracle_deviation_bps is not None and deviation * BPS > limits.oracle_deviation_bps:
        return (
            f"its pool is {ceil_int(deviation * BPS)} bps off the reference, limits.oracle_deviation is"
            f" {limits.oracle_deviation_bps} bps"
        )
    if not slippage.is_within_band(price, reference_price, max_deviation_bps):
        return (
            f"its pool is {ceil_int(deviation * BPS)} bps off the reference, at most {max_deviation_bps} bps are"
            " allowed"
        )
    return ""
