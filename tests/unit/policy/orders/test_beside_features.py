"""Orders beside everything else: blocks that confirm, prices that are unknown, quarantine, liquidity, other terms, old steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from agent import codec
from agent.layers.inputs import apply_effective_targets
from agent.layers.strategies.policy import netting
from agent.layers.strategies.policy.capital import settle_trade
from agent.model import (
    ConditionalOrder,
    Halt,
    LpTarget,
    OrderKind,
    OrdersConfig,
    OrderStage,
    OrderTerms,
    PriceSource,
    Rebalance,
    ScreenedToken,
    StepInput,
    TokenFinding,
    UnreadableItem,
)
from agent.policy.decide import decide
from agent.policy.orders import conditional as conditional_orders
from agent.policy.orders.exits import apply_order_targets, apply_orders
from agent.policy.quarantine import quarantine_tokens
from agent.policy.triggers import price_confirmation
from agent.reference import reference_prices
from tests.support.builders import ETHER, brought_up, split, step_input, strategy, token, v3_pool, with_history, with_snapshot, without_feed
from tests.support.decisions.native_coin import FLOOR, native_step, plan_of
from tests.support.plans import proposed_plan
from tests.support.standing_orders import Bot, look, price_of, terms, three, two
from tests.support.text import mentions
from tests.support.tokens import USDC, WETH

STOP = OrderKind.STOP_LOSS
TRAIL = OrderKind.TRAILING_STOP
TAKE = OrderKind.TAKE_PROFIT
STOP_AT_1500 = terms("WETH", STOP, 1_500)


def armed(*orders: OrderTerms, build: Callable[..., Bot] = two, **fields: Any) -> Bot:
    """Return a bot that has looked once, at WETH of 2,000."""
    bot = build(*orders, **fields)
    look(bot, 2_000)
    return bot


def with_new_terms(bot: Bot, *orders: OrderTerms) -> None:
    bot.book = replace(bot.book, terms=orders)


# --- Blocks that confirm, and prices that are unknown


@pytest.mark.parametrize("pushed", [1, 2, 3])
def test_order_waits_for_all_confirming_blocks(pushed: int) -> None:
    bot = armed(STOP_AT_1500, terms("WETH", TRAIL, None, 5_000), confirm=3)
    calm, low, high = ({"WETH": price} for price in (2_000, 1_000, 4_000))
    for push in (low, high):
        bot.look(push, [push] * (pushed - 1) + [calm] * (4 - pushed))
        assert set(bot.stages().values()) == {"armed"}
        assert bot.order("WETH", TRAIL).highest_price == price_of("WETH", 2_000)
        assert bot.coins["WETH"] == Fraction(5, 2)
    bot.look(low, [low] * (pushed - 1) + [calm] * (4 - pushed))
    assert mentions(bot.step.targets.reasons, "stop_loss", "WETH", "3 blocks")
    bot.look(low)
    assert bot.order("WETH", STOP).stage is OrderStage.FIRED
    assert bot.coins["WETH"] == 0


def test_past_blocks_are_read_only_where_an_order_would_move() -> None:
    bot = two(STOP_AT_1500, terms("WETH", TRAIL, None, 5_000), confirm=3)

    def stirs(price: int) -> bool:
        return conditional_orders.needs_past_prices(apply_orders(bot.seen({"WETH": price}, [])))

    assert stirs(2_000), "to be armed"
    look(bot, 2_000)
    assert [stirs(price) for price in (2_000, 1_501, 2_001, 2_003, 1_500)] == [False, False, False, True, True]
    assert not price_confirmation.needs_past_blocks(apply_orders(bot.seen({"WETH": 2_000}, [])), lambda step: decide(step).decision)


LOW = armed(STOP_AT_1500).seen({"WETH": 1_000})
"""A step at which an armed stop of WETH would fire."""
LOW_BY_TWO_SOURCES = replace(LOW, reference=replace(LOW.reference, sources=(PriceSource.FEED, PriceSource.TWAP)))


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        pytest.param(without_feed(LOW, "WETH"), "WETH has no reference price", id="no feed"),
        pytest.param(
            with_snapshot(LOW_BY_TWO_SOURCES, pools=(v3_pool(WETH, USDC, 2_000, 50_000_000),)),
            "sources contradict each other",
            id="contradiction",
        ),
    ],
)
def test_order_does_not_fire_on_an_unknown_price(step: StepInput, reason: str) -> None:
    after = apply_orders(step)
    decision = decide(after).decision
    assert after.history.orders.states == step.history.orders.states
    assert isinstance(decision, Halt)
    assert reason in decision.reason


def test_order_halts_on_an_unread_balance() -> None:
    unread = with_snapshot(LOW, unreadable_items=(UnreadableItem("balance of WETH", WETH.address, "no answer"),))
    assert isinstance(decide(apply_orders(unread)).decision, Halt)


# --- Quarantine and liquidity


def test_exit_of_a_quarantined_token_waits_and_then_sells() -> None:
    bot = armed(STOP_AT_1500, build=three)
    step = apply_orders(bot.seen({"WETH": 1_400, "WBTC": 60_000}))
    decision = decide(quarantine_tokens(step, [ScreenedToken(WETH.address, TokenFinding.CODE_CHANGED)])).decision
    assert not (isinstance(decision, Rebalance) and decision.is_exit)
    assert mentions(decision.reason, "WETH", "quarantine")
    assert step.history.orders.states[0].stage is OrderStage.FIRED
    bot.memory = replace(bot.memory, orders=step.history.orders)
    look(bot, 1_700)
    assert bot.coins["WETH"] == 0


def test_liquidity_target_of_a_sold_token_is_zero() -> None:
    pool = v3_pool(WETH, USDC, 1_400)
    target = LpTarget("uniswap_v3", "0x", pool.address, pool.token0, pool.token1, 500, 10, 1_000, 2_000, None, 6_000, 86_400)
    other = replace(target, pool="other", token0=token("WBTC").address, token1=USDC.address)
    step = armed(STOP_AT_1500, build=three).seen({"WETH": 1_400, "WBTC": 60_000})
    step = replace(step, portfolio=replace(step.portfolio, lp_targets=(target, other)))
    before, after = (
        [lp_target.share_bps for lp_target in apply_order_targets(seen).portfolio.lp_targets]
        for seen in (step, conditional_orders.advance_orders(step))
    )
    assert (before, after) == ([1_000, 1_000], [0, 1_000])


# --- Other terms, and old steps


def test_fired_order_stays_when_it_leaves_the_config() -> None:
    bot = armed(STOP_AT_1500)
    look(bot, 1_400)
    with_new_terms(bot)
    look(bot, 2_000)
    assert bot.stages() == {"WETH stop_loss": "done"}
    assert bot.targets() == {"WETH": 0, "USDC": 10_000}


def test_armed_order_goes_when_it_leaves_the_config() -> None:
    bot = armed(STOP_AT_1500)
    with_new_terms(bot)
    look(bot, 2_000)
    assert bot.stages() == {}


def test_new_terms_keep_the_highest_price_of_an_armed_order() -> None:
    bot = armed(terms("WETH", TRAIL, None, 2_000))
    look(bot, 3_000)
    with_new_terms(bot, terms("WETH", TRAIL, None, 1_000))
    look(bot, 2_900)
    assert bot.order("WETH", TRAIL).highest_price == price_of("WETH", 3_000)
    assert isinstance(look(bot, 2_700), Rebalance)
    with_new_terms(bot, terms("WETH", TRAIL, None, 500))
    look(bot, 3_000)
    assert bot.order("WETH", TRAIL).terms.share_bps == 1_000, "what fired changes only when it is armed"


def test_new_terms_beyond_the_price_halt_and_leave_the_old() -> None:
    bot = armed(STOP_AT_1500)
    with_new_terms(bot, terms("WETH", STOP, 2_200))
    decision = look(bot, 2_000)
    assert isinstance(decision, Halt)
    assert mentions(decision.reason, "stop_loss", "WETH", "contradicts")
    assert bot.order("WETH", STOP).terms.price == price_of("WETH", 1_500)


@pytest.mark.parametrize(
    ("old", "new", "prices", "sells"),
    [
        pytest.param(STOP_AT_1500, terms("WETH", STOP, 1_950), (1_960, 1_501), False, id="price above the old level"),
        pytest.param(STOP_AT_1500, terms("WETH", STOP, 1_950), (1_960, 1_500), True, id="stop loss"),
        pytest.param(terms("WETH", TAKE, 2_500), terms("WETH", TAKE, 2_010), (2_020, 2_500), True, id="take profit"),
        pytest.param(terms("WETH", TRAIL, None, 2_000), terms("WETH", TRAIL, None, 200), (1_960, 1_600), True, id="trailing stop"),
        pytest.param(terms("", STOP, None, 2_000), terms("", STOP, None, 200), (1_900, 1_000), True, id="of the portfolio"),
    ],
)
def test_old_terms_protect_while_new_ones_contradict(old: OrderTerms, new: OrderTerms, prices: tuple[int, ...], sells: bool) -> None:
    bot = armed(old)
    with_new_terms(bot, new)
    contradicting_price, last_price = prices
    assert isinstance(look(bot, contradicting_price), Halt)
    look(bot, last_price)
    assert (bot.coins["WETH"] == 0) is sells


def test_asset_orders_rest_after_a_portfolio_stop() -> None:
    bot = armed(terms("", STOP, None, 2_000), terms("WBTC", STOP, 35_000), build=three)
    decision = bot.look({"WETH": 1_300, "WBTC": 40_000})
    assert decision.is_exit
    assert "for USDC" in decision.reason
    assert bot.coins["WETH"] == 0 < bot.coins["WBTC"], "each asset by its own transaction"
    bot.look({"WETH": 1_300, "WBTC": 40_000})
    assert bot.coins["WBTC"] == 0
    bot.look({"WETH": 1_000, "WBTC": 30_000})
    assert bot.stages() == {"portfolio stop_loss": "done", "WBTC stop_loss": "armed"}


def test_step_with_orders_survives_its_codec() -> None:
    bot = armed(STOP_AT_1500, terms("WETH", TRAIL, None, 2_000))
    decision = look(bot, 1_400)
    again = codec.loads(StepInput, codec.dumps(bot.step))
    assert again == bot.step
    assert decide(again).decision == decision


def test_step_from_before_orders_reads_back_without_any() -> None:
    step = Bot({"WETH": 5_000, "USDC": 5_000}, {"WETH": Fraction(1), "USDC": Fraction(2_000)}, two().book).seen({"WETH": 2_000})
    old = codec.to_jsonable(step)
    del old["portfolio"]["orders"], old["history"]["orders"]
    assert codec.from_jsonable(StepInput, old) == step


# --- What an exit sells


def test_exit_within_template_limits_sells_the_last_unit() -> None:
    bot = three(STOP_AT_1500)
    bot.limits = {"plan_cost_bps": 50, "price_impact_bps": 100, "turnover_bps": 1, "daily_turnover_bps": 1}
    bot.coins = {symbol: coins * 10 for symbol, coins in bot.coins.items()}
    look(bot, 2_000)
    wbtc = bot.coins["WBTC"]
    look(bot, 1_450)
    assert (bot.plan.skipped, bot.plan.is_exit) == ((), True)
    assert (bot.coins["WETH"], bot.coins["WBTC"]) == (0, wbtc)


def with_fired_stop(step: StepInput, at: str = WETH.address) -> StepInput:
    """Return the step after a stop of 2,100 has fired for a token, by default WETH."""
    stop = replace(terms("WETH", STOP, 2_100), token=at)
    order = ConditionalOrder(at, STOP, OrderStage.FIRED, stop, 1, price_of("WETH", 2_500), None, price_of("WETH", 2_000))
    return replace(with_history(step, states=(order,)), portfolio=replace(step.portfolio, orders=OrdersConfig((stop,))))


def test_exit_of_native_coin_keeps_what_gas_needs() -> None:
    step = native_step(3 * ETHER, weth=2_000, usdc=1_000)
    at = step.portfolio.assets[0].token.address
    plan = plan_of(apply_orders(with_fired_stop(step, at)))
    assert plan.is_exit
    assert dict(plan.holdings_after)[at] == 0
    assert FLOOR <= plan.native_after_wei < FLOOR + ETHER // 100


def test_exit_sells_the_holdings_of_all_strategies() -> None:
    calm = strategy("calm", 5_000, {"WETH": 5_000, "USDC": 5_000})
    bold = strategy("bold", 5_000, {"WETH": 9_000, "USDC": 1_000})
    step = with_fired_stop(step_input(depth=50_000_000).with_config(split(calm, bold)))
    step = apply_effective_targets(brought_up(step, None))
    plan = proposed_plan(step)
    raw_before = {holding.token: holding.raw for holding in step.snapshot.holdings}
    deltas = {at: raw - raw_before[at] for at, raw in plan.holdings_after}
    wished, base = netting.strategy_adjustments(step)
    books, _ = settle_trade(base, wished, deltas, reference_prices(step).price_by_token, list(raw_before))
    assert plan.is_exit
    assert all(book.get(WETH.address, 0) == 0 <= book[USDC.address] for book in books.values())
    assert sum(book[USDC.address] for book in books.values()) == dict(plan.holdings_after)[USDC.address]
