"""Portfolios of WETH and USDC with liquidity, without a chain: positions by value and range, targets by share.

The reference is 2,000 USDC a WETH, by feeds; `pushed` is the pool's price of WETH as a multiple of it. USDC is token0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent import guards
from agent.amm.lp import minting, positions
from agent.amm.v2_pool import V2Pool
from agent.amm.v3.math import get_sqrt_ratio_at_tick
from agent.amm.v3.pool import V3Pool
from agent.layers.liquidity.planning.actions import plan_liquidity
from agent.layers.liquidity.policy.book import PositionBook, open_position_book
from agent.model import (
    AdjustLiquidity,
    CodeHash,
    ConfirmedPosition,
    Decision,
    Hold,
    Limits,
    LpMissingPosition,
    LpPosition,
    LpTarget,
    LpV2Position,
    LpV3Position,
    Plan,
    Provide,
    StepInput,
    Threshold,
    Withdraw,
)
from agent.policy.decide import decide
from agent.reference import reference_prices
from tests.support import builders
from tests.support.builders import ETHER, limits, step_input, threshold, v2_pool, v3_pool, with_snapshot
from tests.support.constants import MONTH_S, USD
from tests.support.plans import evidence
from tests.support.tokens import USDC, WETH

# --- Positions with the states that contracts would have, built from a few numbers, for tests without a chain.


TOKENS = tuple(sorted((builders.token("WETH").address, builders.token("USDC").address), key=lambda a: int(a, 16)))
MANAGER = builders.address("position manager")
PAIR = builders.address("pair")
NO_FEES = (0, 0)


def v2(liquidity: int = 10**18, supply: int = 10**20, reserves: tuple[int, int] = (10**22, 4 * 10**22), **changes: object) -> LpV2Position:
    """Return a share of a pair whose balances equal its reserves, without protocol fee."""
    plain = LpV2Position("uniswap_v2", PAIR, *TOKENS, liquidity, supply, reserves, reserves, reserves[0] * reserves[1], False)
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace itself


def v3(lower: int = -6_000, upper: int = 6_000, liquidity: int = 10**20, tick: int = 0, **changes: object) -> LpV3Position:
    """Return a position that is the only one in its range, at the price of `tick`, without fees."""
    plain = LpV3Position(
        "uniswap_v3", MANAGER, 42, builders.address("pool"), *TOKENS, 3_000, lower, upper, liquidity, NO_FEES, NO_FEES,
        get_sqrt_ratio_at_tick(tick), tick, NO_FEES, NO_FEES, NO_FEES, liquidity, NO_FEES, NO_FEES,
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace itself


def gone() -> LpMissingPosition:
    """Return a burned position."""
    return LpMissingPosition("uniswap_v3", MANAGER, 42, *TOKENS)


def redeemable_amounts(position: LpPosition) -> tuple[int, int]:
    """Return the base units that a full withdrawal pays now: burn of V2, decreaseLiquidity and collect of V3."""
    parts = zip(positions.principal(position), positions.uncollected_fees(position), strict=True)
    amount0, amount1 = (principal_raw + fees_raw for principal_raw, fees_raw in parts)
    return amount0, amount1


def confirmed_position(
    position: LpV2Position | LpV3Position | LpMissingPosition, entry_raw: tuple[int, int] = (1, 1), **changes: object
) -> ConfirmedPosition:
    """Return the position as the owner confirms it: volatility 60 % a year, horizon a month."""
    at = position.pair if isinstance(position, LpV2Position) else position.manager
    token_id = None if isinstance(position, LpV2Position) else position.token_id
    plain = ConfirmedPosition(position.venue, at, token_id, position.token0, position.token1, entry_raw, None, 6_000, MONTH_S)
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace itself


def price_at(tick: int) -> Fraction:
    """Return token1 base units per token0 base unit at a tick, exactly as given by a pool's sqrt price."""
    return Fraction(get_sqrt_ratio_at_tick(tick) ** 2, 2**192)


PRICES = {WETH.address: Fraction(2_000 * USD, ETHER), USDC.address: Fraction(1)}
RATIO = PRICES[USDC.address] / PRICES[WETH.address]
SPACING = 60
Place = LpV2Position | LpV3Position


def v3_at(pushed: Fraction | int = 1, depth: int = 50_000_000) -> V3Pool:
    """Return the V3 pool of the positions; its mean price is the reference."""
    return v3_pool(WETH, USDC, 2_000 * Fraction(pushed), depth, 3_000, twap_price=2_000, name="lp")


def v2_at(pushed: Fraction | int = 1, depth: int = 1_000_000) -> V2Pool:
    """Return the V2 pair of the positions."""
    return v2_pool(WETH, USDC, 2_000 * Fraction(pushed), depth, "lp")


