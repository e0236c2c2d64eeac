"""Plans: the goal is hit with all costs in, within every bound, and what is left undone says why."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent.amm import pools as amm
from agent.errors import Refused
from agent.model import Funding, Goal, Plan, PoolState, Quarantined, Rebalance, ReferenceKind, StepInput
from agent.planning.floors import fair_floor
from agent.planning.planner import plan
from agent.units import BPS
from tests.builders import history, step_input, token, v2_pool, v3_pool, with_limits, with_snapshot, without_feed
from tests.planning_worlds import PRICES, flow_value, goal, weights_bps

WETH, USDC, WBTC, DAI, LINK = (token(symbol) for symbol in ("WETH", "USDC", "WBTC", "DAI", "LINK"))
DEEP = 50_000_000
FIVE = {"WETH": 3_000, "USDC": 2_000, "WBTC": 2_000, "DAI": 1_000, "LINK": 2_000}


def wide(step: StepInput, **limits: object) -> StepInput:
    """No turnover limit, two percent of plan cost: bounds that a large correction fits in."""
    return with_limits(step, **{"turnover_bps": None, "daily_turnover_bps": None, "plan_cost_bps": 200, **limits})


def two(weth: int, usdc: int, pools: list[PoolState] | None = None, **limits: object) -> StepInput:
    """WETH and USDC at half and half, over one deep V2 pair unless said."""
    return with_limits(step_input(None, {"WETH": weth, "USDC": usdc}, pools=pools, depth=DEEP), **limits)


def five_pools() -> list[PoolState]:
    """Five tokens, some pairs twice, LINK behind WETH only."""
    return [
        v2_pool(WETH, USDC, 2_000, 2_000_000),
        v3_pool(WETH, USDC, 2_001, DEEP),
        v3_pool(WETH, USDC, 1_999, DEEP, 3_000),
        v3_pool(WBTC, WETH, 30, 20_000),
        v3_pool(WBTC, USDC, 60_000, DEEP, 3_000),
        v3_pool(DAI, USDC, 1, DEEP, 100),
        v2_pool(LINK, WETH, Fraction(15, 2_000), 1_000),
    ]


def check(step: StepInput, found: Plan) -> None:
    """What holds for every plan, whatever the market."""
    states = {pool.address: pool for pool in step.snapshot.pools}
    spent: dict[str, int] = {}
    bought: set[str] = set()
    router: dict[str, int] = {}
    for leg in found.legs:
        swapped = amm.swap_exact_in(states[leg.pool], leg.token_in, leg.amount_in_raw)
        assert (swapped.amount_in_raw, swapped.amount_out_raw) == (leg.amount_in_raw, leg.amount_out_raw)
        assert amm.move_bps(states[leg.pool], swapped.after, leg.token_in) == leg.impact_bps
        assert 0 < leg.min_out_raw <= leg.amount_out_raw
        states[leg.pool] = swapped.after
        if leg.source is Funding.WALLET:
            assert not router, "a chain starts only when the one before it has left the router empty"
            spent[leg.token_in] = spent.get(leg.token_in, 0) + leg.amount_in_raw
        else:
            assert router.pop(leg.token_in) == leg.amount_in_raw
        if leg.sink is Funding.ROUTER:
            router[leg.token_out] = leg.amount_out_raw
        else:
            bought.add(leg.token_out)
    assert not router
    assert not bought & set(spent), "what is sold is not bought: no cycle through the wallet"
    held = {holding.token: holding.raw for holding in step.snapshot.holdings}
    reserves = {asset.token.address: asset.reserve_raw for asset in step.portfolio.assets}
    assert all(raw <= held[at] - reserves[at] for at, raw in spent.items())
    bound = step.limits.price_impact_bps
    for pool in step.snapshot.pools:
        moved = amm.move_bps(pool, states[pool.address], pool.token0), amm.move_bps(pool, states[pool.address], pool.token1)
        assert bound is None or min(moved) <= bound
    pairs = {(leg.token_in, leg.token_out) for leg in found.legs}
    assert not any((b, a) in pairs for a, b in pairs), "no opposite flows"


def test_two_assets_meet_their_targets_with_costs_in() -> None:
    step = two(5_800, 4_200)
    found = plan(step, goal(step))
    check(step, found)
    assert weights_bps(step, found) == {"WETH": 5_000, "USDC": 5_000}
    assert found.block == step.snapshot.head.number
    assert found.expires_block == found.block + step.execution.expire_blocks
    assert found.verdicts == () and found.gap_bps is None and found.skipped == ()


def test_five_assets_over_shared_pools_and_a_hub_end_within_a_few_basis_points() -> None:
    values = {"WETH": 42_000, "USDC": 15_000, "WBTC": 26_000, "DAI": 7_000, "LINK": 10_000}
    step = wide(step_input(FIVE, values, PRICES, pools=five_pools()))
    found = plan(step, goal(step))
    check(step, found)
    after = weights_bps(step, found)
    assert all(abs(after[symbol] - FIVE[symbol]) <= 2 for symbol in FIVE)
    assert any(leg.source is Funding.ROUTER for leg in found.legs), "WBTC reaches LINK through WETH only"


def test_everything_in_one_token_is_spread_over_all() -> None:
    step = wide(step_input(FIVE, {"DAI": 50_000}, PRICES, pools=five_pools()))
    found = plan(step, goal(step))
    check(step, found)
    after = weights_bps(step, found)
    assert all(abs(after[symbol] - FIVE[symbol]) <= 10 for symbol in FIVE)


def test_a_single_asset_outside_is_sold_into_all_the_others() -> None:
    values = {"WETH": 36_000, "USDC": 18_500, "WBTC": 18_000, "DAI": 9_000, "LINK": 18_500}
    step = wide(step_input(FIVE, values, PRICES, pools=five_pools()))
    found = plan(step, goal(step))
    check(step, found)
    assert {leg.token_in for leg in found.legs if leg.source is Funding.WALLET} == {WETH.address}
    assert all(abs(weights_bps(step, found)[symbol] - FIVE[symbol]) <= 2 for symbol in FIVE)


def test_cost_is_split_so_that_it_adds_up_to_the_value_lost() -> None:
    values = {"WETH": 42_000, "USDC": 15_000, "WBTC": 26_000, "DAI": 7_000, "LINK": 10_000}
    step = wide(step_input(FIVE, values, PRICES, pools=five_pools()))
    found = plan(step, goal(step))
    assert flow_value(step, found) == -(found.cost.fees + found.cost.impact + found.cost.skew)
    assert found.cost.fees > 0 and found.cost.impact > 0
    gas_price = Fraction(11, 10) * 10**9
    assert found.cost.gas == found.gas_units * gas_price * Fraction(2_000 * 10**6, 10**18)
    volume = sum(leg.amount_in_raw * Fraction(1) for leg in found.legs if leg.token_in == USDC.address)
    assert found.gross_volume > found.turnover > 0 and found.gross_volume > volume


def test_a_trade_is_split_over_the_pools_of_a_pair_so_that_their_last_units_pay_alike() -> None:
    pools: list[PoolState] = [v2_pool(WETH, USDC, 2_000, 1_000_000), v3_pool(WETH, USDC, 2_000, 3_000_000, 3_000)]
    step = wide(two(45_000, 25_000, pools), pool_min_value=None)
    found = plan(step, goal(step))
    check(step, found)
    small, large = sorted(found.legs, key=lambda leg: leg.amount_in_raw)
    assert Fraction(large.amount_in_raw, small.amount_in_raw) == pytest.approx(3, rel=0.05)
    assert abs(small.impact_bps - large.impact_bps) <= 2


def test_the_bound_of_each_pool_is_kept_and_the_rest_explained() -> None:
    step = wide(two(90_000, 10_000, [v2_pool(WETH, USDC, 2_000, 1_000_000)]))
    found = plan(step, goal(step))
    check(step, found)
    assert found.legs[0].impact_bps == 100
    left = {item.what: item.why for item in found.skipped}
    assert "price_impact" in left["WETH"] and found.legs[0].pool in left["WETH"]
    assert weights_bps(step, found)["WETH"] > 8_400


def test_several_legs_through_one_pool_share_its_bound() -> None:
    pools: list[PoolState] = [v2_pool(WETH, USDC, 2_000, 5_000_000), v3_pool(DAI, USDC, 1, DEEP, 100), v3_pool(LINK, USDC, 15, DEEP)]
    targets = {"WETH": 2_500, "USDC": 2_500, "DAI": 2_500, "LINK": 2_500}
    step = wide(step_input(targets, {"WETH": 55_000, "USDC": 18_000}, PRICES, pools=pools))
    found = plan(step, goal(step))
    check(step, found)
    shared = [leg for leg in found.legs if leg.pool == pools[0].address]
    assert len(shared) > 1
    assert 95 <= sum(leg.impact_bps for leg in shared) <= 100 + len(shared), "each leg's own move, rounded up"
    assert any("price_impact" in item.why for item in found.skipped)


def test_turnover_of_one_plan_is_bounded_and_the_rest_said() -> None:
    step = two(9_600, 400)
    found = plan(step, goal(step))
    check(step, found)
    assert Fraction(2_990) * 10**6 < found.turnover <= Fraction(3_000) * 10**6
    assert any("limits.turnover" in item.why for item in found.skipped)


def test_what_the_day_has_left_bounds_the_plan_and_nothing_left_refuses() -> None:
    step = replace(two(9_600, 400), history=history(turnover_24h=Fraction(5_000 * 10**6)))
    found = plan(step, goal(step))
    assert Fraction(995) * 10**6 < found.turnover <= Fraction(1_000) * 10**6
    assert any("limits.daily_turnover" in item.why for item in found.skipped)
    spent = replace(step, history=history(turnover_24h=Fraction(6_000 * 10**6)))
    with pytest.raises(Refused, match="daily_turnover"):
        plan(spent, goal(spent))


def test_where_the_market_asks_more_than_plan_cost_the_drift_stays() -> None:
    pools: list[PoolState] = [v3_pool(WETH, USDC, 2_000, DEEP, 500), v3_pool(LINK, USDC, 15, DEEP, 10_000)]
    step = with_limits(
        step_input({"WETH": 4_000, "USDC": 3_000, "LINK": 3_000}, {"WETH": 46_000, "USDC": 26_000, "LINK": 28_000}, PRICES, pools=pools),
        plan_cost_bps=50,
    )
    found = plan(step, goal(step))
    check(step, found)
    assert {leg.pool for leg in found.legs} == {pools[0].address}
    assert "plan_cost of 50 bps" in {item.what: item.why for item in found.skipped}["LINK"]
    dear = with_limits(step, plan_cost_bps=4)
    with pytest.raises(Refused, match="plan_cost of 4 bps"):
        plan(dear, goal(dear))


def test_cost_with_gas_never_exceeds_plan_cost_of_what_is_moved() -> None:
    values = {"WETH": 1_300, "USDC": 500, "WBTC": 800, "DAI": 200, "LINK": 200}
    step = wide(step_input(FIVE, values, PRICES, pools=five_pools()), plan_cost_bps=60, min_trade=None, pool_min_value=None)
    step = with_snapshot(step, priority_fee_wei=15 * 10**8)
    found = plan(step, goal(step))
    check(step, found)
    assert found.cost.total * BPS <= 60 * found.turnover
    assert any("gas" in item.why for item in found.skipped)


def test_gas_that_exceeds_what_a_plan_brings_refuses_it() -> None:
    step = with_snapshot(two(5_300, 4_700), priority_fee_wei=100 * 10**9)
    with pytest.raises(Refused) as caught:
        plan(step, goal(step))
    assert any(verdict.guard == "plan_cost" for verdict in caught.value.verdicts)


def test_a_second_pool_is_not_used_where_its_gas_exceeds_what_it_brings() -> None:
    pools: list[PoolState] = [v3_pool(WETH, USDC, 2_000, DEEP), v3_pool(WETH, USDC, 2_000, DEEP, name="twin")]
    cheap = plan(two(5_800, 4_200, pools), goal(two(5_800, 4_200, pools)))
    assert len(cheap.legs) == 1
    free = with_snapshot(two(9_000_000, 5_000_000, pools, turnover_bps=None), priority_fee_wei=0, gas_price_wei=0)
    assert len(plan(free, goal(free)).legs) == 2


def test_dust_is_dropped_and_said_while_the_rest_is_traded() -> None:
    targets = {"WETH": 4_000, "USDC": 3_000, "DAI": 3_000}
    pools: list[PoolState] = [v3_pool(WETH, USDC, 2_000, DEEP), v3_pool(DAI, USDC, 1, DEEP, 100)]
    step = step_input(targets, {"WETH": 4_300, "USDC": 2_704, "DAI": 2_996}, pools=pools)
    found = plan(step, goal(step))
    check(step, found)
    assert {leg.token_out for leg in found.legs} == {USDC.address}
    assert any(item.what == "DAI" and "min_trade" in item.why for item in found.skipped)


def test_a_drift_that_is_all_dust_refuses_with_the_limit() -> None:
    step = two(5_004, 4_996)
    with pytest.raises(Refused) as caught:
        plan(step, goal(step))
    verdict = next(v for v in caught.value.verdicts if v.guard == "min_trade")
    assert not verdict.passed and verdict.measured.startswith("4") and verdict.limit == "10 USDC"


def test_a_balanced_portfolio_has_nothing_to_trade() -> None:
    step = two(5_000, 5_000)
    with pytest.raises(Refused, match="nothing to trade"):
        plan(step, goal(step))


def test_a_reserve_is_neither_spent_nor_counted() -> None:
    step = step_input(None, {"WETH": 5_800, "USDC": 4_200}, reserves={"WETH": 1, "USDC": 100}, depth=DEEP)
    found = plan(step, goal(step))
    check(step, found)
    assert weights_bps(step, found) == {"WETH": 5_000, "USDC": 5_000}
    after = dict(found.holdings_after)
    assert (after[WETH.address] - 10**18) * 2_000 * 10**6 == pytest.approx((after[USDC.address] - 100 * 10**6) * 10**18, rel=1e-4)


@pytest.mark.parametrize(
    ("wanted", "ends"),
    [
        ({"WETH": ("0.45", "0.55"), "USDC": ("0.45", "0.55")}, (5_499, 5_500)),
        ({"WETH": ("0.5", "0.5"), "USDC": ("0.5", "0.5")}, (5_000, 5_000)),
        ({"WETH": ("0.54", "0.54"), "USDC": ("0.46", "0.46")}, (5_400, 5_400)),
    ],
)
def test_a_goal_is_a_point_or_the_nearest_edge(wanted: dict[str, tuple[str, str]], ends: tuple[int, int]) -> None:
    step = two(5_800, 4_200)
    found = plan(step, goal(step, wanted))
    check(step, found)
    assert ends[0] <= weights_bps(step, found)["WETH"] <= ends[1]


def test_a_band_moves_outside_tokens_to_their_edge_and_no_inside_token_twice() -> None:
    targets = {"WETH": 3_000, "USDC": 3_000, "WBTC": 2_000, "DAI": 2_000}
    pools: list[PoolState] = [
        v3_pool(WETH, USDC, 2_000, DEEP),
        v3_pool(WBTC, USDC, 60_000, DEEP),
        v3_pool(DAI, USDC, 1, DEEP, 100),
        v3_pool(WBTC, WETH, 30, 50_000),
    ]
    bands = {"WETH": ("0.27", "0.33"), "USDC": ("0.27", "0.33"), "WBTC": ("0.18", "0.22"), "DAI": ("0.18", "0.22")}
    step = step_input(targets, {"WETH": 3_600, "USDC": 3_000, "WBTC": 1_900, "DAI": 1_500}, pools=pools)
    found = plan(step, goal(step, bands))
    check(step, found)
    after = weights_bps(step, found)
    assert 3_295 <= after["WETH"] <= 3_300 and 1_800 <= after["DAI"] <= 1_805
    assert after["USDC"] == 3_000 and after["WBTC"] == 1_900
    short = step_input(targets, {"WETH": 3_200, "USDC": 3_200, "WBTC": 2_100, "DAI": 1_500}, pools=pools)
    found = plan(short, goal(short, bands))
    check(short, found)
    assert 1_800 <= weights_bps(short, found)["DAI"] <= 1_805
    assert found.turnover < Fraction(302 * 10**6), "just what DAI lacks"


def test_a_pool_off_the_market_is_used_for_the_drift_and_for_no_more() -> None:
    bait = v3_pool(WETH, USDC, 2_028, 100_000_000, name="bait")
    pools: list[PoolState] = [v2_pool(WETH, USDC, 2_000, DEEP), bait]
    step = two(5_600, 4_400, pools)
    found = plan(step, goal(step))
    check(step, found)
    assert [leg.pool for leg in found.legs] == [bait.address]
    assert found.turnover <= Fraction(600 * 10**6) * Fraction(105, 100)
    assert found.cost.skew < 0 < found.cost.fees
    other_way = two(4_400, 5_600, pools)
    found = plan(other_way, goal(other_way))
    check(other_way, found)
    assert bait.address not in {leg.pool for leg in found.legs}, "buying there would cost 1.4 %"


def test_a_skewed_pool_is_a_cost_line_and_never_lowers_a_floor() -> None:
    skewed = v3_pool(WETH, USDC, Fraction(2_000 * 9_960, 10_000), DEEP, 500)
    step = with_limits(two(5_800, 4_200, [skewed]), plan_cost_bps=60)
    found = plan(step, goal(step))
    check(step, found)
    assert found.cost.skew / found.turnover == pytest.approx(0.004, rel=0.02)
    leg = found.legs[0]
    prices = Fraction(2_000 * 10**6, 10**18), Fraction(1)
    assert leg.min_out_raw >= fair_floor(leg.amount_in_raw, *prices, leg.fee_pips, 100, 30)
    tight = with_limits(step, plan_cost_bps=20)
    with pytest.raises(Refused, match="plan_cost"):
        plan(tight, goal(tight))


def test_a_pool_that_pays_below_its_fair_floor_is_barred_even_when_cost_is_off() -> None:
    skewed = v3_pool(WETH, USDC, Fraction(2_000 * 9_800, 10_000), DEEP, 500, name="skewed")
    fair = v3_pool(WETH, USDC, 2_000, DEEP, 10_000)
    step = wide(two(5_800, 4_200, [skewed]), plan_cost_bps=None)
    with pytest.raises(Refused, match="reference price asks"):
        plan(step, goal(step))
    both = wide(two(5_800, 4_200, [skewed, fair]), plan_cost_bps=None)
    assert {leg.pool for leg in plan(both, goal(both)).legs} == {fair.address}


def test_limits_that_are_off_bound_nothing_but_keep_a_minimum() -> None:
    step = two(
        9_000, 1_000, [v2_pool(WETH, USDC, 2_000, 10_000)],
        price_impact_bps=None, slippage_bps=None, plan_cost_bps=None, turnover_bps=None, daily_turnover_bps=None, min_trade=None,
        pool_min_value=None,
    )  # fmt: skip
    found = plan(step, goal(step))
    check(step, found)
    assert found.legs[0].impact_bps > 2_000 and found.legs[0].min_out_raw >= 1
    assert weights_bps(step, found)["WETH"] == pytest.approx(5_000, abs=2)


def test_a_token_without_a_pool_stays_and_says_so() -> None:
    step = step_input({"WETH": 4_000, "USDC": 4_000, "LINK": 2_000}, {"WETH": 5_000, "USDC": 3_500, "LINK": 1_500}, PRICES,
                      pools=[v3_pool(WETH, USDC, 2_000, DEEP)])  # fmt: skip
    found = plan(step, goal(step))
    check(step, found)
    assert {item.what: item.why for item in found.skipped}["LINK"].endswith("no usable pool trades it")


def test_tokens_that_no_route_joins_refuse() -> None:
    pools: list[PoolState] = [v3_pool(LINK, DAI, 15, DEEP)]
    step = step_input(None, {"WETH": 5_800, "USDC": 4_200}, pools=pools)
    with pytest.raises(Refused, match="no usable pool"):
        plan(step, goal(step))
    apart: list[PoolState] = [v3_pool(WETH, LINK, Fraction(2_000, 15), DEEP), v3_pool(DAI, USDC, 1, DEEP)]
    split = step_input(
        {"WETH": 4_000, "USDC": 4_000, "LINK": 1_000, "DAI": 1_000}, {"WETH": 5_000, "USDC": 3_000, "LINK": 1_000, "DAI": 1_000},
        PRICES, pools=apart,
    )  # fmt: skip
    with pytest.raises(Refused, match="no route"):
        plan(split, goal(split))


def test_a_hub_outside_the_portfolio_is_passed_through_and_ends_empty() -> None:
    pools: list[PoolState] = [v3_pool(WETH, DAI, 2_000, DEEP), v3_pool(DAI, USDC, 1, DEEP, 100)]
    step = step_input(None, {"WETH": 5_800, "USDC": 4_200}, hubs=("DAI",), pools=pools)
    found = plan(step, goal(step))
    check(step, found)
    assert [(leg.token_out, leg.sink) for leg in found.legs] == [(DAI.address, Funding.ROUTER), (USDC.address, Funding.WALLET)]
    assert weights_bps(step, found) == {"WETH": 5_000, "USDC": 5_000}
    assert {at for at, _ in found.holdings_after} == {WETH.address, USDC.address}


def test_a_hub_without_a_price_or_in_quarantine_is_not_used() -> None:
    pools: list[PoolState] = [v3_pool(WETH, DAI, 2_000, DEEP, window_s=None), v3_pool(DAI, USDC, 1, DEEP, 100, window_s=None)]
    step = step_input(None, {"WETH": 5_800, "USDC": 4_200}, hubs=("DAI",), pools=pools)
    with pytest.raises(Refused, match="no reference price"):
        plan(step, goal(step))
    priced: list[PoolState] = [v3_pool(WETH, DAI, 2_000, DEEP), v3_pool(DAI, USDC, 1, DEEP, 100)]
    sick = with_snapshot(
        step_input(None, {"WETH": 5_800, "USDC": 4_200}, hubs=("DAI",), pools=priced),
        quarantined=(Quarantined("token", DAI.address, "returned a megabyte"),),
    )
    with pytest.raises(Refused, match="returned a megabyte"):
        plan(sick, goal(sick))


def test_a_pool_that_is_quarantined_shallow_or_empty_is_ignored_and_named() -> None:
    sound = v3_pool(WETH, USDC, 2_000, DEEP, 3_000)
    sick = v3_pool(WETH, USDC, 2_000, DEEP, 500)
    shallow = v2_pool(WETH, USDC, 2_000, 1_000)
    dry = replace(v3_pool(WETH, USDC, 2_000, DEEP, 100), liquidity=0, ticks=())
    step = with_snapshot(two(5_800, 4_200, [sound, sick, shallow, dry]), quarantined=(Quarantined("pool", sick.address, "burnt its gas"),))
    found = plan(step, goal(step))
    assert {leg.pool for leg in found.legs} == {sound.address}
    reasons = {item.what: item.why for item in found.skipped}
    assert "burnt its gas" in reasons[f"pool {sick.address}"]
    assert "pool_min_value" in reasons[f"pool {shallow.address}"]
    assert reasons[f"pool {dry.address}"] == "no liquidity"


def test_one_sided_liquidity_serves_its_side_and_little_of_the_other() -> None:
    pool = v3_pool(WETH, USDC, 2_000, 5_000_000, 100)
    up, down = pool.tick + 3, pool.tick - 2
    if WETH.address == pool.token0:
        ticks = (pool.ticks[0], replace(pool.ticks[1], index=up))
    else:
        ticks = (replace(pool.ticks[0], index=down), pool.ticks[1])
    one_sided = replace(pool, ticks=ticks)
    sells = two(5_800, 4_200, [one_sided], pool_min_value=None)
    assert weights_bps(sells, plan(sells, goal(sells)))["WETH"] == 5_000
    buys = two(4_200, 5_800, [one_sided], pool_min_value=None, min_trade=None)
    found = plan(buys, goal(buys))
    check(buys, found)
    assert found.turnover < Fraction(700 * 10**6), "of 800 wanted: three ticks are all there is"
    assert any(one_sided.address in item.why for item in found.skipped)


def test_a_token_without_price_or_balance_refuses_by_name() -> None:
    unpriced = without_feed(two(5_800, 4_200), "WETH")
    with pytest.raises(Refused, match="WETH has no reference price"):
        plan(unpriced, goal(unpriced))
    step = two(5_800, 4_200)
    unread = with_snapshot(step, holdings=step.snapshot.holdings[:1], quarantined=(Quarantined("token", USDC.address, "mute"),))
    with pytest.raises(Refused, match="mute"):
        plan(unread, goal(unread))


def test_gas_without_a_price_refuses_while_plan_cost_is_on_and_is_noted_when_off() -> None:
    pools: list[PoolState] = [v3_pool(DAI, USDC, 1, DEEP, 100)]
    step = step_input({"DAI": 5_000, "USDC": 5_000}, {"DAI": 5_800, "USDC": 4_200}, pools=pools)
    with pytest.raises(Refused, match="gas cannot be valued"):
        plan(step, goal(step))
    off = with_limits(step, plan_cost_bps=None)
    found = plan(off, goal(off))
    assert found.cost.gas == 0 and any(item.what == "gas" for item in found.skipped)


def test_an_empty_wallet_and_a_foreign_goal_refuse() -> None:
    empty = two(0, 0)
    with pytest.raises(Refused, match="nothing to invest"):
        plan(empty, goal(empty))
    step = two(5_800, 4_200)
    with pytest.raises(Refused, match="other tokens"):
        plan(step, Rebalance("test", Goal(())))


def test_the_same_input_gives_the_same_plan() -> None:
    values = {"WETH": 42_000, "USDC": 15_000, "WBTC": 26_000, "DAI": 7_000, "LINK": 10_000}
    step = wide(step_input(FIVE, values, PRICES, pools=five_pools()))
    assert plan(step, goal(step)) == plan(step, goal(step))


def test_a_numeraire_without_a_target_may_still_be_passed_through() -> None:
    pools: list[PoolState] = [v3_pool(WETH, USDC, 2_000, DEEP), v3_pool(DAI, USDC, 1, DEEP, 100)]
    step = step_input({"WETH": 5_000, "DAI": 5_000}, {"WETH": 5_800, "DAI": 4_200}, hubs=("USDC",), pools=pools)
    step = replace(step, reference=replace(step.reference, kinds=(ReferenceKind.SPOT,)))
    found = plan(step, goal(step))
    check(step, found)
    assert [leg.token_out for leg in found.legs] == [USDC.address, DAI.address]
    assert weights_bps(step, found) == {"WETH": 5_000, "DAI": 5_000}
