"""Tests of agent/planning/swaps.py: manual swaps sell the whole amount or are refused; quotes are exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from agent.amm import pools as amm
from agent.amm.swap_errors import BeyondKnownTicks, KnownTicksExceeded
from agent.amm.v3.pool import V3Pool
from agent.errors import Refused
from agent.model import LegPlace, Plan, Pool, Rebalance, ScreenedToken, StepInput, TokenFinding
from agent.planning.planner import plan_swap, quote
from agent.reference.floors import fair_floor
from agent.units import BPS, Token
from tests.support.builders import ETHER, GWEI, step_input, token, v2_pool, v3_pool, with_limits, with_snapshot, without_feed
from tests.support.planning_worlds import DEEP, PRICES, check_legs, weights_bps
from tests.support.text import mentions, raises_code, raises_field

WETH, USDC, DAI, LINK = (token(symbol) for symbol in ("WETH", "USDC", "DAI", "LINK"))
COIN = 10**6
WETH_PRICE = Fraction(2_000 * COIN, ETHER)
"""USDC base units per wei."""
THREE_POOLS = (v2_pool(WETH, USDC, 2_000, 4_000_000), v3_pool(WETH, USDC, 2_000, DEEP), v3_pool(WETH, USDC, 2_000, DEEP, 3_000))


def step_with_pools(*pools: Pool, hubs: tuple[str, ...] = (), **limits: object) -> StepInput:
    """Return 100 WETH and 200,000 USDC, by default with a V2 pair and two V3 pools."""
    step = step_input(None, {"WETH": 200_000, "USDC": 200_000}, PRICES, hubs=hubs, pools=list(pools or THREE_POOLS))
    return with_limits(step, **limits)


def sell_weth(step: StepInput, amount_raw: int) -> Plan:
    return plan_swap(step, WETH.address, USDC.address, amount_raw)


def wallet_output_raw(plan: Plan) -> int:
    return sum(leg.amount_out_raw for leg in plan.legs if leg.sink is LegPlace.WALLET)


def pool_with_few_ticks(width: int) -> V3Pool:
    pool = v3_pool(WETH, USDC, 2_000, DEEP)
    return replace(pool, ticks=(), known_from_tick=pool.tick - width, known_to_tick=pool.tick + width)


# --- Manual swaps


def test_swap_sells_the_exact_amount_and_beats_each_pool() -> None:
    step = step_with_pools()

    plan = sell_weth(step, 50 * ETHER)

    check_legs(step, plan)
    assert sum(leg.amount_in_raw for leg in plan.legs) == 50 * ETHER
    assert wallet_output_raw(plan) > max(pool.swap(WETH.address, 50 * ETHER).amount_out_raw for pool in THREE_POOLS)
    assert plan.verdicts == ()


def test_swap_plan_is_by_hand_with_the_weights_after_it_as_goal() -> None:
    step = step_with_pools()

    plan = sell_weth(step, 50 * ETHER)

    assert isinstance(plan.decision, Rebalance)
    assert plan.decision.by_hand
    assert plan.decision.reason == "manual swap of 50 WETH"
    goal_shares = {weight.token: weight.low for weight in plan.decision.goal.weights}
    assert abs(goal_shares[WETH.address] * BPS - weights_bps(step, plan)["WETH"]) <= 1


def test_swap_goes_through_a_hub_without_a_direct_pool() -> None:
    step = step_with_pools(
        v3_pool(WETH, DAI, 2_000, DEEP), v2_pool(WETH, DAI, 2_000, DEEP), v3_pool(DAI, USDC, 1, DEEP, 100), hubs=("DAI",)
    )

    plan = sell_weth(step, 40 * ETHER)

    check_legs(step, plan)
    assert {leg.token_out for leg in plan.legs if leg.sink is LegPlace.ROUTER} == {DAI.address}
    assert sum(leg.amount_in_raw for leg in plan.legs if leg.source is LegPlace.WALLET) == 40 * ETHER


def test_swap_takes_what_fits_within_price_impact() -> None:
    pool = v2_pool(WETH, USDC, 2_000, 1_000_000)
    most_raw = pool.max_in(WETH.address, 100)

    assert [leg.amount_in_raw for leg in sell_weth(step_with_pools(pool), most_raw).legs] == [most_raw]


DEEP_AND_SHALLOW = (v2_pool(WETH, USDC, 2_000, 40_000_000), v3_pool(WETH, USDC, 2_000, DEEP // 10))


@pytest.mark.parametrize("pools", [DEEP_AND_SHALLOW, DEEP_AND_SHALLOW[::-1]], ids=["full pool last", "full pool first"])
def test_swap_sells_what_a_full_pool_leaves_through_another(pools: tuple[Pool, ...]) -> None:
    plan = sell_weth(step_with_pools(*pools, price_impact_bps=50), 40 * ETHER)

    assert sum(leg.amount_in_raw for leg in plan.legs) == 40 * ETHER
    assert max(leg.impact_bps for leg in plan.legs) == 50


def test_swap_of_the_amount_that_a_refusal_names_is_planned() -> None:
    step = step_with_pools(*DEEP_AND_SHALLOW, price_impact_bps=50)
    with raises_code(Refused, "price_impact", "sell at most 56.5") as raised:
        sell_weth(step, 99 * ETHER)
    amount_raw = int(Fraction(raised.value.remedy.split()[3]) * ETHER)

    plan = sell_weth(step, amount_raw)

    assert sum(leg.amount_in_raw for leg in plan.legs) == amount_raw


@pytest.mark.parametrize("excess_raw", [pytest.param(10**12, id="a millionth of a coin more"), pytest.param(87 * ETHER, id="far more")])
def test_swap_beyond_price_impact_says_how_much_fits(excess_raw: int) -> None:
    pool = v2_pool(WETH, USDC, 2_000, 1_000_000)
    most_raw = pool.max_in(WETH.address, 100)

    with raises_code(Refused, "price_impact", "limits.price_impact of 100 bps") as raised:
        sell_weth(step_with_pools(pool), most_raw + excess_raw)

    assert str(most_raw)[:6] in raised.value.message.replace(".", "")
    assert raised.value.remedy.startswith("sell at most 2.")


def test_swap_beyond_the_known_ticks_asks_for_more() -> None:
    near = pool_with_few_ticks(2)

    with pytest.raises(KnownTicksExceeded) as raised:
        sell_weth(step_with_pools(near, pool_min_value=None), 100 * ETHER)

    assert raised.value.pool_addresses == (near.address,)
    assert "ticks read" in raised.value.message


def step_with_reserve() -> StepInput:
    """Return 101 WETH, of which one is reserved."""
    return step_input(None, {"WETH": 200_000, "USDC": 200_000}, reserves={"WETH": 1}, depth=DEEP)


def test_swap_spends_all_but_the_reserve() -> None:
    assert wallet_output_raw(sell_weth(step_with_reserve(), 100 * ETHER)) > 0


def test_swap_of_a_wei_of_the_reserve_is_refused() -> None:
    with raises_code(Refused, "balance", "100.000000000000000001 WETH exceeds the spendable balance") as raised:
        sell_weth(step_with_reserve(), 100 * ETHER + 1)

    assert raised.value.verdicts[0].limit == "100 WETH less reserve"


SKEWED = v3_pool(WETH, USDC, 1_960, DEEP)
OVERPAYING = v3_pool(WETH, USDC, 2_600, DEEP)
OVERPAYING_WORDS = (OVERPAYING.address, "over 1.25 times the reference price")


def test_swap_avoids_a_skewed_pool_and_keeps_its_floor() -> None:
    fair = v3_pool(WETH, USDC, 2_000, DEEP, 10_000)

    plan = sell_weth(step_with_pools(SKEWED, fair), 10 * ETHER)

    assert [leg.pool for leg in plan.legs] == [fair.address]
    assert plan.legs[0].min_out_raw >= fair_floor(10 * ETHER, WETH_PRICE, Fraction(1), 10_000, 100, 30)
    assert f"pool {SKEWED.address}" in {item.subject for item in plan.skipped}


def test_swap_names_a_pool_that_pays_too_much() -> None:
    plan = sell_weth(step_with_pools(OVERPAYING, v3_pool(WETH, USDC, 2_000, DEEP, 10_000)), 10 * ETHER)

    assert OVERPAYING.address not in {leg.pool for leg in plan.legs}
    assert any(mentions(f"{item.subject} {item.why}", *OVERPAYING_WORDS) for item in plan.skipped)


def test_small_swap_is_not_dropped_for_its_gas() -> None:
    plan = sell_weth(with_snapshot(step_with_pools(), priority_fee_wei=500 * GWEI), ETHER // 1_000)

    assert len(plan.legs) == 1
    assert plan.cost.gas > plan.turnover


def quarantined(token: Token) -> StepInput:
    """Return the step in which a token is in quarantine."""
    step = step_with_pools()
    finding = ScreenedToken(token.address, TokenFinding.FEE_ON_TRANSFER, "takes a fee of 1 %")
    return replace(step, targets=replace(step.targets, quarantined_tokens=(finding,)))


def step_without_link_pool() -> StepInput:
    step = step_input({"WETH": 5_000, "LINK": 5_000}, {"WETH": 200_000, "LINK": 1_000}, PRICES, pools=[v3_pool(WETH, USDC, 2_000, DEEP)])
    return replace(step, portfolio=replace(step.portfolio, hubs=(USDC,)))


@pytest.mark.parametrize(
    ("function", "step", "token_out", "amount_raw", "code", "words"),
    [
        pytest.param(
            plan_swap, step_with_pools(SKEWED), USDC, 10 * ETHER, "fair_floor", (SKEWED.address, "floor set by the reference price"),
            id="below the floor of a skewed pool",
        ),
        pytest.param(plan_swap, step_with_pools(OVERPAYING), USDC, ETHER, "fair_floor", OVERPAYING_WORDS, id="pool that pays too much"),
        pytest.param(quote, step_with_pools(OVERPAYING), USDC, ETHER, "fair_floor", OVERPAYING_WORDS, id="quote of such a pool"),
        pytest.param(plan_swap, quarantined(WETH), USDC, ETHER, "token_screen", ("WETH", "takes a fee of 1 %"), id="sold in quarantine"),
        pytest.param(plan_swap, quarantined(USDC), USDC, ETHER, "token_screen", ("USDC", "takes a fee of 1 %"), id="bought in quarantine"),
        pytest.param(
            plan_swap, step_with_pools(v3_pool(WETH, DAI, 2_000, DEEP, window_s=None), hubs=("DAI",)), DAI, ETHER, "reference_price", (),
            id="no reference price",
        ),
        pytest.param(plan_swap, step_with_pools(), USDC, 1_000_000, "route", (), id="buys less than a base unit"),
        pytest.param(plan_swap, step_without_link_pool(), LINK, ETHER, "reference", (), id="no route, no price"),
        pytest.param(quote, step_without_link_pool(), LINK, ETHER, "route", (), id="quote without a route"),
        pytest.param(
            quote, step_with_pools(pool_with_few_ticks(50)), USDC, 10_000 * ETHER, "price_impact", ("ticks read",),
            id="quote beyond the known ticks",
        ),
    ],
)  # fmt: skip
def test_swap_or_quote_that_is_not_possible_is_refused(
    function: Callable[..., object], step: StepInput, token_out: Token, amount_raw: int, code: str, words: tuple[str, ...]
) -> None:
    with raises_code(Refused, code, *words):
        function(step, WETH.address, token_out.address, amount_raw)


# --- Arguments of swaps and quotes


@pytest.mark.parametrize(
    ("token_in", "token_out", "amount_raw", "field", "message"),
    [
        pytest.param(DAI, USDC, ETHER, "token", "token in: ", id="foreign token in"),
        pytest.param(WETH, DAI, ETHER, "token", "token out: ", id="foreign token out"),
        pytest.param(WETH, WETH, ETHER, "", "the same", id="equal tokens"),
        pytest.param(WETH, USDC, 0, "amount", "above zero", id="amount of zero"),
        pytest.param(WETH, USDC, -1, "amount", "above zero", id="negative amount"),
    ],
)
@pytest.mark.parametrize("function", [plan_swap, quote])
def test_swap_and_quote_refuse_wrong_arguments(
    token_in: Token, token_out: Token, amount_raw: int, field: str, message: str, function: Callable[..., object]
) -> None:
    with raises_field(field, message):
        function(step_with_pools(), token_in.address, token_out.address, amount_raw)


# --- Quotes


@pytest.mark.parametrize("coins", [1, 20, 400])
def test_quote_splits_as_well_as_a_fine_grid(coins: int) -> None:
    first = v2_pool(WETH, USDC, 2_000, 10_000_000)
    second = v3_pool(WETH, USDC, 2_001, 20_000_000, 3_000)
    amount_raw = coins * ETHER

    def paid_raw(pool: Pool, sold_raw: int) -> int:
        return pool.swap(WETH.address, sold_raw).amount_out_raw if sold_raw else 0

    best_raw = max(
        paid_raw(first, amount_raw * part // 100) + paid_raw(second, amount_raw - amount_raw * part // 100) for part in range(101)
    )
    gas_value = 230_000 * 11 * 10**8 * WETH_PRICE

    result = quote(step_with_pools(first, second), WETH.address, USDC.address, amount_raw)

    assert result.amount_out_raw >= best_raw * (1 - Fraction(1, 10**6)) - gas_value


def test_quote_of_a_split_adds_up_its_legs() -> None:
    result = quote(step_with_pools(), WETH.address, USDC.address, 50 * ETHER)

    assert len(result.legs) > 1
    assert result.amount_in_raw == 50 * ETHER
    assert result.amount_out_raw == sum(leg.amount_out_raw for leg in result.legs)
    assert result.price_impact_bps == max(leg.impact_bps for leg in result.legs)
    assert result.fee == sum(leg.fee_raw for leg in result.legs) * WETH_PRICE


def test_quote_through_a_hub_counts_only_what_the_wallet_receives() -> None:
    step = step_with_pools(v3_pool(WETH, DAI, 2_000, DEEP), v3_pool(DAI, USDC, 1, DEEP, 100), hubs=("DAI",))

    result = quote(step, WETH.address, USDC.address, ETHER)

    assert 1_990 * COIN < result.amount_out_raw < 2_000 * COIN
    assert result.amount_out_raw == result.legs[-1].amount_out_raw


@pytest.mark.parametrize("pool", THREE_POOLS, ids=["v2", "v3 of 0.05 %", "v3 of 0.3 %"])
def test_quote_of_a_pool_is_exactly_what_it_pays(pool: Pool) -> None:
    swapped = pool.swap(WETH.address, 3 * ETHER)

    result = quote(step_with_pools(slippage_bps=30), WETH.address, USDC.address, 3 * ETHER, pool.address)

    assert result.amount_in_raw == 3 * ETHER
    assert result.amount_out_raw == swapped.amount_out_raw
    assert result.price_impact_bps == amm.price_move_bps(pool, swapped.pool_after, WETH.address)
    assert result.fee == swapped.fee_raw * WETH_PRICE
    assert result.legs[0].min_out_raw == swapped.amount_out_raw * 9_970 // BPS


def test_quote_of_a_pool_beyond_its_known_ticks_is_refused() -> None:
    near = pool_with_few_ticks(50)

    with pytest.raises(BeyondKnownTicks):
        quote(step_with_pools(near), WETH.address, USDC.address, 10_000 * ETHER, near.address)


def test_quote_ignores_price_impact() -> None:
    step = step_with_pools(v2_pool(WETH, USDC, 2_000, 100_000))

    assert quote(step, WETH.address, USDC.address, 50 * ETHER).price_impact_bps > 5_000


def test_quote_of_a_pool_whose_liquidity_ends_is_refused() -> None:
    pool = v3_pool(WETH, USDC, 2_000, DEEP)
    whole_range = replace(pool, known_from_tick=-887_272, known_to_tick=887_272)
    narrow = replace(whole_range, ticks=tuple(replace(tick, index=pool.tick + 60 * (1 if k else -1)) for k, tick in enumerate(pool.ticks)))

    with raises_code(Refused, "pool", "its liquidity ends there") as raised:
        quote(step_with_pools(narrow), WETH.address, USDC.address, 100_000 * ETHER, narrow.address)

    assert mentions(raised.value.remedy, "sell at most", "WETH at a time")


FOREIGN = v3_pool(DAI, LINK, 1, DEEP)
HALF_FOREIGN = v3_pool(WETH, LINK, 133, DEEP)


@pytest.mark.parametrize(
    ("pool_address", "message"),
    [
        pytest.param(WETH.address, "not a known pool", id="unknown pool"),
        pytest.param(FOREIGN.address, "not trade", id="pool of other tokens"),
        pytest.param(HALF_FOREIGN.address, "not trade", id="pool of one of the tokens"),
    ],
)
def test_quote_of_an_unknown_or_foreign_pool_is_refused(pool_address: str, message: str) -> None:
    with raises_field("pool", message):
        quote(step_with_pools(*THREE_POOLS, FOREIGN, HALF_FOREIGN), WETH.address, USDC.address, ETHER, pool_address)


def test_quote_needs_no_feed() -> None:
    step = without_feed(step_with_pools(), "WETH")

    assert quote(step, WETH.address, USDC.address, ETHER).amount_out_raw > 1_990 * COIN
