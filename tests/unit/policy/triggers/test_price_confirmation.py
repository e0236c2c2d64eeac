"""Confirmation: what prices ask for must have been asked for at each of the blocks before, whoever asks (T3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import codec
from agent.model import (
    ConditionalOrder,
    Cron,
    Decision,
    Every,
    Hold,
    HybridTrigger,
    OrderKind,
    OrdersConfig,
    OrderStage,
    PastPrices,
    Pool,
    PriceSource,
    Rebalance,
    StepInput,
    Threshold,
    TradeSide,
    Trigger,
)
from agent.policy.decide import decide
from agent.policy.decision import DecisionResult
from agent.policy.orders.exits import apply_orders
from agent.policy.triggers import price_confirmation
from tests.support.builders import NOW_S, brought_up, feed_round, history, split, step_input, strategy, v2_pool, with_history
from tests.support.decisions.top_ups import with_top_up
from tests.support.standing_orders import price_of, terms
from tests.support.text import causes, mentions
from tests.support.tokens import USDC, WETH

FAIR = 2_000
AWAY = 3_000
"""A WETH price at which half and half has become 60 to 40: outside a tenth of the target."""


def past_prices_at(step: StepInput, back: int, weth: int | None, usdc: str = "1") -> PastPrices:
    """What the feeds said so many blocks before; None: nothing of WETH."""
    head = replace(step.snapshot.head, number=step.snapshot.head.number - back, hash=f"0x{back:064x}", timestamp_s=NOW_S - 12 * back)
    seen_s = head.timestamp_s - 5
    feeds = [feed_round("USDC", usdc, seen_s, round_id=7)] + ([] if weth is None else [feed_round("WETH", weth, seen_s, round_id=7)])
    return PastPrices(head, tuple(feeds), ())


def step_with_past_prices(weth: int, before: Sequence[int | None], k: int, **changes: object) -> StepInput:
    """Half and half by amounts at the fair price, WETH now at `weth`, and before at those prices, newest first."""
    step = step_input(
        values={"WETH": Fraction(5_000 * weth, FAIR), "USDC": 5_000},
        prices={"WETH": weth, "USDC": 1},
        kinds=[PriceSource.FEED],
        **changes,  # type: ignore[arg-type]  # keywords of step_input
    )
    step = replace(step, policy=replace(step.policy, confirm_blocks=k))
    past = tuple(past_prices_at(step, number, price) for number, price in enumerate(before, 1))
    return replace(step, snapshot=replace(step.snapshot, past_prices=past))


def test_confirmation_by_all_blocks_fires() -> None:
    assert isinstance(decide(step_with_past_prices(AWAY, [AWAY, AWAY, AWAY], 3)).decision, Rebalance)
    assert isinstance(decide(step_with_past_prices(AWAY, [AWAY, AWAY, AWAY, FAIR], 3)).decision, Rebalance)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_push_of_too_few_blocks_holds_and_names_the_block(blocks: int) -> None:
    """The newest block and those before it are pushed, the others are not."""
    before = [AWAY] * (blocks - 1) + [FAIR] * (4 - blocks)
    decision = decide(step_with_past_prices(AWAY, before, 3)).decision
    assert isinstance(decision, Hold)
    assert mentions(decision.reason, f"block {1000 - blocks}", "policy.confirm_blocks")
    assert decision.reason.endswith("; checked again in the next cycle")


@given(st.lists(st.sampled_from([FAIR, AWAY]), min_size=3, max_size=3), st.integers(0, 3))
def test_confirmation_needs_every_block(before: list[int], k: int) -> None:
    fires = isinstance(decide(step_with_past_prices(AWAY, before, k)).decision, Rebalance)
    assert fires is all(price == AWAY for price in before[:k])


def test_other_side_of_the_band_confirms_nothing() -> None:
    assert isinstance(decide(step_with_past_prices(AWAY, [AWAY, 1_200, AWAY], 3)).decision, Hold)


def with_strategies(step: StepInput) -> StepInput:
    """Two strategies with half of the wallet each, both WETH and USDC alike."""
    half = {"WETH": 5_000, "USDC": 5_000}
    return brought_up(step.with_config(split(strategy("calm", 5_000, half), strategy("bold", 5_000, half))))


@pytest.mark.parametrize(
    ("trigger", "change"),
    [
        pytest.param(Threshold(None, 1_000), lambda step: step, id="band"),
        pytest.param(Every(86_400), lambda step: step, id="schedule"),
        pytest.param(Every(10**9), lambda step: with_top_up(step, 400, 100), id="open purchase"),
        pytest.param(Every(10**9), with_strategies, id="strategies"),
    ],
)
def test_stop_that_waits_for_blocks_lets_nothing_be_bought(trigger: Trigger, change: Callable[[StepInput], StepInput]) -> None:
    """WETH is below its band at every block, and below its stop at the newest alone."""

    def decision_beside_stop(before: int, level: int = 1_400) -> Decision:
        step = change(step_with_past_prices(1_390, [before] * 3, 3, trigger=trigger))
        order_terms = terms("WETH", OrderKind.STOP_LOSS, level)
        high = price_of("WETH", FAIR)
        armed = ConditionalOrder(order_terms.token, order_terms.kind, OrderStage.ARMED, order_terms, 1, high, None, high)
        portfolio = replace(step.portfolio, orders=OrdersConfig((order_terms,)))
        return decide(apply_orders(replace(with_history(step, states=(armed,)), portfolio=portfolio))).decision

    waiting = decision_beside_stop(1_450)
    fired = decision_beside_stop(1_390)
    undisturbed = decision_beside_stop(1_450, level=1_000)
    assert isinstance(waiting, Hold)
    assert mentions(waiting.reason, "stop_loss", "would be fired", "3 blocks do not confirm it")
    assert isinstance(fired, Rebalance)
    assert fired.is_exit
    assert isinstance(undisturbed, Rebalance)
    assert not undisturbed.is_exit, "without the stop it would have been bought"


def test_schedule_beside_a_stop_that_waits_for_blocks__stays_due() -> None:
    """A review that is called done would wait a whole interval, and be announced as one that found nothing to trade."""
    step = step_with_past_prices(1_390, [1_450] * 3, 3, trigger=Every(86_400))
    high = price_of("WETH", FAIR)

    def result_beside_stop(level: int) -> DecisionResult:
        order_terms = terms("WETH", OrderKind.STOP_LOSS, level)
        armed = ConditionalOrder(order_terms.token, order_terms.kind, OrderStage.ARMED, order_terms, 1, high, None, high)
        portfolio = replace(step.portfolio, orders=OrdersConfig((order_terms,)))
        return decide(apply_orders(replace(with_history(step, states=(armed,)), portfolio=portfolio)))

    waiting = result_beside_stop(1_400)
    assert isinstance(waiting.decision, Hold)
    assert (waiting.is_reviewed, waiting.due_schedules) == (False, ())
    undisturbed = result_beside_stop(1_000)
    assert undisturbed.is_reviewed
    assert undisturbed.due_schedules


def test_blocks_without_a_price_confirm_nothing() -> None:
    for before in ([], [AWAY, AWAY]):
        assert causes(decide(step_with_past_prices(AWAY, before, 3))) == ("policy.confirm_blocks",)
    gap = step_with_past_prices(AWAY, [AWAY, AWAY, AWAY], 3)
    skipping = replace(gap, snapshot=replace(gap.snapshot, past_prices=tuple(past_prices_at(gap, number, AWAY) for number in (1, 2, 4))))
    twice = replace(gap, snapshot=replace(gap.snapshot, past_prices=tuple(past_prices_at(gap, number, AWAY) for number in (1, 1, 2))))
    for bad in (skipping, twice):
        assert causes(decide(bad)) == ("policy.confirm_blocks",)
    lacking = decide(step_with_past_prices(AWAY, [AWAY, None, AWAY], 3))
    assert causes(lacking) == ("policy.confirm_blocks",)
    assert mentions(lacking.decision.reason, "WETH", "block 998")


def test_past_blocks_are_not_needed_within_the_bands() -> None:
    calm = step_with_past_prices(FAIR, [], 3)
    assert isinstance(decide(calm).decision, Hold)
    assert not price_confirmation.needs_past_blocks(calm, lambda step: decide(step).decision)
    assert price_confirmation.needs_past_blocks(step_with_past_prices(AWAY, [], 3), lambda step: decide(step).decision)
    assert not price_confirmation.needs_past_blocks(step_with_past_prices(AWAY, [AWAY], 3), lambda step: decide(step).decision)
    assert not price_confirmation.needs_past_blocks(step_with_past_prices(AWAY, [], 0), lambda step: decide(step).decision)


def test_schedule_needs_no_confirmation_and_a_hybrid_stays_due() -> None:
    for schedule in (Every(86_400), Cron("0 9 * * *", "UTC")):
        assert isinstance(decide(step_with_past_prices(AWAY, [], 3, trigger=schedule)).decision, Rebalance)
    hybrid = HybridTrigger(Threshold(None, 1_000), Every(86_400))
    decision_result = decide(step_with_past_prices(AWAY, [AWAY, FAIR, FAIR], 3, trigger=hybrid, past=history(last_review_s=NOW_S - 90_000)))
    assert isinstance(decision_result.decision, Hold)
    assert not decision_result.is_reviewed
    assert decide(step_with_past_prices(AWAY, [AWAY, AWAY, AWAY], 3, trigger=hybrid)).is_reviewed


def test_asset_outside_in_all_blocks_is_enough() -> None:
    """WBTC fell out of its band just now, WETH was out of it before: the rebalance was asked for in all blocks."""
    prices = {"WETH": AWAY, "WBTC": 60_000, "USDC": 1}
    step = step_input(
        {"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000},
        {"WETH": 6_000, "WBTC": 2_000, "USDC": 3_000},
        prices,
        kinds=[PriceSource.FEED],
    )
    step = replace(step, policy=replace(step.policy, confirm_blocks=1))
    past = past_prices_at(step, 1, AWAY)
    past = replace(past, feeds=(*past.feeds, feed_round("WBTC", 90_000, past.head.timestamp_s - 5)))
    assert isinstance(decide(replace(step, snapshot=replace(step.snapshot, past_prices=(past,)))).decision, Rebalance)


def one_sided_step(side: TradeSide, values: Mapping[str, int], wbtc: int, wbtc_before: int) -> StepInput:
    """Values now, with WBTC at `wbtc`, which cost `wbtc_before` at the block before."""
    step = step_input(
        {"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000},
        values,
        {"WETH": FAIR, "WBTC": wbtc, "USDC": 1},
        kinds=[PriceSource.FEED],
    )
    past = past_prices_at(step, 1, FAIR)
    past = replace(past, feeds=(*past.feeds, feed_round("WBTC", wbtc_before, past.head.timestamp_s - 5)))
    policy = replace(step.policy, confirm_blocks=1, trade_side=side)
    return replace(step, policy=policy, snapshot=replace(step.snapshot, past_prices=(past,)))


ONE_STRATEGY = split(strategy("only", 10_000, {"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000}))


@pytest.mark.parametrize(
    "change", [lambda step: step, lambda step: brought_up(step.with_config(ONE_STRATEGY))], ids=["portfolio", "strategy"]
)
@pytest.mark.parametrize(
    ("side", "values", "wbtc"),
    [
        pytest.param(TradeSide.LOSERS, {"WETH": 4_600, "WBTC": 900, "USDC": 2_700}, 20_000, id="losers"),
        pytest.param(TradeSide.BUY, {"WETH": 4_600, "WBTC": 900, "USDC": 2_700}, 20_000, id="buy"),
        pytest.param(TradeSide.WINNERS, {"WETH": 3_500, "WBTC": 9_600, "USDC": 3_300}, 180_000, id="winners"),
        pytest.param(TradeSide.SELL, {"WETH": 3_500, "WBTC": 9_600, "USDC": 3_300}, 180_000, id="sell"),
    ],
)
def test_asset_of_the_side_that_does_not_trade_confirms_nothing(
    side: TradeSide, values: Mapping[str, int], wbtc: int, change: Callable[[StepInput], StepInput]
) -> None:
    """WETH is outside its band at both blocks on the other side, WBTC at 60,000 only at the newest."""
    pushed = decide(change(one_sided_step(side, values, wbtc, 60_000)))
    moved = decide(change(one_sided_step(side, values, wbtc, wbtc)))
    assert isinstance(pushed.decision, Hold)
    assert isinstance(moved.decision, Rebalance)


PUSHED = v2_pool(WETH, USDC, AWAY)
CALM = v2_pool(WETH, USDC, FAIR)


@pytest.mark.parametrize(
    ("pools", "kind"),
    [
        pytest.param([PUSHED, CALM], Hold, id="calm two blocks ago"),
        pytest.param([PUSHED, PUSHED], Rebalance, id="pushed in both"),
    ],
)
def test_spot_prices_are_confirmed_by_pools_of_past_blocks(pools: list[Pool], kind: type[Decision]) -> None:
    """The harshest source: whoever moves a pool for a block moves the reference."""
    step = step_input(values={"WETH": 7_500, "USDC": 5_000}, prices={"WETH": AWAY, "USDC": 1}, kinds=[PriceSource.SPOT], pools=[PUSHED])
    step = replace(step, policy=replace(step.policy, confirm_blocks=2))
    past = tuple(replace(past_prices_at(step, number, None), pools=(pool,)) for number, pool in enumerate(pools, 1))
    assert isinstance(decide(replace(step, snapshot=replace(step.snapshot, past_prices=past))).decision, kind)


def test_past_blocks_survive_the_codec_of_a_step() -> None:
    step = step_with_past_prices(AWAY, [AWAY, FAIR, AWAY], 3)
    again = codec.loads(StepInput, codec.dumps(step))
    assert again == step
    assert decide(again) == decide(step)
