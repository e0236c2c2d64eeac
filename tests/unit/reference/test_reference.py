"""Reference prices: only complete and fresh feeds count, then means over the whole window, spot only where it is configured."""

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.amm.v3.pool import V3Pool
from agent.model import Pool, PriceSource, StepInput, UnreadableItem
from agent.reference import ReferencePrice, price_inputs, reference_prices, spot_prices
from agent.units import Token
from tests.support.builders import (
    NOW_S,
    address,
    feed_address,
    feed_round,
    step_input,
    token,
    unit_price,
    v2_pool,
    v3_pool,
    with_feed,
    with_snapshot,
    without_feed,
)
from tests.support.text import mentions

FEED = PriceSource.FEED
TWAP = PriceSource.TWAP
SPOT = PriceSource.SPOT
WETH, USDC, WBTC, DAI, ARB = (token(symbol) for symbol in ("WETH", "USDC", "WBTC", "DAI", "ARB"))


def _found(step: StepInput, of: Token = WETH) -> ReferencePrice | None:
    return reference_prices(step).reference_by_token.get(of.address)


def _why(step: StepInput, of: Token = WETH) -> str:
    return next(gap.why for gap in reference_prices(step).unpriced if gap.token == of.address)


def _near(price: Fraction, of: Token, coins: float, tolerance: float = 2e-4) -> bool:
    """A tick is one basis point wide, so that a price by tick is within two of the price meant."""
    return float(price / unit_price(of, 1, USDC)) == pytest.approx(coins, rel=tolerance)


def test_feed__prices_in_the_numeraire_whatever_the_decimals() -> None:
    step = step_input({"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}, kinds=[FEED])
    step = with_snapshot(
        step,
        feeds=(
            feed_round("WETH", 2_000, decimals=8),
            feed_round("WBTC", 60_000, decimals=18),
            feed_round("USDC", "0.99", decimals=6),
        ),
    )
    prices = reference_prices(step)
    assert prices.reference_by_token[WETH.address].price == Fraction(2_000 * 100, 99) * Fraction(10**6, 10**18)
    assert prices.reference_by_token[WBTC.address].price == Fraction(60_000 * 100, 99) * Fraction(10**6, 10**8)
    assert prices.reference_by_token[WETH.address].source is FEED
    assert feed_address("WETH") in prices.reference_by_token[WETH.address].detail
    assert prices.unpriced == ()


def test_numeraire__is_worth_one_whatever_its_feed_says() -> None:
    step = with_feed(step_input(), "USDC", answer=90_000_000)
    assert reference_prices(step).reference_by_token[USDC.address].price == 1
    assert reference_prices(without_feed(step, "USDC")).reference_by_token[USDC.address].price == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"answer": 0}, "answers 0"),
        ({"answer": -1}, "answers -1"),
        ({"updated_at_s": 0}, "has an unfinished round 7"),
        ({"answered_in_round": 6}, "returned round 7 with the price of round 6"),
        ({"updated_at_s": NOW_S + 1}, "is dated 1 s after the block"),
        ({"updated_at_s": NOW_S - 3_601}, "is 3601 s old, the limit is 3600 s"),
    ],
)
@pytest.mark.parametrize("symbol", ["WETH", "USDC"])
def test_unfit_round__leaves_the_token_without_a_price(symbol: str, fault: dict[str, int], reason: str) -> None:
    step = with_feed(step_input(kinds=[FEED]), symbol, **fault)
    assert _found(step) is None
    assert mentions(_why(step), "feed: ", f"{symbol}", f"{reason}")


@pytest.mark.parametrize("symbol", ["WETH", "USDC"])
def test_round_of_the_greatest_age_or_this_block__counts(symbol: str) -> None:
    for fine in ({"updated_at_s": NOW_S - 3_600}, {"updated_at_s": NOW_S}, {"answered_in_round": 8}):
        assert _found(with_feed(step_input(kinds=[FEED]), symbol, **fine)) is not None


def test_round_age__goes_by_block_time_and_not_the_clock() -> None:
    step = with_snapshot(step_input(kinds=[FEED]), now_s=NOW_S + 100_000)
    assert _found(step) is not None


def test_a_token_feed_without_a_numeraire_feed_is_no_price() -> None:
    step = step_input(kinds=[FEED])
    weth, usdc = step.portfolio.assets
    bare = replace(step, portfolio=replace(step.portfolio, assets=(weth, replace(usdc, feed=None))))
    assert mentions(_why(bare), "feed: USDC", "no feed")
    unread = without_feed(step, "USDC")
    assert mentions(_why(unread), "feed: ", "USDC", "not read")


def test_a_quarantined_feed_is_named_with_its_reason() -> None:
    step = with_snapshot(
        without_feed(step_input(kinds=[FEED]), "WETH"), unreadable_items=(UnreadableItem("feed", feed_address("WETH"), "reverted"),)
    )
    assert mentions(_why(step), "feed: ", "WETH", "reverted")


