"""The least cost of exchanging one asset for another: the best of all routes, over the pools that plans may use."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.amm.v2_pool import V2Pool
from agent.app.documents.status import current_minimum_total
from agent.model import StepInput
from agent.policy.triggers.exchange_costs import RATE_UNIT, PricedMarket, dearest_route_pips, exchange_costs
from agent.units import PIPS
from tests.support.builders import price_of, step_input, token, unit_price, v2_pool
from tests.support.samples import examples

SYMBOLS = ("USDC", "WETH", "WBTC", "DAI")
ASSETS = SYMBOLS[:3]
"""DAI is a hub."""


def pool(first: str, second: str, fee_pips: int = 3_000, skew: Fraction = Fraction(1), name: str = "") -> V2Pool:
    """A pool in which the first token costs `skew` of its reference price."""
    price = price_of(first) / price_of(second) * skew
    return v2_pool(token(first), token(second), price, Fraction(1_000_000) / price_of(second), name, fee_pips)


def costs_of(step: StepInput, *, fees_only: bool = False) -> dict[tuple[str, str], Fraction]:
    """The costs by symbols."""
    prices = {token(symbol).address: unit_price(token(symbol), price_of(symbol), token("USDC")) for symbol in SYMBOLS}
    tokens = [token(symbol).address for symbol in ASSETS]
    costs = exchange_costs(PricedMarket.of_step(step, prices), tokens, fees_only=fees_only)
    return {(ASSETS[i], ASSETS[j]): cost for (i, j), cost in costs.items()}


def market(*pools: V2Pool) -> StepInput:
    return step_input({"USDC": 4_000, "WETH": 3_000, "WBTC": 3_000}, hubs=["DAI"], pools=pools)


pairs = st.sampled_from([(first, second) for number, first in enumerate(SYMBOLS) for second in SYMBOLS[number + 1 :]])
offers = st.tuples(pairs, st.integers(1, 30_000), st.fractions(Fraction(9, 10), Fraction(11, 10), max_denominator=1_000))


@examples(60)
@given(st.lists(offers, max_size=8), st.booleans())
def test_exchange_cost_is_that_of_the_best_of_all_routes(
    market_offers: list[tuple[tuple[str, str], int, Fraction]], fees_only: bool
) -> None:
    kept_shares: dict[tuple[str, str], Fraction] = {}
    pools = []
    for number, ((first, second), fee_pips, skew) in enumerate(market_offers):
        pools.append(pool(first, second, fee_pips, skew, str(number)))
        for sold, bought, ratio in ((first, second, skew), (second, first, 1 / skew)):
            rate = Fraction(PIPS - fee_pips, PIPS) * (1 if fees_only else min(ratio, Fraction(1)))
            kept_shares[sold, bought] = max(kept_shares.get((sold, bought), Fraction(0)), rate)
    costs = costs_of(market(*pools), fees_only=fees_only)
    for sold, bought in permutations(ASSETS, 2):
        others = [symbol for symbol in SYMBOLS if symbol not in (sold, bought)]
        routes = [(sold, *middle, bought) for length in range(3) for middle in permutations(others, length)]
        best = Fraction(0)
        for route in routes:
            rate = Fraction(1)
            for hop in pairwise(route):
                rate *= kept_shares.get(hop, Fraction(0))
            best = max(best, rate)
        if not best:
            assert (sold, bought) not in costs
            continue
        assert costs[sold, bought] == pytest.approx(float(1 - best), abs=1e-6), "reserves are whole units"
        assert costs[sold, bought] > 0, "an advantage is no reason to trade"


def test_exchange_cost_is_never_overstated() -> None:
    """Three hops of six digits have eighteen, of which twelve are kept."""
    step = market(*(pool(*hop, 333_333) for hop in (("WETH", "DAI"), ("DAI", "USDC"), ("USDC", "WBTC"))))
    exact = 1 - Fraction(PIPS - 333_333, PIPS) ** 3
    assert exact - Fraction(4, RATE_UNIT) <= costs_of(step, fees_only=True)["WETH", "WBTC"] <= exact


@pytest.mark.parametrize(
    ("pools", "symbols", "fee_pips"),
    [
        pytest.param([("WBTC", "WETH"), ("WETH", "USDC")], SYMBOLS, 5_991, id="two pools, 0.997 of 0.997 is left"),
        pytest.param([("WBTC", "DAI"), ("DAI", "USDC")], SYMBOLS, 5_991, id="through a hub"),
        pytest.param([("WBTC", "WETH"), ("WETH", "USDC")], ("USDC", "WETH"), 3_000, id="without a price of one"),
        pytest.param([("WBTC", "WETH")], SYMBOLS, None, id="no route"),
    ],
)
def test_dearest_route__has_the_fees_of_all_its_pools(pools: list[tuple[str, str]], symbols: tuple[str, ...], fee_pips: int | None) -> None:
    prices = {token(symbol).address: unit_price(token(symbol), price_of(symbol), token("USDC")) for symbol in symbols}
    assert dearest_route_pips(market(*(pool(*pair) for pair in pools)), prices) == fee_pips


def test_minimum_total__is_that_of_the_dearest_route() -> None:
    document = current_minimum_total(market(pool("WBTC", "WETH"), pool("WETH", "USDC")), Fraction(0))
    assert document is not None
    assert document["pool_fee_percent"] == "0.5991"
    assert document["text"].startswith("No total works: pool fees of 0.6 % are not below limits.plan_cost of 50 bps.")
