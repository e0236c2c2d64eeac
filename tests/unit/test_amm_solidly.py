"""Solidly pairs: the stable curve against real bytecode, both curves against figures worked out by hand, and one backtest."""

from fractions import Fraction

import pytest
from pydantic import ValidationError

from agent.amm.pools import marginal_price
from agent.amm.solidly import SolidlyPool
from agent.amm.swap_errors import ContractRevert
from agent.config.tables.venues import VenuesTable
from agent.guards import judge
from agent.planning.planner import plan
from tests.support.backtests import halves, hourly, simulated
from tests.support.builders import step_input, v2_pool
from tests.support.planning_worlds import DAI, PRICES, USDC, WETH, check_legs, rebalance_to_targets, wide
from tests.support.plans import evidence

POOL, TOKEN0, TOKEN1 = (f"0x{number:040x}" for number in (9, 1, 2))
ONE = 10**18
TRIDENT = [
    (10000000000000000000000, 9993229276317789192192, 100, 18, 18, False, 9894090581568161792, 9893101171678000000),
    (2613721240309478000000, 19582080230147290562560, 100, 18, 18, False, 632837276430056554496, 228715945671722000000),
    (10000000000000000000000, 14484745327154447777792, 500, 18, 18, True, 1959327489287276288, 1982532933995000000),
    (9996422132509590000000, 14488369358214786745856, 500, 18, 18, True, 92152465408593264640, 93181692775827000000),
    (10000000000000000000000, 25532103303788815712256, 3000, 18, 18, False, 4047755048980736114688, 2970735862559960000000),
    (9999846994159983000000, 25532284744767834691456, 3000, 18, 18, False, 2744974783466870, 2314774436000000),
    (10000000000000000000000, 23319312891, 100, 18, 6, False, 2210, 1944608128000000),
    (10000009664483771206442, 23319301909, 100, 18, 6, True, 10430435784292, 11),
    (10000000000000000000000, 21773930853, 500, 18, 6, False, 608146, 548974076327000000),
    (9999999936778387000000, 21773930923, 500, 18, 6, True, 4207065720529021952, 4655276),
    (1000000000000000000000, 2894377406, 3000, 18, 6, True, 31514434933202, 39),
    (1000000164794479993704, 2894377199, 3000, 18, 6, True, 13864576518939764736, 17325517),
    (10000000000, 5888037928, 100, 6, 6, True, 677, 653),
    (9999976338, 5888060786, 100, 6, 6, False, 61182, 63334),
    (10000000000000, 9765683373591, 500, 6, 6, True, 2000480862, 1999473787),
    (10000161476935, 9765521977933, 500, 6, 6, False, 421683301660, 421468125335),
    (10000000000000, 7770074687933, 3000, 6, 6, False, 855750283906, 854281439610),
    (10000009486995, 7770065266707, 3000, 6, 6, True, 1603479144, 1592349314),
    (100000000000000, 2912154190279429607915520, 100, 8, 18, True, 79838823130323, 855344186684496847000000),
    (99999789456416, 2912156852679167029081600, 100, 8, 18, True, 35566333978228, 405034842235916561000000),
    (100000000000000, 1866983087588029161799680, 500, 8, 18, False, 5477729477312059, 518032),
    (100019951762613, 1866772334881872738799680, 500, 8, 18, False, 17941800068599630528512, 1691154085362),
    (1000000000000000, 3010400234978360818663424, 3000, 8, 18, False, 41263200287490632, 5623827),
    (999999995698064, 3010400266542570778722580, 3000, 8, 18, False, 41594002657110799679488, 5634601645644),
]
"""(reserve0, reserve1, fee in pips, decimals of both tokens, token0 in, amount in, amount out): answers of getAmountOut of the bytecode of
StablePool in @sushiswap/trident 1.0.1, recorded on the embedded chain; 840 answers and swaps agreed to the wei.
"""