def test_stale_feed__gives_way_to_a_configured_mean() -> None:
    pool = v3_pool(WETH, USDC, 2_500, twap_price=2_100)
    stale = {"updated_at_s": NOW_S - 4_000}
    with_mean = with_feed(step_input(pools=[pool], kinds=[FEED, TWAP]), "WETH", **stale)
    reference_price = _found(with_mean)
    assert reference_price.source is TWAP
    assert reference_price.price == pool.mean_price(WETH.address)
    assert _near(reference_price.price, WETH, 2_100)
    assert _found(with_feed(step_input(pools=[pool], kinds=[FEED]), "WETH", **stale)) is None


def test_the_configured_order_of_sources_counts() -> None:
    pool = v3_pool(WETH, USDC, 2_100)
    reference_price = _found(step_input(pools=[pool], kinds=[TWAP, FEED]))
    assert reference_price.source is TWAP


@pytest.mark.parametrize(
    "unfit",
    [
        v3_pool(WETH, USDC, 2_000, window_s=None),
        v3_pool(WETH, USDC, 2_000, window_s=1_799),
        replace(v3_pool(WETH, USDC, 2_000), twap_window_s=None),
        replace(v3_pool(WETH, USDC, 2_000), twap_liquidity=0),
        replace(v3_pool(WETH, USDC, 2_000), twap_liquidity=None),
        v2_pool(WETH, USDC, 2_000),
        v3_pool(WETH, DAI, 2_000),
    ],
    ids=["no observations", "a second short", "window unknown", "no liquidity", "liquidity unknown", "V2", "another pair"],
)
def test_pool_without_the_whole_window__says_nothing(unfit: V3Pool) -> None:
    step = step_input(pools=[unfit], kinds=[TWAP])
    assert _found(step) is None
    assert mentions(_why(step), "twap: no", "WETH", "1800 s")
    fit = v3_pool(WETH, USDC, 2_200, name="fit")
    both = _found(step_input(pools=[unfit, fit], kinds=[TWAP]))
    assert both.price == fit.mean_price(WETH.address)


def test_pools_of_a_pair__are_weighted_by_the_window_s_depth() -> None:
    deep = v3_pool(WETH, USDC, 2_000, depth=3_000_000, name="deep")
    flash = v3_pool(WETH, USDC, 2_400, depth=1_000_000, fee_pips=3000, name="flash")
    weight_deep = 3_000_000 / 2_000
    weight_flash = 1_000_000 / 2_400
    expected = (2_000 * weight_deep + 2_400 * weight_flash) / (weight_deep + weight_flash)
    reference_price = _found(step_input(pools=[deep, flash], kinds=[TWAP]))
    assert _near(reference_price.price, WETH, expected)
    swollen = replace(flash, liquidity=flash.liquidity * 1_000)
    assert _found(step_input(pools=[deep, swollen], kinds=[TWAP])) == reference_price


def test_token_traded_against_a_hub__is_priced_through_it() -> None:
    pools = [v3_pool(ARB, WETH, "0.001"), v3_pool(WETH, USDC, 2_000)]
    targets = {"ARB": 5_000, "USDC": 5_000}
    reference_price = _found(step_input(targets, pools=pools, kinds=[TWAP], hubs=["WETH"]), ARB)
    assert reference_price.price == pools[0].mean_price(ARB.address) * pools[1].mean_price(WETH.address)
    assert "2 pool(s)" in reference_price.detail
    assert _found(step_input(targets, pools=pools, kinds=[TWAP]), ARB) is None
    assert _found(step_input(targets, pools=pools[:1], kinds=[TWAP], hubs=["WETH"]), ARB) is None


def test_two_hubs_in_a_row_are_one_too_many() -> None:
    pools = [v3_pool(ARB, DAI, 2), v3_pool(DAI, WETH, "0.0005"), v3_pool(WETH, USDC, 2_000)]
    step = step_input({"ARB": 5_000, "USDC": 5_000}, pools=pools, kinds=[TWAP], hubs=["WETH", "DAI"])
    assert _found(step, ARB) is None
    assert _found(step, DAI) is not None


def test_a_route_weighs_as_much_as_its_thinner_half() -> None:
    direct = v3_pool(ARB, USDC, 2, depth=1_000_000)
    first = v3_pool(ARB, WETH, "0.002", depth=500_000)
    second = v3_pool(WETH, USDC, 2_000, depth=1_000)
    targets = {"ARB": 5_000, "USDC": 5_000}
    reference_price = _found(step_input(targets, pools=[direct, first, second], kinds=[TWAP], hubs=["WETH"]), ARB)
    straight = 500_000
    around = 250
    assert _near(reference_price.price, ARB, (2 * straight + 4 * around) / (straight + around))


def test_spot_prices_count_only_where_they_are_configured() -> None:
    pools = [v2_pool(WETH, USDC, 2_000)]
    assert _found(step_input(pools=pools, kinds=[TWAP])) is None
    reference_price = _found(step_input(pools=pools, kinds=[TWAP, SPOT]))
    assert reference_price.source is SPOT
    assert reference_price.price == unit_price(WETH, 2_000, USDC)


