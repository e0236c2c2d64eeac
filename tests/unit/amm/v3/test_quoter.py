"""Quoters against the swap step by step: every amount, onto stops and beside them, on the real pool, and what they refuse."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.amm.swap_errors import BeyondKnownTicks, ContractRevert
from agent.amm.v2_pool import V2Pool
from agent.amm.v3.math import (
    MAX_SQRT_RATIO,
    MAX_TICK,
    MIN_SQRT_RATIO,
    MIN_TICK,
    Q96,
    get_sqrt_ratio_at_tick,
    get_tick_at_sqrt_ratio,
    price_limit,
)
from agent.amm.v3.pool import WIDEST_SPACING, V3Pool
from agent.amm.v3.pool_swap import INT256_MAX, swap
from agent.amm.v3.tick_bitmap import TickLiquidity
from agent.errors import Refused
from tests.support import amm_pools, worlds
from tests.support.amm_pools import POOL, TOKEN0, TOKEN1, flat, v3_pool
from tests.support.v3_by_steps import SwapEnd, by_steps, draw_amount, some_pools, swap_by_steps


def mainnet_pool() -> V3Pool:
    """The recorded WBTC/WETH pool."""
    recorded = worlds.recorded_pool()
    ticks = tuple(TickLiquidity(index, net) for index, net in recorded.net_by_tick.items())
    state = flat(fee_pips=recorded.fee_pips, tick_spacing=recorded.tick_spacing, ticks=ticks)
    return replace(state, sqrt_price_x96=recorded.sqrt_price_x96, tick=recorded.tick, liquidity=recorded.liquidity)


@given(some_pools, amm_pools.tokens, st.data())
def test_quoter__says_what_the_swap_by_steps_pays(state, token_in, data):
    down = token_in == TOKEN0
    assume(state.sqrt_price_x96 != price_limit(down))
    quote = state.quoter(token_in)
    for _ in range(5):
        amount = draw_amount(data, state, down, price_limit(down))
        end = by_steps(state, down, amount, price_limit(down))
        if isinstance(end, SwapEnd):
            assert quote(amount) == end.calculated
            continue
        with pytest.raises(BeyondKnownTicks if end == "?" else ContractRevert):
            quote(amount)


@given(amm_pools.v2_pools(), amm_pools.tokens, st.lists(st.one_of(amm_pools.amounts, st.integers(0, 2**256)), max_size=5))
def test_pair_quoter__says_what_the_library_pays_and_refuses(state, token_in, amounts):
    quote = state.quoter(token_in)
    for amount in amounts:
        try:
            paid = state.quote(token_in, amount)
        except ContractRevert as refusal:
            with pytest.raises(ContractRevert) as raised:
                quote(amount)
            assert str(raised.value) == str(refusal)
        else:
            assert quote(amount) == paid


def refusal_of(call) -> str:
    with pytest.raises(Refused) as refusal:
        call()
    return str(refusal.value)


@pytest.mark.parametrize("token_in", [TOKEN0, TOKEN1])
@pytest.mark.parametrize(
    ("state", "amount"),
    [
        (flat(), 0),
        (flat(), -1),
        (flat(), -(10**40)),
        (flat(liquidity=5), -(2**100)),
        (flat(liquidity=0), -1),
        (flat(), 2**255),
        (flat(known_from_tick=100, known_to_tick=200, ticks=()), 1),
        (flat(known_from_tick=-100, known_to_tick=100, ticks=()), 10**18),
        (flat(liquidity=5, ticks=flat(liquidity=6).ticks), 2**130),
    ],
)
def test_a_quoter_refuses_what_a_swap_refuses_in_the_same_words(state, amount, token_in):
    quote = state.quoter(token_in)
    assert refusal_of(lambda: quote(amount)) == refusal_of(lambda: state.swap(token_in, amount))


@pytest.mark.parametrize(("price", "token_in"), [(MIN_SQRT_RATIO + 1, TOKEN0), (MAX_SQRT_RATIO - 1, TOKEN1)])
def test_quoter_at_the_range_s_end__refuses_as_a_swap_does(price, token_in):
    state = flat(sqrt_price_x96=price, tick=get_tick_at_sqrt_ratio(price), liquidity=0)
    assert "'SPL'" in refusal_of(lambda: state.quoter(token_in)(1))


def test_a_quoter_of_an_empty_pair_refuses_as_the_library():
    quote = V2Pool(POOL, "v2", TOKEN0, TOKEN1, 0, 5).quoter(TOKEN0)
    assert "INSUFFICIENT_LIQUIDITY" in refusal_of(lambda: quote(1))
    quote = V2Pool(POOL, "v2", TOKEN0, TOKEN1, 5, 5).quoter(TOKEN0)
    assert "INSUFFICIENT_INPUT_AMOUNT" in refusal_of(lambda: quote(0))


def test_partly_taken_amount__is_quoted_as_that_part_pays():
    quote = flat().quoter(TOKEN0)
    assert quote(10**30) == flat().swap(TOKEN0, INT256_MAX).amount_out_raw == quote(10**40)


@pytest.mark.parametrize("token_in", [TOKEN0, TOKEN1])
def test_position_over_the_whole_range__is_quoted_to_the_end(token_in):
    state = v3_pool([(MIN_TICK, MAX_TICK, 10**32)], Q96, 0, 100, 1)
    down = token_in == TOKEN0
    quote = state.quoter(token_in)
    onto = 2**250 - swap(state, down, 2**250, price_limit(down)).amount_remaining
    for amount in (onto * 999 // 1000, onto - 1, onto, onto + 1, onto * 1001 // 1000):
        assert quote(amount) == swap_by_steps(state, down, amount, price_limit(down)).calculated


def test_widest_word__keeps_the_contract_s_precise_formula():
    for spacing, precise in ((WIDEST_SPACING, True), (1735, False)):
        word = 256 * spacing
        high = get_sqrt_ratio_at_tick(word // 2)
        low = get_sqrt_ratio_at_tick(-word // 2)
        most_in = ((2**128 - 1 << 96) * (high - low)) // high // low  # getAmount0Delta over the whole word, full of liquidity
        assert ((2**128 - 1 << 96) + most_in * high < 2**256) is precise


@pytest.mark.parametrize(
    "state", [mainnet_pool(), v3_pool([(-60 * i, 60 * i, 10**5 + i) for i in range(1, 90)], Q96, 0)], ids=["real", "coarse"]
)
def test_amounts_exactly_onto_a_stop_or_beside__are_exact(state):
    for token_in in (TOKEN0, TOKEN1):
        quote = state.quoter(token_in)
        down = token_in == TOKEN0
        for tick in state.ticks[:: max(1, len(state.ticks) // 90)]:
            if (tick.index <= state.tick) is down:
                onto = 2**200 - swap(state, down, 2**200, get_sqrt_ratio_at_tick(tick.index)).amount_remaining
                for amount in (onto - 1, onto, onto + 1):
                    assert quote(amount) == swap_by_steps(state, down, amount, price_limit(down)).calculated


def test_wbtc_weth_pool__quotes_as_the_steps_by_word_borders():
    """Even steps up to where the price has moved ten-thousandfold: near the price ticks lie so close that borders are ticks too."""
    state = mainnet_pool()
    without_borders = replace(state, tick_spacing=10**6)  # one word holds every tick
    wrong = question_count = 0
    for token_in in (TOKEN0, TOKEN1):
        quote = state.quoter(token_in)
        down = token_in == TOKEN0
        most = state.max_in(token_in, 9_999)
        for part in range(1, 400):
            amount = most * part // 400 - part
            paid = swap_by_steps(state, down, amount, price_limit(down)).calculated
            assert quote(amount) == state.swap(token_in, amount).amount_out_raw == paid
            question_count += 1
            wrong += swap_by_steps(without_borders, down, amount, price_limit(down)).calculated != paid
    assert (question_count, wrong) == (798, 558)