def volatile(reserve0: int, reserve1: int, fee_pips: int = 100) -> SolidlyPool:
    return SolidlyPool(POOL, "solidly", TOKEN0, TOKEN1, reserve0, reserve1, fee_pips, stable=False)


@pytest.mark.parametrize("row", TRIDENT)
def test_stable_quotes_equal_the_bytecode_of_trident(row: tuple[int, int, int, int, int, bool, int, int]) -> None:
    reserve0, reserve1, fee_pips, decimals0, decimals1, forward, amount, paid = row
    units = 10**decimals0, 10**decimals1
    pool = SolidlyPool(POOL, "solidly", TOKEN0, TOKEN1, reserve0, reserve1, fee_pips, True, *units, 10**12, fee_stays=True)
    assert pool.quote(TOKEN0 if forward else TOKEN1, amount) == paid


def test_volatile_quote_takes_the_fee_first_and_rounds_down() -> None:
    assert volatile(1_000_000, 2_000_000).quote(TOKEN0, 10_000) == 9_999 * 2_000_000 // 1_009_999
    done = volatile(1_000_000, 2_000_000).swap(TOKEN0, 10_000)
    assert (done.fee_raw, done.after.reserve0, done.after.reserve1) == (1, 1_009_999, 2_000_000 - done.amount_out_raw)


def test_stable_price_is_one_at_balance_and_falls_slowly() -> None:
    pool = SolidlyPool(POOL, "solidly", TOKEN0, TOKEN1, 10**12, 10**24, 100, True, 10**6, ONE)
    assert marginal_price(pool, TOKEN0) == 10**12
    after = pool.swap(TOKEN0, 10**11).after
    assert 1 - marginal_price(after, TOKEN0) / 10**12 < Fraction(1, 400)


@pytest.mark.parametrize(
    ("pool", "amount", "reason"),
    [(volatile(10**18, 10), 1, "IOA"), (volatile(10**18, 10**18), 0, "IIA"), (volatile(0, 10**18), 1, "")],
)
def test_refusals_have_the_reason_of_the_contract(pool: SolidlyPool, amount: int, reason: str) -> None:
    with pytest.raises(ContractRevert) as refusal:
        pool.swap(TOKEN0, amount)
    assert refusal.value.reason == reason


@pytest.mark.parametrize("form", ["volatile", "stable"])
def test_a_plan_uses_a_solidly_pair_and_passes_the_guards(form: str) -> None:
    ends = sorted((USDC, DAI), key=lambda token: int(token.address, 16))
    units = [10**token.decimals for token in ends]
    reserves = units[0] * 2_000_000, units[1] * 2_000_000
    pair = SolidlyPool.simulated(form, POOL, (ends[0], ends[1]), Fraction(units[1], units[0]), reserves, 100)
    market = [pair, v2_pool(WETH, USDC, 2_000)]
    shares, values = {"USDC": 4_000, "DAI": 4_000, "WETH": 2_000}, {"USDC": 7_000, "DAI": 1_000, "WETH": 2_000}
    step = wide(step_input(shares, values, PRICES, pools=market))
    found = plan(step, rebalance_to_targets(step))
    check_legs(step, found)
    assert [leg.venue for leg in found.legs] == ["solidly"]
    assert found.gap_bps is not None
    assert found.gap_bps < Fraction(1, 10)
    refused = [verdict for verdict in judge(step, found, evidence(step, found)) if not verdict.passed]
    assert not refused


@pytest.mark.parametrize("form", ["volatile", "stable"])
def test_a_back_test_trades_solidly_pairs(form: str) -> None:
    found = simulated(hourly(BTC=[1.0, 1, 1.3, 1, 1]), halves(), pool=form)
    assert found.rebalances


def test_config_refuses_to_trade_a_kind_that_is_only_simulated() -> None:
    with pytest.raises(ValidationError, match="solidly can only be backtested"):
        VenuesTable.model_validate({"solidly": {"factory": POOL}})
