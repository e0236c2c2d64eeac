"""Orders by tables of prices: which stage follows, what is held, where the weight goes, and what is refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

import pytest

from agent.model import Halt, HaltCode, Hold, OrderKind, OrderStage, OrderTerms, Rebalance, WeightReallocation
from agent.policy.cash_flows.cash_limit import excluded_amounts
from tests.support.builders import history
from tests.support.standing_orders import WIDE, Bot, look, price_of, terms, three, two
from tests.support.text import mentions

ENTRY = OrderKind.ENTRY
STOP = OrderKind.STOP_LOSS
PROFIT = OrderKind.TAKE_PROFIT
TRAIL = OrderKind.TRAILING_STOP
CASH_ALONE = {"weth": 0, "usdc": 10_000}


@pytest.mark.parametrize(
    ("kind", "level", "share_bps", "path"),
    [
        pytest.param(
            STOP,
            1_500,
            None,
            [(2_000, "armed"), (1_501, "armed"), (1_500, "fired"), (2_500, "done"), (1_000, "done")],
            id="stop at a price",
        ),
        pytest.param(STOP, None, 2_000, [(2_000, "armed"), (1_601, "armed"), (1_600, "fired"), (1_600, "done")], id="stop at a share"),
        pytest.param(PROFIT, 2_600, None, [(2_000, "armed"), (2_599, "armed"), (2_600, "fired"), (2_000, "done")], id="profit at a price"),
        pytest.param(PROFIT, None, 15_000, [(2_000, "armed"), (4_999, "armed"), (5_000, "fired"), (9_000, "done")], id="profit at a share"),
        pytest.param(
            TRAIL,
            None,
            1_000,
            [(2_000, "armed"), (1_801, "armed"), (2_500, "armed"), (2_251, "armed"), (2_250, "fired"), (2_600, "done")],
            id="trail of a share",
        ),
        pytest.param(
            TRAIL,
            300,
            None,
            [(2_000, "armed"), (2_400, "armed"), (2_101, "armed"), (2_100, "fired"), (2_100, "done")],
            id="trail of an amount",
        ),
    ],
)
def test_exit_goes_from_stage_to_stage_by_price(
    kind: OrderKind, level: int | None, share_bps: int | None, path: Sequence[tuple[int, str]]
) -> None:
    bot = two(terms("WETH", kind, level, share_bps))
    for price, stage in path:
        bot.look({"WETH": price})
        assert (price, bot.order("WETH", kind).stage.value) == (price, stage)
    assert bot.coins["WETH"] == 0


@pytest.mark.parametrize(
    ("path", "is_bought"),
    [
        ([(2_000, "armed"), (1_501, "armed")], False),
        ([(2_000, "armed"), (1_500, "fired")], True),
        ([(1_400, "fired"), (1_600, "armed"), (1_499, "armed"), (1_486, "armed"), (1_485, "fired")], True),
    ],
)
def test_entry_buys_at_or_below_its_level_with_hysteresis(path: Sequence[tuple[int, str]], is_bought: bool) -> None:
    bot = two(terms("WETH", ENTRY, 1_500), weth=0, usdc=10_000)
    for price, stage in path:
        before = bot.coins["WETH"]
        bot.look({"WETH": price})
        assert (price, bot.order("WETH", ENTRY).stage.value) == (price, stage)
        assert price <= 1_500 or bot.coins["WETH"] <= before
    assert (bot.coins["WETH"] > 3) is is_bought


def test_waiting_entry_keeps_holdings_and_cash() -> None:
    bot = two(terms("WETH", ENTRY, 1_500), weth=2_000, usdc=8_000)
    assert isinstance(look(bot, 2_000), Hold)
    assert bot.targets() == {"WETH": 2_000, "USDC": 8_000}
    look(bot, 40_000)
    assert bot.targets() == {"WETH": 5_000, "USDC": 5_000}, "too much of it is sold all the same"
    assert bot.coins["WETH"] < 1


def test_waiting_entry_with_a_crumb_is_no_small_portfolio() -> None:
    bot = two(terms("WETH", ENTRY, 1_500), weth=11, usdc=10_100)
    assert isinstance(look(bot, 2_000), Hold)
    assert bot.coins["WETH"] == Fraction(11, 2_000)


def test_dust_that_waits_for_its_entry_is_named_as_such() -> None:
    bot = two(terms("WETH", ENTRY, 1_500), weth=5, usdc=10_100)
    look(bot, 2_000)
    assert [why for _, _, why in excluded_amounts(bot.step)] == ["dust that awaits its entry, and the reserve"]


@pytest.mark.parametrize(
    ("absent", "targets", "is_redistributed"),
    [
        pytest.param(WeightReallocation.CASH, {"WETH": 0, "WBTC": 3_000, "USDC": 7_000}, False, id="cash"),
        pytest.param(WeightReallocation.REDISTRIBUTE, {"WETH": 0, "WBTC": 6_000, "USDC": 4_000}, True, id="redistributed"),
    ],
)
def test_weight_of_an_exit_waits_as_cash_or_is_redistributed(
    absent: WeightReallocation, targets: dict[str, int], is_redistributed: bool
) -> None:
    bot = three(terms("WETH", STOP, 1_500), absent=absent)
    assert look(bot, 2_000, 1_500).is_exit
    assert bot.targets() == targets
    assert bot.coins["WBTC"] == Fraction(3_000, 60_000), "an exit trades nothing else"
    look(bot, 1_500)
    assert (bot.coins["WBTC"] > Fraction(3_000, 60_000)) is is_redistributed, "what the others get is a rebalance like any other"


@pytest.mark.parametrize(("bot", "closest"), [(three, ["WBTC"]), (two, [])])
def test_sold_token_is_never_closest_to_its_band(bot: Callable[..., Bot], closest: list[str]) -> None:
    decision = look(bot(terms("WETH", STOP, 1_900)), 2_000, 1_900, 1_900)
    assert isinstance(decision, Hold)
    assert "all within their bands" in decision.reason
    assert re.findall(r"closest is (\w+)", decision.reason) == closest
    assert decision.reason.count("closest") == len(closest)


def test_weight_waits_as_cash_where_others_have_no_target() -> None:
    bot = two(terms("WETH", STOP, 1_500), reallocation=WeightReallocation.REDISTRIBUTE)
    bot.targets_bps = {"WETH": 10_000, "USDC": 0}
    look(bot, 2_000, 1_400)
    assert bot.targets() == {"WETH": 0, "USDC": 10_000}


def test_stop_ignores_turnover_limits_and_cooldown() -> None:
    bot = two(terms("WETH", STOP, 1_500))
    bot.limits = WIDE
    bot.memory = history(last_rebalance_s=1_800_000_000, turnover_24h=Fraction(10**12))
    assert look(bot, 2_000, 1_400).is_exit
    assert (bot.refused, bot.coins["WETH"]) == ("", 0)
    assert bot.plan.turnover > 0


def test_stop_sells_what_the_market_takes_step_by_step() -> None:
    bot = two(terms("WETH", STOP, 1_500), weth=3_000_000, usdc=2_000)
    bot.limits = {**WIDE, "price_impact_bps": 300, "max_live_value": None}
    look(bot, 2_000)
    coins_left = []
    for _ in range(8):
        look(bot, 1_400)
        coins_left.append(bot.coins["WETH"])
    assert coins_left == sorted(coins_left, reverse=True)
    assert coins_left[0] > 0 == coins_left[-1]
    assert bot.order("WETH", STOP).stage is OrderStage.DONE


def test_rearmed_trailing_stop_starts_from_the_current_price() -> None:
    bot = two(terms("WETH", TRAIL, None, 1_000))
    look(bot, 2_000, 1_800, 1_700)
    assert bot.coins["WETH"] == 0
    bot.rearm("WETH")
    look(bot, 1_700)
    assert bot.order("WETH", TRAIL).stage is OrderStage.ARMED
    assert bot.coins["WETH"] > 2
    look(bot, 1_531)
    assert bot.coins["WETH"] > 2
    look(bot, 1_530)
    assert bot.coins["WETH"] == 0


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (
            terms("WETH", STOP, 2_000),
            "stop_loss of WETH at 2,000.00 USDC contradicts the price of 2,000.00 USDC: its level is not below the price",
        ),
        (
            terms("WETH", STOP, 2_500),
            "below the price; nothing but exits is traded until it is changed: trimtab orders set WETH --stop-loss LEVEL, or off",
        ),
        (terms("WETH", STOP, 1_990), "its level is within the hysteresis of 1 % of the price"),
        (
            terms("WETH", PROFIT, 1_900),
            "take_profit of WETH at 1,900.00 USDC contradicts the price of 2,000.00 USDC: its level is not above the price",
        ),
        (terms("WETH", PROFIT, 2_010), "its level is within the hysteresis"),
        (terms("WETH", TRAIL, 2_000), "its level is at or below zero"),
        (
            terms("WETH", ENTRY, None, 10_000),
            "entry of WETH at 0.00 USDC contradicts the price of 2,000.00 USDC: its level is at or",
        ),
    ],
)
def test_order_that_contradicts_the_price_halts_by_name(order: OrderTerms, reason: str) -> None:
    bot = two(order)
    decision = look(bot, 2_000)
    assert isinstance(decision, Halt)
    assert decision.codes == (HaltCode.ORDERS,)
    assert reason in decision.reason
    assert set(bot.stages().values()) == {"waiting"}
    assert bot.coins["WETH"] == Fraction(5, 2)


def test_entry_above_the_price_is_filled() -> None:
    bot = two(terms("WETH", ENTRY, 2_500), **CASH_ALONE)
    assert isinstance(look(bot, 2_000), Rebalance)
    assert bot.step.targets.reasons == ("entry of WETH at 2,500.00 USDC is not below the price: it delays no purchase",)
    look(bot, 2_000)
    assert bot.step.targets.reasons == ("entry of WETH at 2,500.00 USDC was not below the price when it was armed: it delayed no purchase",)


def test_entry_above_the_price_is_refused_by_config() -> None:
    bot = two(terms("WETH", ENTRY, 2_500), **CASH_ALONE, refuses_filled_entries=True)
    decision = look(bot, 2_000)
    assert isinstance(decision, Halt)
    assert decision.codes == (HaltCode.ORDERS,)
    assert mentions(decision.reason, "entry of WETH", "2,000.00 USDC", "immediately")
    assert bot.coins["WETH"] == 0


def test_share_of_an_exit_counts_from_the_entry() -> None:
    bot = two(terms("WETH", ENTRY, 1_500), terms("WETH", STOP, None, 1_000), **CASH_ALONE)
    for price, has_coins in ((2_000, False), (1_500, True), (1_351, True), (1_350, False), (1_400, False)):
        look(bot, price)
        assert (bot.coins["WETH"] > 0) is has_coins, price
    assert bot.order("WETH", STOP).base_price == price_of("WETH", 1_500)


def test_exits_wait_until_the_entry_has_opened() -> None:
    bot = two(terms("WETH", ENTRY, 1_500), terms("WETH", PROFIT, None, 2_000), terms("WETH", TRAIL, None, 1_000), **CASH_ALONE)
    for price in (2_000, 1_700, 1_900):
        assert isinstance(look(bot, price), Hold)
        assert bot.stages() == {"WETH entry": "armed", "WETH take_profit": "waiting", "WETH trailing_stop": "waiting"}
    look(bot, 1_450)
    assert bot.stages() == {"WETH entry": "fired", "WETH take_profit": "armed", "WETH trailing_stop": "armed"}
    assert bot.order("WETH", TRAIL).highest_price == price_of("WETH", 1_450)
    look(bot, 1_800)
    assert bot.order("WETH", PROFIT).stage is OrderStage.FIRED
    assert bot.coins["WETH"] == 0


def test_price_leap_over_entry_and_stop_buys_nothing() -> None:
    bot = two(terms("WETH", ENTRY, 1_500), terms("WETH", STOP, None, 1_000), **CASH_ALONE)
    look(bot, 2_000, 1_200, 1_200)
    assert bot.coins["WETH"] == 0
    assert bot.order("WETH", STOP).stage is OrderStage.DONE