def test_spot__weighs_v2_and_v3_alike_and_skips_empty_pools() -> None:
    v2 = v2_pool(WETH, USDC, 2_000, depth=1_000_000)
    v3 = v3_pool(WETH, USDC, 3_000, depth=1_500_000)
    empty: list[Pool] = [
        replace(v2_pool(WETH, USDC, 9_000, name="empty"), reserve0=0),
        replace(v3_pool(WETH, USDC, 9_000, name="empty"), liquidity=0),
        replace(v3_pool(WETH, USDC, 9_000, name="fresh"), sqrt_price_x96=0),
    ]
    reference_price = _found(step_input(pools=[v2, v3, *empty], kinds=[SPOT]))
    assert _near(reference_price.price, WETH, 2_500, 1e-9)
    assert "2 pool(s)" in reference_price.detail
    assert "of WETH" in _why(step_input(pools=empty, kinds=[SPOT]))


def test_hubs_and_wrapped_native__are_priced_and_named_if_not() -> None:
    step = step_input({"WBTC": 5_000, "USDC": 5_000}, hubs=["DAI"], kinds=[FEED, SPOT], pools=[v2_pool(WETH, USDC, 2_000)])
    prices = reference_prices(step)
    assert prices.reference_by_token[WETH.address].source is SPOT
    assert [gap.label for gap in prices.unpriced] == ["DAI"]
    assert mentions(prices.unpriced[0].why, "feed: DAI", "no feed", "spot: no", "liquidity")


def test_a_hub_has_a_price_once_it_has_a_feed() -> None:
    step = step_input(hubs=["DAI"], kinds=[FEED])
    step = with_snapshot(step, feeds=(*step.snapshot.feeds, feed_round("DAI", 1)))
    assert _found(step, DAI) is None
    with_hub_feed = replace(step, portfolio=replace(step.portfolio, hub_feeds=((DAI.address, feed_address("DAI")),)))
    assert with_hub_feed.snapshot is step.snapshot, "its prices are kept by their sources"
    assert _found(with_hub_feed, DAI) is not None


def test_an_unknown_wrapped_native_goes_by_its_address() -> None:
    step = step_input({"WBTC": 5_000, "USDC": 5_000}, kinds=[TWAP])
    assert [gap.label for gap in reference_prices(step).unpriced if gap.token == WETH.address] == [WETH.address]
    assert f"of {WETH.address}" in _why(step)


def test_without_a_configured_source_nothing_has_a_price() -> None:
    step = step_input(kinds=[])
    assert reference_prices(step).reference_by_token == {}
    assert mentions(_why(step), "no source")
    assert mentions(_why(step, USDC), "no source")


def test_a_symbol_with_terminal_escapes_never_shows() -> None:
    step = without_feed(step_input(kinds=[FEED]), "WETH")
    weth, usdc = step.portfolio.assets
    evil = replace(weth, token=replace(weth.token, symbol="\x1b[2JWETH"))
    step = replace(step, portfolio=replace(step.portfolio, assets=(evil, usdc)))
    gap = reference_prices(step).unpriced[0]
    assert gap.label == WETH.address
    assert "\x1b" not in gap.why


def test_spot_prices__are_the_pools_whatever_the_reference() -> None:
    step = step_input({"WETH": 5_000, "USDC": 4_000, "DAI": 1_000}, pools=[v2_pool(WETH, USDC, 2_500)])
    assert spot_prices(price_inputs(step)) == {WETH.address: unit_price(WETH, 2_500, USDC), USDC.address: Fraction(1)}


def test_pools_of_strangers_do_not_count() -> None:
    strange = token("EVIL", at=address("evil"))
    step = step_input(pools=[v3_pool(strange, USDC, 9), v3_pool(WETH, strange, 9)], kinds=[TWAP])
    assert _found(step) is None


def test_prices__are_worked_out_once_a_snapshot_and_sources() -> None:
    step = with_snapshot(step_input({"WETH": 5_000, "USDC": 5_000}, kinds=[FEED]), feeds=(feed_round("WETH", 2_000), feed_round("USDC", 1)))
    prices = reference_prices(step)
    text = codec.dumps(step)
    assert reference_prices(replace(step, progress=replace(step.progress, spent_gas_wei=1))) is prices
    assert codec.dumps(step) == text
    assert codec.loads(StepInput, text) == step
    dearer = with_snapshot(step, feeds=(feed_round("WETH", 3_000), feed_round("USDC", 1)))
    assert reference_prices(dearer).price_by_token[WETH.address] == unit_price(WETH, 3_000, USDC)
    assert not reference_prices(replace(step, reference=replace(step.reference, sources=()))).price_by_token
    assert not reference_prices(without_feed(step, "WETH")).price_by_token.keys() & {WETH.address}
