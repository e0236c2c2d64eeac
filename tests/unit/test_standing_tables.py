"""Orders by tables of prices: which stage follows, what is held, where the weight goes, and what is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.model import (
    Absent,
    Finding,
    Halt,
    Hold,
    LpTarget,
    OrderKind,
    OrderStage,
    Quarantined,
    Rebalance,
    ReferenceKind,
    ScreenedToken,
    StepInput,
)
from agent.policy import confirm, order_moves
from agent.policy.decide import decide
from agent.policy.order_targets import keep_out, ordered
from agent.policy.quarantine import quarantine
from tests.builders import history, token, v3_pool
from tests.standing import WIDE, Bot, price_of, terms, three, two

ENTRY, STOP, PROFIT, TRAIL = OrderKind.ENTRY, OrderKind.STOP_LOSS, OrderKind.TAKE_PROFIT, OrderKind.TRAILING_STOP
WETH, USDC = token("WETH"), token("USDC")


@pytest.mark.parametrize(
    ("kind", "level", "share_bps", "path"),
    [
        (STOP, 1_500, None, [(2_000, "armed"), (1_501, "armed"), (1_500, "fired"), (2_500, "done"), (1_000, "done")]),
        (STOP, None, 2_000, [(2_000, "armed"), (1_601, "armed"), (1_600, "fired"), (1_600, "done")]),
        (PROFIT, 2_600, None, [(2_000, "armed"), (2_599, "armed"), (2_600, "fired"), (2_000, "done")]),
        (PROFIT, None, 15_000, [(2_000, "armed"), (4_999, "armed"), (5_000, "fired"), (9_000, "done")]),
        (TRAIL, None, 1_000, [(2_000, "armed"), (1_801, "armed"), (2_500, "armed"), (2_251, "armed"), (2_250, "fired"), (2_600, "done")]),
        (TRAIL, 300, None, [(2_000, "armed"), (2_400, "armed"), (2_101, "armed"), (2_100, "fired"), (2_100, "done")]),
    ],
)
def test_exits_go_from_stage_to_stage_by_price_and_stay_done(
    kind: OrderKind, level: int | None, share_bps: int | None, path: Sequence[tuple[int, str]]
) -> None:
    bot = two(terms("WETH", kind, level, share_bps))
    for price, stage in path:
        bot.look({"WETH": price})
        assert (price, bot.order("WETH", kind).stage.value) == (price, stage)
    assert bot.coins["WETH"] == 0


@pytest.mark.parametrize(
    ("path", "bought"),
    [
        ([(2_000, "armed"), (1_501, "armed")], False),
        ([(2_000, "armed"), (1_500, "fired")], True),
        ([(1_400, "fired"), (1_600, "armed"), (1_499, "armed"), (1_486, "armed"), (1_485, "fired")], True),
    ],
)
def test_an_entry_is_bought_at_or_below_only_and_closes_with_hysteresis(path: Sequence[tuple[int, str]], bought: bool) -> None:
    bot = two(terms("WETH", ENTRY, 1_500), weth=0, usdc=10_000)
    for price, stage in path:
        before = bot.coins["WETH"]
        bot.look({"WETH": price})
        assert (price, bot.order("WETH", ENTRY).stage.value) == (price, stage)
        assert price <= 1_500 or bot.coins["WETH"] <= before
    assert (bot.coins["WETH"] > 3) is bought


def test_what_waits_for_its_entry_keeps_what_is_held_and_its_cash_waits() -> None:
    bot = two(terms("WETH", ENTRY, 1_500), weth=2_000, usdc=8_000)
    assert isinstance(bot.look({"WETH": 2_000}), Hold)
    assert bot.targets() == {"WETH": 2_000, "USDC": 8_000}
    bot.look({"WETH": 40_000})
    assert bot.targets() == {"WETH": 5_000, "USDC": 5_000}, "too much of it is sold all the same"
    assert bot.coins["WETH"] < 1


def test_a_crumb_of_what_waits_makes_no_portfolio_too_small() -> None:
    bot = two(terms("WETH", ENTRY, 1_500), weth=11, usdc=10_100)
    assert isinstance(bot.look({"WETH": 2_000}), Hold)
    assert bot.coins["WETH"] == Fraction(11, 2_000)


@pytest.mark.parametrize(
    ("absent", "targets"),
    [(Absent.CASH, {"WETH": 0, "WBTC": 3_000, "USDC": 7_000}), (Absent.REDISTRIBUTE, {"WETH": 0, "WBTC": 6_000, "USDC": 4_000})],
)
def test_the_weight_of_what_is_out_waits_as_cash_or_goes_to_the_others(absent: Absent, targets: dict[str, int]) -> None:
    bot = three(terms("WETH", STOP, 1_500), absent=absent)
    bot.look({"WETH": 2_000, "WBTC": 60_000})
    decision = bot.look({"WETH": 1_500, "WBTC": 60_000})
    assert isinstance(decision, Rebalance) and decision.exit
    assert bot.targets() == targets
    assert bot.coins["WBTC"] == Fraction(3_000, 60_000), "an exit trades nothing else"
    bot.look({"WETH": 1_500, "WBTC": 60_000})
    grown = bot.coins["WBTC"] > Fraction(3_000, 60_000)
    assert grown is (absent is Absent.REDISTRIBUTE), "what the others get is a rebalance like any other"


def test_where_the_others_want_nothing_the_weight_waits_as_cash() -> None:
    bot = two(terms("WETH", STOP, 1_500), absent=Absent.REDISTRIBUTE)
    bot.targets_bps = {"WETH": 10_000, "USDC": 0}
    bot.look({"WETH": 2_000})
    bot.look({"WETH": 1_400})
    assert bot.targets() == {"WETH": 0, "USDC": 10_000}


def test_a_stop_fires_whatever_limits_of_turnover_and_the_cooldown_say() -> None:
    bot = two(terms("WETH", STOP, 1_500))
    bot.limits, bot.memory = WIDE, history(last_rebalance_s=1_800_000_000, turnover_24h=Fraction(10**12))
    bot.look({"WETH": 2_000})
    decision = bot.look({"WETH": 1_400})
    assert isinstance(decision, Rebalance) and decision.exit and bot.refused == ""
    assert bot.coins["WETH"] == 0
    assert bot.plan is not None and bot.plan.turnover > 0


def test_what_the_market_does_not_take_at_once_is_sold_look_by_look() -> None:
    bot = two(terms("WETH", STOP, 1_500), weth=3_000_000, usdc=2_000)
    bot.limits = {**WIDE, "price_impact_bps": 300, "max_live_value": None}
    bot.look({"WETH": 2_000})
    left = []
    for _ in range(8):
        bot.look({"WETH": 1_400})
        left.append(bot.coins["WETH"])
    assert left == sorted(left, reverse=True) and left[0] > 0 and left[-1] == 0
    assert bot.order("WETH", STOP).stage is OrderStage.DONE


def test_armed_anew_it_comes_back_and_watches_from_the_price_of_then() -> None:
    bot = two(terms("WETH", TRAIL, None, 1_000))
    for price in (2_000, 1_800, 1_700):
        bot.look({"WETH": price})
    assert bot.coins["WETH"] == 0
    bot.rearm("WETH")
    bot.look({"WETH": 1_700})
    assert bot.order("WETH", TRAIL).stage is OrderStage.ARMED and bot.coins["WETH"] > 2
    bot.look({"WETH": 1_531})
    assert bot.coins["WETH"] > 2
    bot.look({"WETH": 1_530})
    assert bot.coins["WETH"] == 0


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (terms("WETH", STOP, 2_000), "stop_loss of WETH contradicts the price of 2000 USDC: its level is not below the price"),
        (terms("WETH", STOP, 2_500), "its level is not below the price (lower it, or sell by hand"),
        (terms("WETH", STOP, 1_990), "its level is within the hysteresis of 1 % of the price"),
        (terms("WETH", PROFIT, 1_900), "take_profit of WETH contradicts the price of 2000 USDC: its level is not above the price"),
        (terms("WETH", PROFIT, 2_010), "its level is within the hysteresis"),
        (terms("WETH", TRAIL, 2_000), "its level is at or below zero"),
        (terms("WETH", ENTRY, None, 10_000), "entry of WETH contradicts the price of 2000 USDC: its level is at or below zero"),
    ],
)
def test_an_order_that_contradicts_the_price_at_arming_halts_by_name(order: object, said: str) -> None:
    bot = two(order)  # type: ignore[arg-type]  # Terms
    decision = bot.look({"WETH": 2_000})
    assert isinstance(decision, Halt) and said in decision.reason
    assert set(bot.stages().values()) == {"waiting"}
    assert bot.coins["WETH"] == Fraction(5, 2)


def test_an_entry_above_the_price_is_told_or_refused_as_chosen() -> None:
    bot = two(terms("WETH", ENTRY, 2_500), weth=0, usdc=10_000)
    assert isinstance(bot.look({"WETH": 2_000}), Rebalance)
    assert bot.step is not None
    assert "entry of WETH at 2500 USDC was not below the price when it was armed: it held nothing back" in bot.step.wishes
    strict = two(terms("WETH", ENTRY, 2_500), weth=0, usdc=10_000, refuse_filled=True)
    halted = strict.look({"WETH": 2_000})
    assert isinstance(halted, Halt) and "it is bought at once" in halted.reason
    assert strict.coins["WETH"] == 0


def test_shares_of_exits_count_from_the_entry() -> None:
    bot = two(terms("WETH", ENTRY, 1_500), terms("WETH", STOP, None, 1_000), weth=0, usdc=10_000)
    for price, coins in ((2_000, False), (1_500, True), (1_351, True), (1_350, False), (1_400, False)):
        bot.look({"WETH": price})
        assert (bot.coins["WETH"] > 0) is coins, price
    assert bot.order("WETH", STOP).basis == price_of("WETH", 1_500)


def test_profits_and_highest_prices_wait_until_the_entry_has_opened() -> None:
    orders = (terms("WETH", ENTRY, 1_500), terms("WETH", PROFIT, None, 2_000), terms("WETH", TRAIL, None, 1_000))
    bot = two(*orders, weth=0, usdc=10_000)
    waiting = {"WETH entry": "armed", "WETH take_profit": "waiting", "WETH trailing_stop": "waiting"}
    for price in (2_000, 1_700, 1_900):
        assert isinstance(bot.look({"WETH": price}), Hold)
        assert bot.stages() == waiting
    bot.look({"WETH": 1_450})
    assert bot.stages() == {"WETH entry": "fired", "WETH take_profit": "armed", "WETH trailing_stop": "armed"}
    assert bot.order("WETH", TRAIL).mark == price_of("WETH", 1_450)
    bot.look({"WETH": 1_800})
    assert bot.order("WETH", PROFIT).stage is OrderStage.FIRED and bot.coins["WETH"] == 0


def test_prices_that_leap_over_entry_and_stop_at_once_buy_nothing() -> None:
    bot = two(terms("WETH", ENTRY, 1_500), terms("WETH", STOP, None, 1_000), weth=0, usdc=10_000)
    bot.look({"WETH": 2_000})
    bot.look({"WETH": 1_200})
    bot.look({"WETH": 1_200})
    assert bot.coins["WETH"] == 0
    assert bot.order("WETH", STOP).stage is OrderStage.DONE


@pytest.mark.parametrize("pushed", [1, 2, 3])
def test_fewer_blocks_than_are_asked_for_move_nothing_and_that_is_said(pushed: int) -> None:
    bot = two(terms("WETH", STOP, 1_500), terms("WETH", TRAIL, None, 5_000), confirm=3)
    calm, low, high = {"WETH": 2_000}, {"WETH": 1_000}, {"WETH": 4_000}
    bot.look(calm)
    for push in (low, high):
        bot.look(push, [push] * (pushed - 1) + [calm] * (4 - pushed))
        assert set(bot.stages().values()) == {"armed"}
        assert bot.order("WETH", TRAIL).mark == price_of("WETH", 2_000)
        assert bot.coins["WETH"] == Fraction(5, 2)
    bot.look(low, [low] * (pushed - 1) + [calm] * (4 - pushed))
    assert bot.step is not None
    assert "stop_loss of WETH would be fired, but the 3 blocks before do not confirm it" in bot.step.wishes
    bot.look(low)
    assert bot.order("WETH", STOP).stage is OrderStage.FIRED and bot.coins["WETH"] == 0


def test_blocks_are_read_only_where_prices_would_move_an_order() -> None:
    bot = two(terms("WETH", STOP, 1_500), terms("WETH", TRAIL, None, 5_000), confirm=3)

    def stirs(price: int) -> bool:
        return order_moves.stirring(ordered(bot.seen({"WETH": price}, [])))

    assert stirs(2_000), "to be armed"
    bot.look({"WETH": 2_000})
    assert [stirs(price) for price in (2_000, 1_501, 2_001, 2_003, 1_500)] == [False, False, False, True, True]
    assert not confirm.wants(ordered(bot.seen({"WETH": 2_000}, [])), lambda step: decide(step).decision)


def test_while_a_price_is_unknown_or_contradicts_another_nothing_fires_and_it_is_said() -> None:
    bot = two(terms("WETH", STOP, 1_500))
    bot.look({"WETH": 2_000})
    low = bot.seen({"WETH": 1_000})
    no_feed = replace(low, snapshot=replace(low.snapshot, feeds=tuple(one for one in low.snapshot.feeds if one.answer != 1_000 * 10**8)))
    unread = replace(low, snapshot=replace(low.snapshot, quarantined=(Quarantined("balance of WETH", WETH.address, "no answer"),)))
    both = replace(low.reference, kinds=(ReferenceKind.FEED, ReferenceKind.TWAP))
    off = replace(low, reference=both, snapshot=replace(low.snapshot, pools=(v3_pool(WETH, USDC, 2_000, 50_000_000),)))
    for step, why in ((no_feed, "WETH has no reference price"), (off, "sources contradict each other")):
        after = ordered(step)
        assert after.history.orders == step.history.orders
        decision = decide(after).decision
        assert isinstance(decision, Halt) and why in decision.reason
    assert isinstance(decide(ordered(unread)).decision, Halt)


def test_what_is_in_quarantine_is_left_until_it_is_out_of_it_and_then_sold() -> None:
    bot = three(terms("WETH", STOP, 1_500))
    bot.look({"WETH": 2_000, "WBTC": 60_000})
    step = ordered(bot.seen({"WETH": 1_400, "WBTC": 60_000}))
    shut = quarantine(step, [ScreenedToken(WETH.address, Finding.CODE_CHANGED)])
    decision = decide(shut).decision
    assert not (isinstance(decision, Rebalance) and decision.exit)
    assert "WETH is in quarantine" in decision.reason
    assert step.history.orders[0].stage is OrderStage.FIRED
    bot.memory = replace(bot.memory, orders=step.history.orders)
    bot.look({"WETH": 1_700, "WBTC": 60_000})
    assert bot.coins["WETH"] == 0


def test_liquidity_of_what_is_out_is_wanted_no_more() -> None:
    bot = three(terms("WETH", STOP, 1_500))
    bot.look({"WETH": 2_000, "WBTC": 60_000})
    pool = v3_pool(WETH, USDC, 1_400)
    target = LpTarget("uniswap_v3", "0x", pool.address, pool.token0, pool.token1, 500, 10, 1_000, 2_000, None, 6_000, 86_400)
    other = replace(target, pool="other", token0=token("WBTC").address, token1=USDC.address)

    def lp(step: StepInput) -> list[int]:
        return [one.share_bps for one in keep_out(step).portfolio.lp_targets]

    step = bot.seen({"WETH": 1_400, "WBTC": 60_000})
    step = replace(step, portfolio=replace(step.portfolio, lp_targets=(target, other)))
    assert lp(step) == [1_000, 1_000]
    assert lp(order_moves.moved(step)) == [0, 1_000]


def test_an_order_that_fired_stays_when_its_owner_takes_it_out_of_the_config() -> None:
    bot = two(terms("WETH", STOP, 1_500))
    bot.look({"WETH": 2_000})
    bot.look({"WETH": 1_400})
    bot.book = replace(bot.book, terms=())
    bot.look({"WETH": 2_000})
    assert bot.stages() == {"WETH stop_loss": "done"} and bot.targets() == {"WETH": 0, "USDC": 10_000}
    armed = two(terms("WETH", STOP, 1_500))
    armed.look({"WETH": 2_000})
    armed.book = replace(armed.book, terms=())
    armed.look({"WETH": 2_000})
    assert armed.stages() == {}


def test_other_terms_keep_the_basis_and_the_highest_price_of_an_order_that_watches() -> None:
    bot = two(terms("WETH", TRAIL, None, 2_000))
    for price in (2_000, 3_000):
        bot.look({"WETH": price})
    bot.book = replace(bot.book, terms=(terms("WETH", TRAIL, None, 1_000),))
    bot.look({"WETH": 2_900})
    assert bot.order("WETH", TRAIL).mark == price_of("WETH", 3_000)
    assert isinstance(bot.look({"WETH": 2_700}), Rebalance)
    bot.book = replace(bot.book, terms=(terms("WETH", TRAIL, None, 500),))
    bot.look({"WETH": 3_000})
    assert bot.order("WETH", TRAIL).terms.share_bps == 1_000, "what fired changes only when it is armed"


def test_terms_that_the_price_has_passed_already_halt_and_the_old_ones_stay_in_force() -> None:
    bot = two(terms("WETH", STOP, 1_500))
    bot.look({"WETH": 2_000})
    bot.book = replace(bot.book, terms=(terms("WETH", STOP, 2_200),))
    decision = bot.look({"WETH": 2_000})
    assert isinstance(decision, Halt) and "stop_loss of WETH contradicts the price" in decision.reason
    assert bot.order("WETH", STOP).terms.price == price_of("WETH", 1_500)


def test_once_the_portfolio_is_out_its_assets_orders_rest() -> None:
    bot = three(terms("", STOP, None, 2_000), terms("WBTC", STOP, 35_000))
    bot.look({"WETH": 2_000, "WBTC": 60_000})
    decision = bot.look({"WETH": 1_300, "WBTC": 40_000})
    assert isinstance(decision, Rebalance) and decision.exit and "everything is sold for USDC" in decision.reason
    assert bot.coins["WETH"] == bot.coins["WBTC"] == 0
    bot.look({"WETH": 1_000, "WBTC": 30_000})
    assert bot.stages() == {"portfolio stop_loss": "done", "WBTC stop_loss": "armed"}


def test_a_step_with_orders_reads_back_as_it_was_and_decides_alike() -> None:
    bot = two(terms("WETH", STOP, 1_500), terms("WETH", TRAIL, None, 2_000))
    bot.look({"WETH": 2_000})
    decision = bot.look({"WETH": 1_400})
    assert bot.step is not None
    again = codec.loads(StepInput, codec.dumps(bot.step))
    assert again == bot.step and decide(again).decision == decision


def test_steps_of_before_orders_were_known_read_back_without_any() -> None:
    step = Bot({"WETH": 5_000, "USDC": 5_000}, {"WETH": Fraction(1), "USDC": Fraction(2_000)}, two().book).seen({"WETH": 2_000})
    old = codec.to_jsonable(step)
    del old["portfolio"]["orders"], old["history"]["orders"], old["history"]["orders_turn"], old["history"]["unit_value"]
    assert codec.from_jsonable(StepInput, old) == step


def test_within_the_template_s_cost_and_impact_the_last_unit_is_sold_too_and_nothing_is_called_undone() -> None:
    bot = three(terms("WETH", STOP, 1_500))
    bot.limits = {"plan_cost_bps": 50, "price_impact_bps": 100, "turnover_bps": 1, "daily_turnover_bps": 1}
    bot.coins = {symbol: coins * 10 for symbol, coins in bot.coins.items()}
    bot.look({"WETH": 2_000, "WBTC": 60_000})
    wbtc = bot.coins["WBTC"]
    bot.look({"WETH": 1_450, "WBTC": 60_000})
    assert bot.plan is not None and bot.plan.skipped == () and bot.plan.exits
    assert bot.coins["WETH"] == 0 and bot.coins["WBTC"] == wbtc
