"""Liquidity positions in the contracts' exact integers: amounts, fees, next states, and the agent's
own changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import isqrt

from agent.amm.v3.math import (
    MAX_SQRT_RATIO,
    MIN_SQRT_RATIO,
    get_amount0_delta,
    get_amount1_delta,
    get_sqrt_ratio_at_tick,
)
from agent.errors import ErrorCode, OperatorNeeded, Refused
from agent.model import (
    Collect,
    ConfirmedPosition,
    LiquidityAdded,
    LpAction,
    LpMissingPosition,
    LpPosition,
    LpPositionChange,
    LpTarget,
    LpV2Position,
    LpV3Position,
    Provide,
    Receipt,
    TickState,
    Withdraw,
)
from agent.units import Price, floor_int, mul_div_down

Amounts = tuple[int, int]
"""Base units of token0 and token1."""
Q128 = 1 << 128
_UINT128 = Q128 - 1
_UINT256 = (1 << 256) - 1


def principal(position: LpPosition, liquidity: int | None = None) -> Amounts:
    """Return the base units that withdrawing `liquidity` (default: all) pays at the pool's current
    price, V3 fees excluded.
    """
    match position:
        case LpV2Position():
            return v2_burn(position, liquidity)
        case LpV3Position():
            taken = position.liquidity if liquidity is None else liquidity
            return _within(position, position.sqrt_price_x96, taken)
        case LpMissingPosition():
            return 0, 0


def uncollected_fees(position: LpPosition) -> Amounts:
    """Return the base units of fees that NonfungiblePositionManager.collect would pay now; 0 for
    V2, whose fees are in the reserves. The manager credits fee growth inside the range since its
    last update. The pool keeps one balance of owed fees per range, which rounding may leave some
    wei short.
    """
    if not isinstance(position, LpV3Position):
        return 0, 0
    owed, core = position.owed, position.core_owed
    if position.liquidity > 0:  # collect updates the position only then
        inside = growth_inside_x128(position)
        owed = credit_fees(owed, inside, position.inside_last_x128, position.liquidity)
        core = credit_fees(core, inside, position.core_inside_last_x128, position.core_liquidity)
    return min(owed[0], core[0]), min(owed[1], core[1])


def redeemable_amounts(position: LpPosition) -> Amounts:
    """Return the base units that a full withdrawal pays now: burn of V2, decreaseLiquidity and
    collect of V3.
    """
    return _sum(principal(position), uncollected_fees(position))


def v2_burn(position: LpV2Position, liquidity: int | None = None) -> Amounts:
    """Return the payout of UniswapV2Pair.burn for LP tokens of the wallet (default: all).

    The pair first mints the protocol's share, and pays from its actual balance. A burn that would
    pay zero of one token reverts, so the result is zero for both.
    """
    burned = position.liquidity if liquidity is None else liquidity
    supply = position.total_supply + v2_protocol_mint(position)
    if burned <= 0 or supply <= 0:
        return 0, 0
    amount0, amount1 = (mul_div_down(burned, balance, supply) for balance in position.balances)
    return (amount0, amount1) if amount0 > 0 and amount1 > 0 else (0, 0)


def v2_protocol_mint(position: LpV2Position) -> int:
    """Return the LP tokens that UniswapV2Pair._mintFee mints first: a sixth of the growth of √k
    since the last mint or burn.
    """
    if not position.protocol_fee or position.k_last == 0:
        return 0
    root_k, root_k_last = isqrt(position.reserves[0] * position.reserves[1]), isqrt(position.k_last)
    if root_k <= root_k_last:
        return 0
    return position.total_supply * (root_k - root_k_last) // (root_k * 5 + root_k_last)


def growth_inside_x128(position: LpV3Position) -> Amounts:
    """Return the fee growth per unit of liquidity between the position's ticks
    (Tick.getFeeGrowthInside), modulo 2^256.
    """
    sides = zip(
        position.growth_global_x128,
        position.growth_outside_lower_x128,
        position.growth_outside_upper_x128,
        strict=True,
    )
    inside = []
    for whole, lower, upper in sides:
        below = lower if position.tick >= position.tick_lower else whole - lower
        above = upper if position.tick < position.tick_upper else whole - upper
        inside.append((whole - below - above) & _UINT256)
    return inside[0], inside[1]


def amounts_at_reference(position: LpPosition, price0: Price, price1: Price) -> Amounts:
    """Return the base units of the liquidity at the reference price, for weights and budgets.

    A pushed pool changes the payout of a withdrawal, but not this (T3). V2: reserves with equal
    product √(a0·a1). Tokens sent to a pair without a mint can be skimmed by anyone and do not count
    (T11). Raises Refused if a price is not positive.
    """
    if price0 <= 0 or price1 <= 0:
        raise Refused(
            f"{position.name}: a token's reference price is not positive",
            remedy="check the feeds",
            code=ErrorCode.REFERENCE_PRICE,
        )
    ratio = price0 / price1
    match position:
        case LpV2Position():
            product = Fraction(v2_product(position))
            return _root(product / ratio), _root(product * ratio)
        case LpV3Position():
            return _within(position, sqrt_price_x96(ratio), position.liquidity)
        case LpMissingPosition():
            return 0, 0


def v2_product(position: LpV2Position) -> int:
    """Return a0·a1 of the burn's payout, as far as the reserves back it. The product is independent
    of the pool's price.
    """
    counted = (
        min(position.balances[0], position.reserves[0]),
        min(position.balances[1], position.reserves[1]),
    )
    supply = position.total_supply + v2_protocol_mint(position)
    if supply <= 0:
        return 0
    return mul_div_down(position.liquidity, counted[0], supply) * mul_div_down(
        position.liquidity, counted[1], supply
    )


def owned_amounts(position: LpPosition, price0: Price, price1: Price) -> Amounts:
    """Return the base units that count as owned: liquidity at the reference price and uncollected
    fees.
    """
    return _sum(amounts_at_reference(position, price0, price1), uncollected_fees(position))


def look_through(positions: Iterable[LpPosition], prices: Mapping[str, Price]) -> dict[str, int]:
    """Return the base units by token that confirmed positions hold. Raises Refused if a token has
    no reference price in `prices`.
    """
    total: dict[str, int] = {}
    for position in positions:
        tokens = (position.token0, position.token1)
        for token in tokens:
            if token not in prices:
                raise Refused(
                    f"{position.name}: {token} has no reference price",
                    remedy="trimtab status lists the missing prices",
                    code=ErrorCode.REFERENCE_PRICE,
                )
        for token, raw in zip(
            tokens, owned_amounts(position, prices[tokens[0]], prices[tokens[1]]), strict=True
        ):
            total[token] = total.get(token, 0) + raw
    return total


def pool_price(position: LpPosition) -> Fraction | None:
    """Return the current price of the position's pool, token1 base units per token0 base unit; None
    without a price.
    """
    match position:
        case LpV2Position() if min(position.reserves) > 0:
            return Fraction(position.reserves[1], position.reserves[0])
        case LpV3Position():
            return Fraction(position.sqrt_price_x96**2, 1 << 192)
        case _:
            return None


def sqrt_price_x96(ratio: Fraction) -> int:
    """Return √(token1 base units per token0 base unit) in Q96, rounded down, within the valid range
    of a pool.
    """
    return min(
        max(isqrt((ratio.numerator << 192) // ratio.denominator), MIN_SQRT_RATIO),
        MAX_SQRT_RATIO - 1,
    )


def _within(position: LpV3Position, at_x96: int, liquidity: int) -> Amounts:
    """Return the amounts of UniswapV3Pool._modifyPosition for withdrawn liquidity, rounded down;
    whitepaper v3 eqs. 6.29 and 6.30.
    """
    low, high = (
        get_sqrt_ratio_at_tick(position.tick_lower),
        get_sqrt_ratio_at_tick(position.tick_upper),
    )
    inside = min(max(at_x96, low), high)
    return get_amount0_delta(inside, high, liquidity, round_up=False), get_amount1_delta(
        low, inside, liquidity, round_up=False
    )


def credit_fees(owed: Amounts, inside: Amounts, last: Amounts, liquidity: int) -> Amounts:
    """Return the fees owed after the growth since `last` (Position.update), in uint128 like the
    contract.
    """
    owed0, owed1 = (
        (before + ((now - then & _UINT256) * liquidity // Q128)) & _UINT128
        for before, now, then in zip(owed, inside, last, strict=True)
    )
    return owed0, owed1


def _root(value: Fraction) -> int:
    return isqrt(value.numerator // value.denominator)


def _sum(one: Amounts, other: Amounts) -> Amounts:
    return one[0] + other[0], one[1] + other[1]


# --- State of a position after a withdrawal, collect or provision, computed as the contracts do.


UNMINTED_TOKEN_ID = 0
"""Token id of a position that is not minted yet."""


def after_withdrawal(
    position: LpV2Position | LpV3Position, liquidity: int
) -> LpV2Position | LpV3Position:
    """Return the position after a burn of LP tokens, or after decreaseLiquidity and a full
    collect.
    """
    paid = principal(position, liquidity)
    if isinstance(position, LpV2Position):
        gone = (-paid[0], -paid[1])
        return _settled(position, position.liquidity - liquidity, -liquidity, gone)
    left = after_collect(position)
    return replace(
        left, liquidity=left.liquidity - liquidity, core_liquidity=left.core_liquidity - liquidity
    )


def after_collect(position: LpV3Position) -> LpV3Position:
    """Return the position after a full collect: manager and pool updated, the paid amounts removed
    from both.
    """
    paid = uncollected_fees(position)
    owed, core = position.owed, position.core_owed
    inside, core_inside = position.inside_last_x128, position.core_inside_last_x128
    if position.liquidity > 0:
        now = growth_inside_x128(position)
        owed, inside = credit_fees(owed, now, inside, position.liquidity), now
        core, core_inside = credit_fees(core, now, core_inside, position.core_liquidity), now
    return replace(
        position,
        owed=(owed[0] - paid[0], owed[1] - paid[1]),
        core_owed=(core[0] - paid[0], core[1] - paid[1]),
        inside_last_x128=inside,
        core_inside_last_x128=core_inside,
    )


def after_provision(
    position: LpV2Position | LpV3Position, liquidity: int, amounts: Amounts
) -> LpV2Position | LpV3Position:
    """Return the position after increaseLiquidity or addLiquidity. Fees earned before are owed, not
    paid.
    """
    if isinstance(position, LpV2Position):
        return _settled(position, position.liquidity + liquidity, liquidity, amounts)
    before = position
    if position.liquidity > 0:
        now = growth_inside_x128(position)
        before = replace(
            position,
            owed=credit_fees(position.owed, now, position.inside_last_x128, position.liquidity),
            core_owed=credit_fees(
                position.core_owed, now, position.core_inside_last_x128, position.core_liquidity
            ),
            inside_last_x128=now,
            core_inside_last_x128=now,
        )
    return replace(
        before,
        liquidity=before.liquidity + liquidity,
        core_liquidity=before.core_liquidity + liquidity,
    )


def new_position(target: LpTarget, at: TickState, ticks: Amounts, liquidity: int) -> LpV3Position:
    """Return a new position in the target's pool, without fees and without a token id."""
    none = (0, 0)
    return LpV3Position(
        venue=target.venue,
        manager=target.contract,
        token_id=UNMINTED_TOKEN_ID,
        pool=target.pool,
        token0=target.token0,
        token1=target.token1,
        fee_pips=target.fee_pips,
        tick_lower=ticks[0],
        tick_upper=ticks[1],
        liquidity=liquidity,
        inside_last_x128=none,
        owed=none,
        sqrt_price_x96=at.sqrt_price_x96,
        tick=at.tick,
        growth_global_x128=none,
        growth_outside_lower_x128=none,
        growth_outside_upper_x128=none,
        core_liquidity=liquidity,
        core_inside_last_x128=none,
        core_owed=none,
    )


