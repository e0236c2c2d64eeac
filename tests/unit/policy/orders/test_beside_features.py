"""Orders beside everything else: blocks that confirm, prices that are unknown, quarantine, liquidity, other terms, old steps."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

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
    PriceSource,
    Rebalance,
    ScreenedToken,
    StepInput,
    TokenFinding,
    UnreadableItem,
)
from agent.planning import proposals
from agent.policy.decide import decide
from agent.policy.orders import conditional as conditional_orders
from agent.policy.orders.exits import apply_order_targets, apply_orders
from agent.policy.quarantine import quarantine_tokens
from agent.policy.triggers import price_confirmation
from agent.reference import reference_prices
from tests.support.builders import ETHER, brought_up, split, step_input, strategy, token, v3_pool, with_history
from tests.support.decisions.native_coin import FLOOR, native_step, plan_of
from tests.support.standing_orders import Bot, price_of, terms, three, two
from tests.support.text import mentions

ENTRY = OrderKind.ENTRY
STOP = OrderKind.STOP_LOSS
PROFIT = OrderKind.TAKE_PROFIT
TRAIL = OrderKind.TRAILING_STOP
WETH = token("WETH")
USDC = token("USDC")


@pytest.mark.parametrize("pushed", [1, 2, 3])
def test_order_waits_for_all_confirming_blocks(pushed: int) -> None:
    bot = two(terms("WETH", STOP, 1_500), terms("WETH", TRAIL, None, 5_000), confirm=3)
    calm = {"WETH": 2_000}
    low = {"WETH": 1_000}
    high = {"WETH": 4_000}
    bot.look(calm)
    for push in (low, high):
        bot.look(push, [push] * (pushed - 1) + [calm] * (4 - pushed))
        assert set(bot.stages().values()) == {"armed"}
        assert bot.order("WETH", TRAIL).highest_price == price_of("WETH", 2_000)
        assert bot.coins["WETH"] == Fraction(5, 2)
    bot.look(low, [low] * (pushed - 1) + [calm] * (4 - pushed))
    assert bot.step is not None
    assert mentions(bot.step.targets.reasons, "stop_loss", "WETH", "3 blocks")
    bot.look(low)
    assert bot.order("WETH", STOP).stage is OrderStage.FIRED
    assert bot.coins["WETH"] == 0


def test_past_blocks_are_read_only_where_an_order_would_move() -> None:
    bot = two(terms("WETH", STOP, 1_500), terms("WETH", TRAIL, None, 5_000), confirm=3)

    def stirs(price: int) -> bool:
        return conditional_orders.needs_past_prices(apply_orders(bot.seen({"WETH": price}, [])))

    assert stirs(2_000), "to be armed"
    bot.look({"WETH": 2_000})
    assert [stirs(price) for price in (2_000, 1_501, 2_001, 2_003, 1_500)] == [False, False, False, True, True]
    assert not price_confirmation.needs_past_blocks(apply_orders(bot.seen({"WETH": 2_000}, [])), lambda step: decide(step).decision)


def test_order_does_not_fire_on_an_unknown_price() -> None:
    bot = two(terms("WETH", STOP, 1_500))
    bot.look({"WETH": 2_000})
    low = bot.seen({"WETH": 1_000})
    no_feed = replace(
        low,
        snapshot=replace(low.snapshot, feeds=tuple(feed_round for feed_round in low.snapshot.feeds if feed_round.answer != 1_000 * 10**8)),
    )
    unread = replace(low, snapshot=replace(low.snapshot, unreadable_items=(UnreadableItem("balance of WETH", WETH.address, "no answer"),)))
    two_sources = replace(low.reference, sources=(PriceSource.FEED, PriceSource.TWAP))
    off = replace(low, reference=two_sources, snapshot=replace(low.snapshot, pools=(v3_pool(WETH, USDC, 2_000, 50_000_000),)))
    for step, why in ((no_feed, "WETH has no reference price"), (off, "sources contradict each other")):
        after = apply_orders(step)
        assert after.history.orders.states == step.history.orders.states
        decision = decide(after).decision
        assert isinstance(decision, Halt)
        assert why in decision.reason
    assert isinstance(decide(apply_orders(unread)).decision, Halt)


def test_exit_of_a_quarantined_token_waits_and_then_sells() -> None:
    bot = three(terms("WETH", STOP, 1_500))
    bot.look({"WETH": 2_000, "WBTC": 60_000})
    step = apply_orders(bot.seen({"WETH": 1_400, "WBTC": 60_000}))
    shut = quarantine_tokens(step, [ScreenedToken(WETH.address, TokenFinding.CODE_CHANGED)])
    decision = decide(shut).decision
    assert not (isinstance(decision, Rebalance) and decision.is_exit)
    assert mentions(decision.reason, "WETH", "quarantine")
    assert step.history.orders.states[0].stage is OrderStage.FIRED
    bot.memory = replace(bot.memory, orders=step.history.orders)
    bot.look({"WETH": 1_700, "WBTC": 60_000})
    assert bot.coins["WETH"] == 0


def test_liquidity_target_of_a_sold_token_is_zero() -> None:
    bot = three(terms("WETH", STOP, 1_500))
    bot.look({"WETH": 2_000, "WBTC": 60_000})
    pool = v3_pool(WETH, USDC, 1_400)
    target = LpTarget("uniswap_v3", "0x", pool.address, pool.token0, pool.token1, 500, 10, 1_000, 2_000, None, 6_000, 86_400)
    other = replace(target, pool="other", token0=token("WBTC").address, token1=USDC.address)

    def lp(step: StepInput) -> list[int]:
        return [lp_target.share_bps for lp_target in apply_order_targets(step).portfolio.lp_targets]

    step = bot.seen({"WETH": 1_400, "WBTC": 60_000})
    step = replace(step, portfolio=replace(step.portfolio, lp_targets=(target, other)))
    assert lp(step) == [1_000, 1_000]
    assert lp(conditional_orders.advance_orders(step)) == [0, 1_000]


def test_fired_order_stays_when_it_leaves_the_config() -> None:
    bot = two(terms("WETH", STOP, 1_500))
    bot.look({"WETH": 2_000})
    bot.look({"WETH": 1_400})
    bot.book = replace(bot.book, terms=())
    bot.look({"WETH": 2_000})
    assert bot.stages() == {"WETH stop_loss": "done"}
    assert bot.targets() == {"WETH": 0, "USDC": 10_000}
    armed = two(terms("WETH", STOP, 1_500))
    armed.look({"WETH": 2_000})
    armed.book = replace(armed.book, terms=())
    armed.look({"WETH": 2_000})
    assert armed.stages() == {}


def test_new_terms_keep_the_highest_price_of_an_armed_order() -> None:
    bot = two(terms("WETH", TRAIL, None, 2_000))
    for price in (2_000, 3_000):
        bot.look({"WETH": price})
    bot.book = replace(bot.book, terms=(terms("WETH", TRAIL, None, 1_000),))
    bot.look({"WETH": 2_900})
    assert bot.order("WETH", TRAIL).highest_price == price_of("WETH", 3_000)
    assert isinstance(bot.look({"WETH": 2_700}), Rebalance)
    bot.book = replace(bot.book, terms=(terms("WETH", TRAIL, None, 500),))
    bot.look({"WETH": 3_000})
    assert bot.order("WETH", TRAIL).terms.share_bps == 1_000, "what fired changes only when it is armed"


def test_new_terms_beyond_the_price_halt_and_leave_the_old() -> None:
    bot = two(terms("WETH", STOP, 1_500))
    bot.look({"WETH": 2_000})
    bot.book = replace(bot.book, terms=(terms("WETH", STOP, 2_200),))
    decision = bot.look({"WETH": 2_000})
    assert isinstance(decision, Halt)
    assert mentions(decision.reason, "stop_loss", "WETH", "contradicts")
    assert bot.order("WETH", STOP).terms.price == price_of("WETH", 1_500)


def test_asset_orders_rest_after_a_portfolio_stop() -> None:
    bot = three(terms("", STOP, None, 2_000), terms("WBTC", STOP, 35_000))
    bot.look({"WETH": 2_000, "WBTC": 60_000})
    decision = bot.look({"WETH": 1_300, "WBTC": 40_000})
    assert isinstance(decision, Rebalance)
    assert decision.is_exit
    assert "for USDC" in decision.reason
    assert bot.coins["WETH"] == 0 < bot.coins["WBTC"], "each asset by its own transaction"
    bot.look({"WETH": 1_300, "WBTC": 40_000})
    assert bot.coins["WBTC"] == 0
    bot.look({"WETH": 1_000, "WBTC": 30_000})
    assert bot.stages() == {"portfolio stop_loss": "done", "WBTC stop_loss": "armed"}


def test_step_with_orders_survives_its_codec() -> None:
    bot = two(terms("WETH", STOP, 1_500), terms("WETH", TRAIL, None, 2_000))
    bot.look({"WETH": 2_000})
    decision = bot.look({"WETH": 1_400})
    assert bot.step is not None
    again = codec.loads(StepInput, codec.dumps(bot.step))
    assert again == bot.step
    assert decide(again).decision == decision


def test_step_from_before_orders_reads_back_without_any() -> None:
    step = Bot({"WETH": 5_000, "USDC": 5_000}, {"WETH": Fraction(1), "USDC": Fraction(2_000)}, two().book).seen({"WETH": 2_000})
    old = codec.to_jsonable(step)
    del old["portfolio"]["orders"], old["history"]["orders"]
    assert codec.from_jsonable(StepInput, old) == step


def test_exit_within_template_limits_sells_the_last_unit() -> None:
    bot = three(terms("WETH", STOP, 1_500))
    bot.limits = {"plan_cost_bps": 50, "price_impact_bps": 100, "turnover_bps": 1, "daily_turnover_bps": 1}
    bot.coins = {symbol: coins * 10 for symbol, coins in bot.coins.items()}
    bot.look({"WETH": 2_000, "WBTC": 60_000})
    wbtc = bot.coins["WBTC"]
    bot.look({"WETH": 1_450, "WBTC": 60_000})
    assert bot.plan is not None
    assert bot.plan.skipped == ()
    assert bot.plan.is_exit
    assert bot.coins["WETH"] == 0
    assert bot.coins["WBTC"] == wbtc


def test_exit_of_native_coin_keeps_what_gas_needs() -> None:
    step = native_step(3 * ETHER, weth=2_000, usdc=1_000)
    stop = replace(terms("WETH", STOP, 2_100), token=step.portfolio.assets[0].token.address)
    fired_order = ConditionalOrder(stop.token, STOP, OrderStage.FIRED, stop, 1, price_of("WETH", 2_500), None, price_of("WETH", 2_000))
    portfolio = replace(step.portfolio, orders=OrdersConfig((stop,)))
    step = apply_orders(replace(with_history(step, states=(fired_order,)), portfolio=portfolio))
    plan = plan_of(step)
    assert plan.is_exit
    assert dict(plan.holdings_after)[stop.token] == 0
    assert plan.native_after_wei is not None
    assert FLOOR <= plan.native_after_wei < FLOOR + ETHER // 100


def test_exit_sells_the_holdings_of_all_strategies() -> None:
    half = {"WETH": 5_000, "USDC": 5_000}
    most = {"WETH": 9_000, "USDC": 1_000}
    base_step = step_input(depth=50_000_000).with_config(split(strategy("calm", 5_000, half), strategy("bold", 5_000, most)))
    stop = terms("WETH", STOP, 2_100)
    fired_order = ConditionalOrder(stop.token, STOP, OrderStage.FIRED, stop, 1, price_of("WETH", 2_500), None, price_of("WETH", 2_000))
    base_step = replace(
        with_history(base_step, states=(fired_order,)), portfolio=replace(base_step.portfolio, orders=OrdersConfig((stop,)))
    )
    step = apply_effective_targets(brought_up(base_step, None))
    plan = proposals.propose_rebalance(step).plan
    assert plan is not None
    assert plan.is_exit
    raw_before = {holding.token: holding.raw for holding in step.snapshot.holdings}
    deltas = {token_: raw - raw_before[token_] for token_, raw in plan.holdings_after}
    wished, base = netting.strategy_adjustments(step)
    prices = reference_prices(step).price_by_token
    after, _ = settle_trade(base, wished, deltas, prices, list(raw_before))
    assert all(book.get(WETH.address, 0) == 0 <= book[USDC.address] for book in after.values())
    assert sum(book[USDC.address] for book in after.values()) == dict(plan.holdings_after)[USDC.address]