def ranged(
    usd: int, low: Fraction | int, high: Fraction | int, number: int = 42, pool: V3Pool | None = None, **changes: object
) -> LpV3Position:
    """Return a position worth about `usd` at the reference, between two prices of WETH in USDC (2,000 is the reference)."""
    place = pool or v3_at()
    ticks = _ticks(Fraction(low), Fraction(high))
    unit = minting.mint_amounts(positions.sqrt_price_x96(RATIO), minting.sqrt_price_range(ticks), 1 << 100)
    worth = unit[0] * PRICES[USDC.address] + unit[1] * PRICES[WETH.address]
    liquidity = int((1 << 100) * usd * USD / worth)
    here = v3(*ticks, liquidity, pool=place.address, token_id=number, sqrt_price_x96=place.sqrt_price_x96)
    return replace(here, tick=place.tick, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace itself


def _ticks(low: Fraction, high: Fraction) -> tuple[int, int]:
    """Return the ticks of the range. WETH is token1, so a high price of it is a low tick."""
    lower, upper = (minting.range_around(RATIO * 2_000 / price, 0, SPACING)[0] for price in (high, low))
    return lower, max(upper, lower + SPACING)


def paired(usd: int, pool: V2Pool | None = None, **changes: object) -> LpV2Position:
    """Return LP tokens worth `usd` at the reference."""
    pair = pool or v2_at()
    worth = pair.reserve0 * PRICES[USDC.address] + pair.reserve1 * PRICES[WETH.address]
    supply = 10**18
    return v2(int(supply * usd * USD / worth), supply, (pair.reserve0, pair.reserve1), pair=pair.address, k_last=0, **changes)


def lp_target(share_bps: int, pool: V3Pool | V2Pool | None = None, **changes: object) -> LpTarget:
    """Return a target of this share, 20 % wide."""
    place = pool or v3_at()
    v3 = isinstance(place, V3Pool)
    plain = LpTarget(
        "uniswap_v3" if v3 else "uniswap_v2", MANAGER if v3 else place.address, place.address, place.token0, place.token1, 3_000,
        SPACING if v3 else None, share_bps, 2_000 if v3 else None, None, 6_000, MONTH_S,
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace itself


def roomy(**changes: object) -> Limits:
    """Return the template's limits with at most half of the portfolio in liquidity and an expected loss of a tenth."""
    wide = replace(limits(), lp_max_weight_bps=5_000, impermanent_loss_bps=1_000)
    return replace(wide, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace itself


def world(
    places: Sequence[Place] = (),
    targets: Sequence[LpTarget] = (),
    values: Mapping[str, int | Fraction] | None = None,
    bounds: Limits | None = None,
    pushed: Fraction | int = 1,
    confirmed: Sequence[ConfirmedPosition] | None = None,
    **changes: object,
) -> StepInput:
    """Return a step with 4,000 of both in the wallet (default), these confirmed positions in both pools, and these targets."""
    step = step_input(values=values or {"WETH": 4_000, "USDC": 4_000}, bounds=bounds or roomy(), **changes)  # type: ignore[arg-type]  # keywords of step_input
    pools = (*step.snapshot.pools, v2_at(pushed), v3_at(pushed))
    code = tuple(CodeHash(at, "0x" + "ab" * 32) for at in (pools[-2].address, pools[-1].address, MANAGER))
    own = tuple(confirmed_position(place) for place in places) if confirmed is None else tuple(confirmed)
    step = with_snapshot(step, pools=pools, positions=tuple(places), code_hashes=(*step.snapshot.code_hashes, *code))
    return replace(step, portfolio=replace(step.portfolio, positions=own, lp_targets=tuple(targets)))


def book(step: StepInput) -> PositionBook:
    """Return the book of the snapshot's wallet and positions."""
    return open_position_book(step, reference_prices(step).price_by_token)


def planned(step: StepInput) -> Plan:
    """Return the plan of the decision, which must be to adjust liquidity."""
    decision = decide(step).decision
    assert isinstance(decision, AdjustLiquidity), decision
    return plan_liquidity(step, decision)


def quiet() -> Threshold:
    """Return a trigger that never fires."""
    return threshold(absolute_bps=9_000)


def kinds(step: StepInput) -> list[type]:
    """Return the types of the plan's actions, in order."""
    return [type(action) for action in planned(step).layer_actions]


def passes(step: StepInput) -> bool:
    """Return True; fail if a guard refuses the plan."""
    plan = planned(step)
    refused = [v for v in guards.judge(step, plan, evidence(step, plan)) if not v.passed]
    assert not refused, refused
    return True


def assert_hold(step: StepInput, *reason_parts: str) -> Decision:
    """Assert that the decision is a hold whose reason contains these parts."""
    decision = decide(step).decision
    assert isinstance(decision, Hold), decision
    assert all(part in decision.reason for part in reason_parts), decision.reason
    return decision


def only_provide(step: StepInput) -> Provide:
    """Return the only action of the plan, which must provide."""
    [action] = planned(step).layer_actions
    assert isinstance(action, Provide)
    return action


def worth(step: StepInput, action: Provide | Withdraw) -> float:
    """Return the value that an action moves, in dollars at the reference."""
    of = step.portfolio.lp_targets[0]
    return float(book(step).pair_value(of, action.amounts_raw)) / USD