def _settled(
    position: LpV2Position, liquidity: int, minted_raw: int, moved: Amounts
) -> LpV2Position:
    """Return the state after UniswapV2Pair._update of a mint or burn: reserves equal balances,
    kLast their product while feeTo is set.
    """
    balances = (position.balances[0] + moved[0], position.balances[1] + moved[1])
    return replace(
        position,
        liquidity=liquidity,
        total_supply=position.total_supply + v2_protocol_mint(position) + minted_raw,
        reserves=balances,
        balances=balances,
        k_last=balances[0] * balances[1] if position.protocol_fee else 0,
    )


# --- The agent's own changes of positions, from transaction receipts, and the positions that
# result.


def position_change(action: LpAction, receipt: Receipt, wallet: str) -> LpPositionChange | None:
    """Return the effect of a mined `action`; None if liquidity did not change (a collect or a
    revert). Raises OperatorNeeded if the receipt of a provision does not show it: an unknown
    position would be missing from every total.
    """
    if receipt.status != 1 or isinstance(action, Collect):
        return None
    if isinstance(action, Withdraw):
        return LpPositionChange(
            action.venue, action.contract, action.token_id, action.pool, action.token0, action.token1,
            0, None, -action.liquidity, action.held, (0, 0), receipt.block_number,
        )  # fmt: skip
    return (
        _put_in_v2(action, receipt, wallet)
        if action.venue == "uniswap_v2"
        else _put_in_v3(action, receipt, wallet)
    )


