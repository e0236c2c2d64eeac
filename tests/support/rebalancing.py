"""Plans, grants and transactions for tests of the Rebalancer's signing: pairs fed directly, hubs through the contract, native coin."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.model import IntentKind, Leg, LegFunding, Plan, UnsignedTx
from agent.ports import Grant
from agent.units import NATIVE, floor_int
from agent.venues.rebalancer import RebalancerTerms, encode, min_balance_changes, native_wei
from tests.support.builders import address
from tests.support.signing import DEADLINE_S, MAX_GAS_WEI, NOW_S, PLAN, RULES, USDC, USDT, WBTC, WETH, leg, plan_of, tx

REBALANCER = address("rebalancer")
REBALANCER_RULES = replace(RULES, routers=(), rebalancers=(REBALANCER,), wrapped_native=WETH)
PRICES = {
    WETH: Fraction(3_000 * 10**6, 10**18),
    NATIVE: Fraction(3_000 * 10**6, 10**18),
    USDC: Fraction(1),
    USDT: Fraction(1),
    WBTC: Fraction(60_000 * 10**6, 10**8),
}
R = LegFunding.ROUTER


def native_leg(token_in: str, token_out: str, raw: int, **changes: object) -> Leg:
    """Wraps or unwraps; what it brings is what it takes."""
    return leg(token_in, token_out, raw, raw, pool=WETH, venue="wrapped_native", fee_pips=0, min_out_raw=raw, fee_raw=0, **changes)


HUB = plan_of(
    leg(WETH, USDC, 10**18, 3_000_000_000, fee_pips=500),
    leg(USDT, USDC, 500_000_000, 499_000_000, fee_pips=100, sink=R),
    leg(WBTC, USDC, 800_000, 479_000_000, venue="uniswap_v2", sink=R),
    leg(USDC, WETH, 978_000_000, 325 * 10**15, fee_pips=500, source=R),
)
COIN = plan_of(
    native_leg(NATIVE, WETH, 10**18, sink=R),
    leg(WETH, USDC, 10**18, 3_000_000_000, venue="uniswap_v2", source=R),
    leg(USDT, WETH, 600_000_000, 2 * 10**17, venue="uniswap_v2", sink=R),
    native_leg(WETH, NATIVE, 2 * 10**17, source=R),
)
PLANS = {"pairs": PLAN, "hub": HUB, "coin": COIN}


def conditions(plan: Plan) -> RebalancerTerms:
    """Prices of what the wallet gives and gets, and the value that the minimums come to."""
    least = min_balance_changes(plan.legs)
    value = sum((raw * PRICES[token] for token, raw in least.items()), Fraction(0))
    return RebalancerTerms({token: PRICES[token] for token in least}, floor_int(value) - 1)


def grant_of(plan: Plan, **changes: object) -> Grant:
    """What may be signed for it; the floors lie a little below the plan's minimums."""
    floors = tuple(max(1, one.min_out_raw - 1) for one in plan.legs)
    kept = conditions(plan)
    plain = Grant(IntentKind.SWAP, NOW_S, NOW_S + 90, MAX_GAS_WEI, plan, floors, None, tuple(kept.prices.items()), kept.floor_raw)
    return replace(plain, **changes)  # type: ignore[arg-type]  # keywords are field names, checked by replace


def rebalance_tx(plan: Plan, deadline_s: int = DEADLINE_S, terms: RebalancerTerms | None = None, **changes: object) -> UnsignedTx:
    """The plan as one call of the Rebalancer."""
    return tx(REBALANCER, encode(plan, deadline_s, terms or conditions(plan)), **{"value_wei": native_wei(plan)} | changes)


REBALANCES = {name: (rebalance_tx(plan), grant_of(plan)) for name, plan in PLANS.items()}
