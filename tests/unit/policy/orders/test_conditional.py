"""Orders over any path of prices: never bought above the entry, never held after a stop, the highest price never falls."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from agent.model import OrderKind, OrderStage, Rebalance
from agent.policy.orders.conditional import format_order_price, trigger_price
from agent.policy.orders.conditional import nav_per_share_at as nav_at
from tests.support.builders import token
from tests.support.samples import examples
from tests.support.standing_orders import Bot, look, price_of, terms, three, two

ENTRY = OrderKind.ENTRY
STOP = OrderKind.STOP_LOSS
PROFIT = OrderKind.TAKE_PROFIT
TRAIL = OrderKind.TRAILING_STOP
SOLD = (OrderStage.FIRED, OrderStage.DONE)
PRICES = st.lists(st.integers(600, 4_000), min_size=2, max_size=9)
FEW = examples(12)


@FEW
@given(PRICES)
def test_entry_never_buys_above_its_level(path: list[int]) -> None:
    bot = two(terms("WETH", ENTRY, 1_500), weth=1_000, usdc=9_000)
    for price in path:
        before = bot.coins["WETH"]
        look(bot, price)
        assert bot.coins["WETH"] <= before or price <= 1_500


@FEW
@given(PRICES, st.sampled_from([(STOP, 1_400, None), (PROFIT, 2_900, None), (TRAIL, None, 2_000)]), st.integers(0, 3))
def test_exit_leaves_less_than_the_smallest_trade(path: list[int], order: tuple[OrderKind, int | None, int | None], confirm: int) -> None:
    bot = two(terms("WETH", *order), confirm=confirm)
    fired = False
    look(bot, 2_000)
    for price in path:
        decision = look(bot, price)
        at = bot.order("WETH", order[0])
        assert not fired or at.stage in SOLD, "only its owner arms it"
        fired = at.stage in SOLD
        assert not fired or (bot.refused == "" and bot.coins["WETH"] * price < 10), "less than the smallest trade"
        if isinstance(decision, Rebalance) and decision.is_exit:
            assert at.stage is OrderStage.FIRED
            assert at.event_price == price_of("WETH", price)


@FEW
@given(st.lists(st.lists(st.integers(1_500, 4_000), min_size=4, max_size=4), min_size=1, max_size=9))
def test_highest_price_only_rises_to_what_all_blocks_confirm(path: list[list[int]]) -> None:
    bot = two(terms("WETH", TRAIL, None, 9_000), confirm=3)
    mark = Fraction(0)
    confirmed = price_of("WETH", 2_000)
    look(bot, 2_000)
    for now, *before in path:
        bot.look({"WETH": now}, [{"WETH": price} for price in before])
        order = bot.order("WETH", TRAIL)
        confirmed = max(confirmed, price_of("WETH", min(now, *before)))
        assert order.highest_price is not None
        assert mark <= order.highest_price <= confirmed
        assert confirmed < order.highest_price * Fraction(1_001, 1_000), "what is not written down is less than a tenth of a percent"
        mark = order.highest_price


@FEW
@given(PRICES, st.lists(st.sampled_from([-4, -2, 0, 0, 2, 4]), min_size=9, max_size=9))
def test_nav_per_share_follows_prices_and_not_cash_flows(path: list[int], flows: list[int]) -> None:
    """A quarter or half of all is withdrawn, or as much put in: the unit's worth is the product of what each span returned."""
    bot = untraded_bot()
    expected_nav = Fraction(1)
    before = 2_000
    look(bot, 2_000)
    for price, flow in zip(path, flows, strict=False):
        other = bot.coins["WBTC"] * 60_000 + bot.coins["USDC"]
        expected_nav *= (bot.coins["WETH"] * price + other) / (bot.coins["WETH"] * before + other)
        look(bot, price)
        prices = {token(symbol).address: price_of(symbol, at) for symbol, at in (("WETH", price), ("WBTC", 60_000), ("USDC", 1))}
        assert abs(nav_at(bot.memory.orders.nav_per_share, prices) - expected_nav) < Fraction(1, 10**6)
        bot.coins = {symbol: coins * Fraction(8 + flow, 8) for symbol, coins in bot.coins.items()}
        look(bot, price)
        assert abs(nav_at(bot.memory.orders.nav_per_share, prices) - expected_nav) < Fraction(1, 10**6)
        before = price


def test_nav_per_share_falls_by_the_loss_of_trades() -> None:
    bot = untraded_bot()
    look(bot, 2_000)
    record = bot.memory.orders.nav_per_share
    assert nav_at(record, dict(record.prices)) == 1
    assert nav_at(replace(record, later_loss=Fraction(100 * 10**6)), dict(record.prices)) == Fraction(99, 100)


def test_dust_changes_no_order_state() -> None:
    bot = untraded_bot()
    look(bot, 2_000)
    before = bot.memory
    bot.coins["WETH"] += Fraction(1, 1_000)
    look(bot, 2_000)
    assert bot.memory == before


def test_slow_climb_makes_few_writes() -> None:
    bot = two(terms("WETH", TRAIL, None, 1_000))
    written = set()
    for number in range(300):
        bot.look({"WETH": Fraction(2_000) + Fraction(number, 10)})
        written.add(bot.order("WETH", TRAIL).highest_price)
    assert len(written) <= 16, "thirty dollars are 1.5 %: fifteen steps of a tenth of a percent"
    assert trigger_price(bot.order("WETH", TRAIL)) is not None


def untraded_bot() -> Bot:
    """Return three assets, and a stop of the portfolio so far away that it never fires; nothing is rebalanced."""
    bot = three(terms("", STOP, None, 9_900))
    return replace(bot, limits={**bot.limits, "min_trade": Fraction(10**18)})


def test_order_price__is_shown_in_whole_coins() -> None:
    portfolio = two().seen({"WETH": 2_000}).portfolio
    assert format_order_price(portfolio, token("WETH").address, price_of("WETH", 1_500)) == "1,500.00 USDC"


def test_order_price__that_is_not_fixed_says_so() -> None:
    portfolio = two().seen({"WETH": 2_000}).portfolio
    assert format_order_price(portfolio, token("WETH").address, None) == "not fixed"