def _put_in_v2(action: Provide, receipt: Receipt, wallet: str) -> LpPositionChange:
    net = receipt.net(wallet)
    liquidity = net.get(action.contract, 0)
    if liquidity <= 0:
        raise _silent(action, receipt)
    amounts = (-net.get(action.token0, 0), -net.get(action.token1, 0))
    return _provided(action, None, liquidity, amounts, receipt)


def _put_in_v3(action: Provide, receipt: Receipt, wallet: str) -> LpPositionChange:
    """Return the change of a provision. If a transaction emits several mint events, the last is
    that of the outer call.
    """
    fits = [
        added
        for added in receipt.added
        if added.manager == action.contract and _fits(added, action, wallet)
    ]
    if not fits:
        raise _silent(action, receipt)
    return _provided(action, fits[-1].token_id, fits[-1].liquidity, fits[-1].amounts_raw, receipt)


def _fits(added: LiquidityAdded, action: Provide, wallet: str) -> bool:
    return (
        added.minted_to == wallet if action.token_id is None else added.token_id == action.token_id
    )


def _provided(
    action: Provide,
    token_id: int | None,
    liquidity: int,
    amounts: tuple[int, int],
    receipt: Receipt,
) -> LpPositionChange:
    fresh = action.token_id is None and token_id is not None
    return LpPositionChange(
        action.venue, action.contract, token_id, action.pool, action.token0, action.token1,
        action.fee_pips if fresh else 0, action.ticks if fresh else None, liquidity, 0, amounts, receipt.block_number,
    )  # fmt: skip


