"""Value, margin, leverage and liquidation prices of a cross-margined account.

Integers follow Perpetual Protocol v2 (AccountBalance, Vault, PerpMath of @perp/curie-contract
2.8.4), which truncates toward zero, so that each figure equals the contract's to the base unit.
Venues with margin tiers (Hyperliquid) apply a separate rate to each part of a notional.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from fractions import Fraction

from agent.model import MarginAccount, MarginTier, PerpMarket, Position
from agent.units import BPS, Price, ceil_int, mul_div_down

Q96 = 2**96
"""1.0 as a Q96 square root price (FixedPoint96)."""
PPM = 1_000_000
"""Parts per million in one whole."""
PERPETUAL_PROTOCOL_TIERS = (MarginTier(0, initial_ppm=100_000, maintenance_ppm=62_500),)
"""Margin rates of every market of Perpetual Protocol v2."""
WAD = 10**18
"""1.0 in the venue's 18-decimal fixed-point format."""
FULL_LIQUIDATION_MAX_VALUE = 100
"""Position value, in whole quote coins, up to which a liquidation closes the whole position."""


def wad_of_sqrt_x96(sqrt_price_x96: int) -> int:
    """Convert a square root price to a price with 18 decimals, rounded down twice
    (PerpMath.formatSqrtPriceX96ToPriceX96, formatX96ToX10_18).
    """
    return mul_div_down(mul_div_down(sqrt_price_x96, sqrt_price_x96, Q96), WAD, Q96)


def truncate(value: Fraction) -> int:
    """Return the integer part, rounded toward zero as in Solidity."""
    magnitude = abs(value.numerator) // value.denominator
    return -magnitude if value < 0 else magnitude


def position_value_raw(market: PerpMarket, size_raw: int) -> int:
    """Return the signed value of a size at the mark (AccountBalance._getPositionValue), rounded
    toward zero.
    """
    scaled_value = size_raw * market.mark.numerator
    magnitude = abs(scaled_value) // market.mark.denominator
    return -magnitude if scaled_value < 0 else magnitude


def value_at_mark_raw(account: MarginAccount, position: Position) -> int:
    """Return the signed value of a position at the mark, in quote base units."""
    return position_value_raw(account.market(position.market), position.size_raw)


def unrealised_profit_raw(account: MarginAccount) -> int:
    """Return the profit of all positions at the mark, without funding (getPnlAndPendingFee)."""
    return sum(
        value_at_mark_raw(account, position) + position.open_notional_raw
        for position in account.positions
    )


def funding_pending_raw(account: MarginAccount) -> int:
    """Return the pending funding: positive if the account owes it, negative if it receives it."""
    return sum(position.funding_pending_raw for position in account.positions)


def collateral_value_raw(account: MarginAccount) -> int:
    """Return the collateral plus realised profit less pending funding
    (Vault.getSettlementTokenValue, less the profit of open positions).
    """
    return account.collateral_raw + account.realised_raw - funding_pending_raw(account)


def account_value_raw(account: MarginAccount) -> int:
    """Return collateral and unrealised profit, unrounded."""
    return collateral_value_raw(account) + unrealised_profit_raw(account)


def settled_value_raw(account: MarginAccount) -> int:
    """Return the account value in whole base units of the collateral token, rounded down as venues
    judge it, but expressed in quote base units (ClearingHouse.getAccountValue).
    """
    collateral_unit_raw = account.collateral_unit_raw
    return account_value_raw(account) // collateral_unit_raw * collateral_unit_raw


