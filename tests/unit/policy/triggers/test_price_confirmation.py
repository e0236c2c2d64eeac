"""Confirmation: what prices ask for must have been asked for at each of the blocks before, whoever asks (T3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    PriceSource,
    Rebalance,
    StepInput,
    Threshold,
    Trigger,
)
from agent.policy.decide import decide
from agent.policy.orders.exits import apply_orders
from agent.policy.triggers import price_confirmation
from tests.support.builders import NOW_S, brought_up, feed_round, history, split, step_input, strategy, token, v2_pool, with_history
from tests.support.decisions.top_ups import with_top_up
from tests.support.standing_orders import price_of, terms
from tests.support.text import causes, mentions

WETH, USDC = token("WETH"), token("USDC")
FAIR = 2_000
AWAY = 3_000
"""A WETH price at which half and half has become 60 to 40: outside a tenth of the target."""


def at(step: StepInput, back: int, weth: int | None, usdc: str = "1") -> PastPrices:
    """What the feeds said so many blocks before; None: nothing of WETH."""
    head = replace(step.snapshot.head, number=step.snapshot.head.number - back, hash=f"0x{back:064x}", timestamp_s=NOW_S - 12 * back)
    seen_s = head.timestamp_s - 5
    feeds = [feed_round("USDC", usdc, seen_s, round_id=7)] + ([] if weth is None else [feed_round("WETH", weth, seen_s, round_id=7)])
    return PastPrices(head, tuple(feeds), ())


def priced(weth: int, before: Sequence[int | None], k: int, **changes: object) -> StepInput:
    """Half and half by amounts at the fair price, WETH now at `weth`, and before at those prices, newest first."""
    step = step_input(
        values={"WETH": Fraction(5_000 * weth, FAIR), "USDC": 5_000},
        prices={"WETH": weth, "USDC": 1},
        kinds=[PriceSource.FEED],
        **changes,  # type: ignore[arg-type]  # keywords of step_input
    )
    step = replace(step, policy=replace(step.policy, confirm_blocks=k))
    past = tuple(at(step, number, price) for number, price in enumerate(before, 1))
    return replace(step, snapshot=replace(step.snapshot, past_prices=past))


def test_a_price_that_held_in_all_blocks_fires() -> None:
    assert isinstance(decide(priced(AWAY, [AWAY, AWAY, AWAY], 3)).decision, Rebalance)
    assert isinstance(decide(priced(AWAY, [AWAY, AWAY, AWAY, FAIR], 3)).decision, Rebalance)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_a_push_of_fewer_blocks_than_are_asked_for_fires_nothing_and_names_the_block(blocks: int) -> None:
    """The newest block and those before it are pushed, the others are not."""
    before = [AWAY] * (blocks - 1) + [FAIR] * (4 - blocks)
    decision = decide(priced(AWAY, before, 3)).decision
    assert isinstance(decision, Hold)
    assert mentions(decision.reason, f"block {1000 - blocks}", "policy.confirm_blocks")
    assert decision.next_evaluation_s is None


@given(st.lists(st.sampled_from([FAIR, AWAY]), min_size=3, max_size=3), st.integers(0, 3))
def test_it_fires_exactly_when_every_block_asked_for_it(before: list[int], k: int) -> None:
    fires = isinstance(decide(priced(AWAY, before, k)).decision, Rebalance)
    assert fires is all(price == AWAY for price in before[:k])


def test_the_other_side_of_the_band_confirms_nothing() -> None:
    assert isinstance(decide(priced(AWAY, [AWAY, 1_200, AWAY], 3)).decision, Hold)


def shared(step: StepInput) -> StepInput:
    """Two strategies with half of the wallet each, both WETH and USDC alike."""
    half = {"WETH": 5_000, "USDC": 5_000}
    return brought_up(step.with_config(split(strategy("calm", 5_000, half), strategy("bold", 5_000, half))))


@pytest.mark.parametrize(
    ("trigger", "changed"),
    [
        pytest.param(Threshold(None, 1_000), lambda step: step, id="band"),
        pytest.param(Every(86_400), lambda step: step, id="schedule"),
        pytest.param(Every(10**9), lambda step: with_top_up(step, 400, 100), id="open purchase"),
        pytest.param(Every(10**9), shared, id="strategies"),
    ],
)
def test_while_a_stop_waits_for_its_blocks_nothing_is_bought_that_it_would_sell(
    trigger: Trigger, changed: Callable[[StepInput], StepInput]
) -> None:
    """WETH is below its band at every block, and below its stop at the newest alone."""

    def stopped(before: int, level: int = 1_400) -> Decision:
        step = changed(priced(1_390, [before] * 3, 3, trigger=trigger))
        wished = terms("WETH", OrderKind.STOP_LOSS, level)
        high = price_of("WETH", FAIR)
        armed = ConditionalOrder(wished.token, wished.kind, OrderStage.ARMED, wished, 1, high, None, high)
        portfolio = replace(step.portfolio, orders=OrdersConfig((wished,)))
        return decide(apply_orders(replace(with_history(step, states=(armed,)), portfolio=portfolio))).decision

    held, sold, bought = stopped(1_450), stopped(1_390), stopped(1_450, level=1_000)
    assert isinstance(held, Hold)
    assert mentions(held.reason, "stop_loss", "would be fired", "3 blocks do not confirm it")
    assert isinstance(sold, Rebalance)
    assert sold.is_exit
    assert isinstance(bought, Rebalance)
    assert not bought.is_exit, "without the stop it would have been bought"


def test_blocks_that_were_not_read_or_lack_a_price_confirm_nothing() -> None:
    for before in ([], [AWAY, AWAY]):
        assert causes(decide(priced(AWAY, before, 3))) == ("policy.confirm_blocks",)
    gap = priced(AWAY, [AWAY, AWAY, AWAY], 3)
    skipping = replace(gap, snapshot=replace(gap.snapshot, past_prices=tuple(at(gap, number, AWAY) for number in (1, 2, 4))))
    twice = replace(gap, snapshot=replace(gap.snapshot, past_prices=tuple(at(gap, number, AWAY) for number in (1, 1, 2))))
    for bad in (skipping, twice):
        assert causes(decide(bad)) == ("policy.confirm_blocks",)
    lacking = decide(priced(AWAY, [AWAY, None, AWAY], 3))
    assert causes(lacking) == ("policy.confirm_blocks",)
    assert mentions(lacking.decision.reason, "WETH", "block 998")


def test_within_its_bands_nothing_is_asked_of_the_blocks_before() -> None:
    calm = priced(FAIR, [], 3)
    assert isinstance(decide(calm).decision, Hold)
    assert not price_confirmation.needs_past_blocks(calm, lambda step: decide(step).decision)
    assert price_confirmation.needs_past_blocks(priced(AWAY, [], 3), lambda step: decide(step).decision)
    assert not price_confirmation.needs_past_blocks(priced(AWAY, [AWAY], 3), lambda step: decide(step).decision)
    assert not price_confirmation.needs_past_blocks(priced(AWAY, [], 0), lambda step: decide(step).decision)


def test_a_schedule_asks_no_price_and_a_hybrid_stays_due_until_prices_are_confirmed() -> None:
    for schedule in (Every(86_400), Cron("0 9 * * *", "UTC")):
        assert isinstance(decide(priced(AWAY, [], 3, trigger=schedule)).decision, Rebalance)
    both = HybridTrigger(Threshold(None, 1_000), Every(86_400))
    held = decide(priced(AWAY, [AWAY, FAIR, FAIR], 3, trigger=both, past=history(last_review_s=NOW_S - 90_000)))
    assert isinstance(held.decision, Hold)
    assert not held.is_reviewed
    assert decide(priced(AWAY, [AWAY, AWAY, AWAY], 3, trigger=both)).is_reviewed


def test_one_asset_that_was_away_all_along_is_enough() -> None:
    """WBTC fell out of its band just now, WETH was out of it before: the rebalance was asked for in all blocks."""
    prices = {"WETH": AWAY, "WBTC": 60_000, "USDC": 1}
    step = step_input(
        {"WETH": 4_000, "WBTC": 3_000, "USDC": 3_000},
        {"WETH": 6_000, "WBTC": 2_000, "USDC": 3_000},
        prices,
        kinds=[PriceSource.FEED],
    )
    step = replace(step, policy=replace(step.policy, confirm_blocks=1))
    past = at(step, 1, AWAY)
    past = replace(past, feeds=(*past.feeds, feed_round("WBTC", 90_000, past.head.timestamp_s - 5)))
    assert isinstance(decide(replace(step, snapshot=replace(step.snapshot, past_prices=(past,)))).decision, Rebalance)


def test_by_spot_alone_pools_of_the_blocks_before_are_looked_at() -> None:
    """The harshest source: whoever moves a pool for a block moves the reference."""
    pushed, calm = v2_pool(WETH, USDC, AWAY), v2_pool(WETH, USDC, FAIR)
    step = step_input(values={"WETH": 7_500, "USDC": 5_000}, prices={"WETH": AWAY, "USDC": 1}, kinds=[PriceSource.SPOT], pools=[pushed])
    step = replace(step, policy=replace(step.policy, confirm_blocks=2))
    for pools, kind in (([pushed, calm], Hold), ([pushed, pushed], Rebalance)):
        past = tuple(replace(at(step, number, None), pools=(pool,)) for number, pool in enumerate(pools, 1))
        assert isinstance(decide(replace(step, snapshot=replace(step.snapshot, past_prices=past))).decision, kind)


def test_the_blocks_before_are_part_of_the_input_that_is_written_down() -> None:
    step = priced(AWAY, [AWAY, FAIR, AWAY], 3)
    again = codec.loads(StepInput, codec.dumps(step))
    assert again == step
    assert decide(again) == decide(step)