def _silent(action: Provide, receipt: Receipt) -> OperatorNeeded:
    return OperatorNeeded(
        f"the receipt of {receipt.tx_hash} does not show the liquidity that it added to"
        f" {action.name}",
        "try another endpoint; planning is blocked until the position is known",
        code=ErrorCode.RECEIPT,
    )


def imported_position(mint: LpPositionChange, amounts: tuple[int, int]) -> LpPositionChange:
    """Return the mint of a position imported by the owner, as if `amounts` had been provided."""
    return replace(mint, amounts_raw=amounts)


def expected_amounts(action: LpAction) -> tuple[int, int]:
    """Return the planned effect of an action on the wallet, base units of (token0, token1);
    negative for payments.
    """
    match action:
        case Withdraw():
            return (
                action.amounts_raw[0] + action.fees_raw[0],
                action.amounts_raw[1] + action.fees_raw[1],
            )
        case Collect():
            return action.fees_raw
        case Provide():
            return -action.amounts_raw[0], -action.amounts_raw[1]


def is_position_open(moves: Sequence[LpPositionChange], name: str) -> bool:
    """Return whether the agent provided liquidity to a position and has not withdrawn all of it.
    The sum of the agent's own changes does not suffice, because anyone may add liquidity to a
    position.
    """
    done = [
        move.held + move.liquidity if move.liquidity < 0 else move.liquidity
        for move in moves
        if move.name == name
    ]
    return any(change.liquidity > 0 for change in moves if change.name == name) and done[-1] > 0


def open_mints(moves: Sequence[LpPositionChange]) -> tuple[LpPositionChange, ...]:
    """Return the mint of each V3 position that the agent opened and has not fully withdrawn."""
    return tuple(
        move for move in moves if move.ticks is not None and is_position_open(moves, move.name)
    )


def tracked_positions(
    confirmed: Sequence[ConfirmedPosition],
    targets: Sequence[LpTarget],
    moves: Sequence[LpPositionChange],
    volatility_bps: int,
    horizon_s: int,
) -> tuple[ConfirmedPosition, ...]:
    """Return all tracked positions: those of the config, V2 pairs that are targets, and open ones
    minted by the agent.

    A config entry counts as provided by the owner. The agent's provisions add to it, and its
    withdrawals reduce it in proportion. `volatility_bps` and `horizon_s` apply to positions outside
    the config and the targets' pools.
    """
    found = {position.name: position for position in confirmed}
    risks = {target.pool: (target.volatility_bps, target.horizon_s) for target in targets}

    def add(at: LpTarget | LpPositionChange, token_id: int | None, block: int | None) -> None:
        risk = risks.get(at.pool, (volatility_bps, horizon_s))
        confirmed_position = ConfirmedPosition(
            at.venue, at.contract, token_id, at.token0, at.token1, (0, 0), block, *risk
        )
        found.setdefault(confirmed_position.name, confirmed_position)

    for target in targets:
        if target.tick_spacing is None:
            add(target, None, None)
    for mint in open_mints(moves):
        add(mint, mint.token_id, mint.block_number)
    for done in moves:
        if done.token_id is None and is_position_open(moves, done.name):
            add(done, None, done.block_number)
        if done.name in found:
            found[done.name] = _after(found[done.name], done)
    return tuple(found.values())


def _after(one: ConfirmedPosition, done: LpPositionChange) -> ConfirmedPosition:
    if done.liquidity >= 0:
        return replace(
            one,
            entry_raw=(
                one.entry_raw[0] + done.amounts_raw[0],
                one.entry_raw[1] + done.amounts_raw[1],
            ),
        )
    rest = Fraction(max(0, done.held + done.liquidity), done.held) if done.held > 0 else Fraction(1)
    return replace(
        one, entry_raw=(floor_int(one.entry_raw[0] * rest), floor_int(one.entry_raw[1] * rest))
    )