def value_in_collateral_raw(account: MarginAccount) -> int:
    """Return the account value in base units of the collateral token, rounded down. An account in
    debt counts as zero, because the wallet is not liable for it.
    """
    return max(0, account_value_raw(account) // account.collateral_unit_raw)


def gross_notional_raw(account: MarginAccount) -> int:
    """Return the sum of the absolute values of all positions (getTotalAbsPositionValue)."""
    return sum(abs(value_at_mark_raw(account, position)) for position in account.positions)


def net_notional_raw(account: MarginAccount) -> int:
    """Return longs less shorts at the mark."""
    return sum(value_at_mark_raw(account, position) for position in account.positions)


def leverage(account: MarginAccount) -> Fraction | None:
    """Return gross notional over account value; None if the account has positions but no value,
    which breaches every limit.
    """
    gross_raw = gross_notional_raw(account)
    value_raw = account_value_raw(account)
    if gross_raw == 0:
        return Fraction(0)
    return Fraction(gross_raw, value_raw) if value_raw > 0 else None


def debt_value_raw(account: MarginAccount) -> int:
    """Return the notional that needs initial margin: the net quote owed and the shorts at the mark
    (AccountBalance.getTotalDebtValue).
    """
    net_quote_raw = sum(position.open_notional_raw for position in account.positions)
    shorts_raw = sum(
        value_at_mark_raw(account, position)
        for position in account.positions
        if position.size_raw < 0
    )
    return -(min(0, net_quote_raw) + shorts_raw)


def tiered_margin_raw(
    tiers: tuple[MarginTier, ...], notional_raw: int, is_initial: bool
) -> Fraction:
    """Return the margin of a notional by tiers, each part at its own rate."""
    margin_raw = Fraction(0)
    for index, tier in enumerate(tiers):
        tier_end_raw = tiers[index + 1].above_raw if index + 1 < len(tiers) else notional_raw
        tier_part_raw = min(notional_raw, tier_end_raw) - tier.above_raw
        if tier_part_raw <= 0:
            break
        margin_raw += Fraction(
            tier_part_raw * (tier.initial_ppm if is_initial else tier.maintenance_ppm), PPM
        )
    return margin_raw


def _tiered_margin_sum_raw(account: MarginAccount, *, is_initial: bool) -> int:
    """Return the margin by market and tier on the notional at the mark, rounded up."""
    position_margins = (
        tiered_margin_raw(
            account.market(position.market).tiers,
            abs(value_at_mark_raw(account, position)),
            is_initial=is_initial,
        )
        for position in account.positions
    )
    return ceil_int(sum(position_margins, Fraction(0)))


def maintenance_margin_raw(account: MarginAccount) -> int:
    """Return the account value below which positions are liquidated.

    With one rate for all markets it is rounded down once over the sum, as
    AccountBalance.getMarginRequirementForLiquidation does; otherwise it is the sum by market and
    tier, rounded up.
    """
    if (rate_ppm := _common_rate_ppm(account, is_initial=False)) is not None:
        return mul_div_down(gross_notional_raw(account), rate_ppm, PPM)
    return _tiered_margin_sum_raw(account, is_initial=False)


def initial_margin_raw(account: MarginAccount) -> int:
    """Return the initial margin of the positions. With one rate for all markets it applies to the
    debt, as in Vault._getTotalMarginRequirement. If rates differ or the venue counts the notional,
    it is by market and tier on the notional, rounded up.
    """
    rate_ppm = _common_rate_ppm(account, is_initial=True) if account.initial_on_debt else None
    if rate_ppm is not None:
        return mul_div_down(debt_value_raw(account), rate_ppm, PPM)
    return _tiered_margin_sum_raw(account, is_initial=True)


def free_margin_raw(account: MarginAccount) -> int:
    """Return the margin that can be withdrawn or used: the smaller of collateral and account value,
    less initial margin, so unrealised profit frees no margin (Vault._getFreeCollateralByRatio). May
    be negative.
    """
    return min(collateral_value_raw(account), account_value_raw(account)) - initial_margin_raw(
        account
    )


def is_reduction_accepted(account: MarginAccount) -> bool:
    """True if the venue accepts a reduction that leaves this account: its usable value covers the
    maintenance margin of the debt (ClearingHouse, CH_NEFCM), or of the notional where the venue
    counts that.
    """
    rate_ppm = _common_rate_ppm(account, is_initial=False) if account.initial_on_debt else None
    required_raw = maintenance_margin_raw(account)
    if rate_ppm is not None:
        required_raw = mul_div_down(debt_value_raw(account), rate_ppm, PPM)
    return _usable_value_raw(account) >= required_raw


def is_opening_accepted(account: MarginAccount) -> bool:
    """True if the venue accepts an opening that leaves this account: its usable value covers the
    initial margin.
    """
    return _usable_value_raw(account) >= initial_margin_raw(account)


def _usable_value_raw(account: MarginAccount) -> int:
    """Return the smaller of collateral and account value, as Perpetual Protocol counts; the account
    value where the venue counts the notional (Hyperliquid, "Margining").
    """
    value_raw = account_value_raw(account)
    return min(collateral_value_raw(account), value_raw) if account.initial_on_debt else value_raw


def utilisation(account: MarginAccount) -> Fraction | None:
    """Return initial margin over account value, which rises as positions lose; None if the account
    has positions but no value.
    """
    value_raw = account_value_raw(account)
    if value_raw > 0:
        return Fraction(initial_margin_raw(account), value_raw)
    return None if account.positions else Fraction(0)


def is_liquidatable(account: MarginAccount) -> bool:
    """True if the account value is below the maintenance margin."""
    return settled_value_raw(account) < maintenance_margin_raw(account)


def liquidatable_size_raw(account: MarginAccount, market: str) -> int:
    """Return the signed size of a position that a liquidator may close; zero while the account is
    above maintenance (AccountBalance.getLiquidatablePositionSize).

    The whole position may be closed below half of the maintenance margin, or if its value is at
    most 100 quote coins; otherwise up to half of the gross notional.
    """
    if not is_liquidatable(account):
        return 0
    size_raw = account.size_raw(market)
    abs_value_raw = abs(position_value_raw(account.market(market), size_raw))
    is_fully_liquidatable = settled_value_raw(account) < maintenance_margin_raw(account) // 2
    if is_fully_liquidatable or abs_value_raw <= FULL_LIQUIDATION_MAX_VALUE * account.quote.unit:
        return size_raw
    closable_ppm = min(PPM, mul_div_down(gross_notional_raw(account), PPM, 2 * abs_value_raw))
    return truncate(Fraction(size_raw * closable_ppm, PPM))


def liquidation_price(account: MarginAccount, market: str) -> Price | None:
    """Return the mark of one market at which the account is liquidated if the other marks do not
    move; None without a position, or if no such mark is at or above zero.

    The price P solves V + s (P - m) = O + r |s| P - d. V is the account value, m the mark, s the
    size, O the maintenance margin of other positions, r the rate of the position's tier, and d the
    saving by lower tiers.
    """
    perp_market = account.market(market)
    size_raw = account.size_raw(market)
    if size_raw == 0:
        return None
    value_raw = account_value_raw(account)
    other_maintenance_raw = Fraction(
        maintenance_margin_raw(
            replace(
                account,
                positions=tuple(
                    position for position in account.positions if position.market != market
                ),
            )
        )
    )
    for index, tier in enumerate(perp_market.tiers):
        maintenance_rate = Fraction(tier.maintenance_ppm, PPM)
        tier_saving = maintenance_rate * tier.above_raw - tiered_margin_raw(
            perp_market.tiers, tier.above_raw, is_initial=False
        )
        slope = size_raw - maintenance_rate * abs(size_raw)
        price = (
            other_maintenance_raw - tier_saving - value_raw + size_raw * perp_market.mark
        ) / slope
        notional_raw = abs(size_raw) * price
        tier_end_raw = (
            perp_market.tiers[index + 1].above_raw if index + 1 < len(perp_market.tiers) else None
        )
        if (
            price >= 0
            and notional_raw >= tier.above_raw
            and (tier_end_raw is None or notional_raw <= tier_end_raw)
        ):
            return price
    return None


def liquidation_distance(account: MarginAccount, market: str) -> Fraction | None:
    """Return the move of the mark to the liquidation price, as a share of the mark; None without a
    liquidation price.

    Negative for a long (the price falls to it), positive for a short.
    """
    price = liquidation_price(account, market)
    return None if price is None else price / account.market(market).mark - 1


def nearest_liquidation(account: MarginAccount) -> tuple[PerpMarket, Fraction] | None:
    """Return the market with the smallest move to liquidation, and that move as a share of its
    mark; None if no single market can cause a liquidation.
    """
    liquidation_distances = [
        (abs(distance), position.market, distance)
        for position in account.positions
        if (distance := liquidation_distance(account, position.market)) is not None
    ]
    if not liquidation_distances:
        return None
    _, market, distance = min(liquidation_distances)
    return account.market(market), distance


def with_moved_marks(
    account: MarginAccount, move_share_by_market: dict[str, Fraction]
) -> MarginAccount:
    """Return the account after its marks moved by these shares, by market (stress test)."""
    markets = tuple(
        replace(
            market, mark=market.mark * (1 + move_share_by_market.get(market.market, Fraction(0)))
        )
        for market in account.markets
    )
    return replace(account, markets=markets)


def with_index_marks(
    account: MarginAccount, doubtful_markets: Collection[str] = ()
) -> MarginAccount:
    """Return the account with every mark set to its index, which trades cannot move. In
    `doubtful_markets` markets, use whichever of mark and index is better for the position held, so
    that neither alone can force a reduction.
    """

    def reference_mark(market: PerpMarket) -> Price:
        if market.market not in doubtful_markets:
            return market.index
        better_price_of = max if account.size_raw(market.market) > 0 else min
        return better_price_of(market.mark, market.index)

    return replace(
        account,
        markets=tuple(replace(market, mark=reference_mark(market)) for market in account.markets),
    )


def with_adverse_move(account: MarginAccount, move_share: Fraction) -> MarginAccount:
    """Return the account after every mark moved against its position by this share."""
    return with_moved_marks(
        account,
        {
            position.market: -move_share if position.is_long else move_share
            for position in account.positions
        },
    )


def with_trade(account: MarginAccount, market: str, size_raw: int, quote_raw: int) -> MarginAccount:
    """Return the account after a fill of `size_raw` (negative: sold) that moved the quote balance
    by `quote_raw` (negative: paid, fees included).

    Pending funding of the position is settled, and a reduction realises its share of the profit.
    """
    position = next(
        (held_position for held_position in account.positions if held_position.market == market),
        Position(market, 0, 0),
    )
    realised_raw, open_notional_raw = _realise(position, size_raw, quote_raw)
    other_positions = tuple(
        other_position for other_position in account.positions if other_position.market != market
    )
    position_after = Position(market, position.size_raw + size_raw, open_notional_raw)
    return replace(
        account,
        positions=(*other_positions, position_after)
        if position_after.size_raw
        else other_positions,
        realised_raw=account.realised_raw + realised_raw - position.funding_pending_raw,
    )


def _realise(position: Position, size_raw: int, quote_raw: int) -> tuple[int, int]:
    """Return the realised profit of a fill and the open notional after it
    (Exchange._getPnlToBeRealized, whose share closed has 18 decimals).
    """
    position_size_raw = position.size_raw
    if position_size_raw * size_raw >= 0:
        return 0, position.open_notional_raw + quote_raw
    closed_share_wad = mul_div_down(abs(size_raw), WAD, abs(position_size_raw))
    if closed_share_wad <= WAD:
        realised_raw = quote_raw + truncate(
            Fraction(position.open_notional_raw * closed_share_wad, WAD)
        )
    else:
        realised_raw = position.open_notional_raw + truncate(
            Fraction(quote_raw * WAD, closed_share_wad)
        )
    return realised_raw, position.open_notional_raw + quote_raw - realised_raw


def position_shares(account: MarginAccount, target_leverage_bps: int = 0) -> dict[str, Fraction]:
    """Return each position, by market, as a share of the gross notional or, if that is more, of the
    target notional: `target_leverage_bps` of the account value. Otherwise the first position of a
    book would always be all of it.
    """
    target_notional = Fraction(max(0, account_value_raw(account)) * target_leverage_bps, BPS)
    base_notional = max(Fraction(gross_notional_raw(account)), target_notional)
    return {
        position.market: abs(value_at_mark_raw(account, position)) / base_notional
        if base_notional
        else Fraction(0)
        for position in account.positions
    }


def _common_rate_ppm(account: MarginAccount, is_initial: bool) -> int | None:
    """Return the common rate of all held markets; None if rates differ or a market has tiers."""
    rates_ppm = set()
    for position in account.positions:
        market_tiers = account.market(position.market).tiers
        if len(market_tiers) != 1:
            return None
        rates_ppm.add(
            market_tiers[0].initial_ppm if is_initial else market_tiers[0].maintenance_ppm
        )
    return rates_ppm.pop() if len(rates_ppm) == 1 else None
