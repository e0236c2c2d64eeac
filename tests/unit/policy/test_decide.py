"""Tests of agent/policy/decide.py: halt on anything unknown, hold with a reason, rebalance when a trigger fires."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest

from agent.model import (
    Asset,
    Cron,
    Destination,
    Every,
    Halt,
    HaltCode,
    Hold,
    Holding,
    HybridTrigger,
    PriceSource,
    Rebalance,
    StepInput,
    Threshold,
    UnreadableItem,
)
from agent.policy import minimum
from agent.policy.decide import current_drifts, decide
from agent.units import format_time
from tests.support.builders import (
    GWEI,
    NOW_S,
    feed_address,
    history,
    step_input,
    token,
    with_feed,
    with_limits,
    with_snapshot,
    without_feed,
)
from tests.support.constants import DAY_S
from tests.support.text import causes, mentions, raises_field

OFF = {"WETH": 6_000, "USDC": 4_000}
STEP = step_input(values=OFF)
FEED_STEP = step_input(values=OFF, kinds=[PriceSource.FEED])
WETH, USDC = STEP.portfolio.assets
BAND = Threshold(None, 1_000)


def with_assets(step: StepInput, *assets: Asset) -> StepInput:
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


def with_base_fee(step: StepInput, base_fee_wei: int | None, **snapshot: object) -> StepInput:
    return with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=base_fee_wei), **snapshot)


# --- Halts


@pytest.mark.parametrize(
    ("step", "codes", "terms"),
    [
        pytest.param(
            without_feed(STEP, "WETH"), (HaltCode.REFERENCE_PRICE,), ("WETH", "feed", "twap", "1800 s"), id="no price of any source"
        ),
        pytest.param(
            with_feed(FEED_STEP, "WETH", updated_at_s=NOW_S - 3_601), (HaltCode.REFERENCE_PRICE,), ("WETH", "3601 s", "3600 s"),
            id="feed a second too old",
        ),
        pytest.param(step_input(kinds=[]), (HaltCode.REFERENCE_PRICE,), ("WETH", "no source"), id="no source configured"),
        pytest.param(
            with_assets(FEED_STEP, replace(WETH, feed=feed_address("OTHER")), USDC), (HaltCode.REFERENCE_PRICE,),
            ("feed", "WETH", "not read"), id="feed of another token",
        ),
        pytest.param(
            with_snapshot(STEP, unreadable_items=(UnreadableItem("balance", WETH.token.address, "out of gas"),)), (HaltCode.QUARANTINE,),
            ("WETH", "balance: out of gas"), id="unreadable token",
        ),
        pytest.param(
            with_snapshot(STEP, holdings=(*STEP.snapshot.holdings, Holding(USDC.token.address, 1))), (HaltCode.BALANCE,),
            ("USDC", "1 and 4000000000"), id="contradicting balances",
        ),
        pytest.param(
            with_snapshot(without_feed(STEP, "WETH"), holdings=()), (HaltCode.BALANCE, HaltCode.REFERENCE_PRICE),
            ("balance of WETH", "balance of USDC"), id="every fault at once",
        ),
        pytest.param(
            step_input(values=OFF, past=history(last_rebalance_s=NOW_S + 1)), (HaltCode.STORE_AHEAD,),
            ("2027-01-15 08:00:01 UTC", "2027-01-15 08:00:00 UTC"), id="rebalance a second ahead of the block",
        ),
        pytest.param(
            step_input(values=OFF, past=history(last_review_s=NOW_S + 1)), (HaltCode.STORE_AHEAD,),
            ("2027-01-15 08:00:01 UTC", "2027-01-15 08:00:00 UTC"), id="review a second ahead of the block",
        ),
        pytest.param(step_input({"WETH": 5_000, "USDC": 4_999}), (HaltCode.TARGETS,), ("9999 bps",), id="targets a bp short"),
        pytest.param(step_input({"WETH": 10_001, "USDC": -1}, OFF), (HaltCode.TARGETS,), ("10000 bps",), id="negative target"),
        pytest.param(
            with_assets(STEP, replace(WETH, target_bps=2_500), replace(WETH, target_bps=2_500), USDC), (HaltCode.ASSETS,),
            ("WETH", "2 times"), id="asset listed twice",
        ),
        pytest.param(with_assets(step_input(), WETH), (HaltCode.ASSETS,), ("at least 2", "has 1"), id="single asset"),
        pytest.param(
            step_input(values=OFF, trigger=Every(DAY_S), destination=Destination.BAND), (HaltCode.DESTINATION,), (),
            id="band destination of an interval",
        ),
        pytest.param(
            step_input(values=OFF, trigger=Cron("0 9 * * *", "UTC"), destination=Destination.BAND), (HaltCode.DESTINATION,), (),
            id="band destination of a cron time",
        ),
        pytest.param(
            step_input({"WETH": 8_000, "USDC": 2_000}, {"WETH": 40, "USDC": "9.99"}), (HaltCode.MIN_TRADE,),
            ("49.99 USDC", "min_trade 10 USDC", "50 USDC"), id="a cent below the smallest total",
        ),
        pytest.param(step_input(values={"WETH": 0, "USDC": 0}), (HaltCode.EMPTY,), (), id="empty wallet"),
    ],
)  # fmt: skip
def test_decide_halts(step: StepInput, codes: tuple[HaltCode, ...], terms: tuple[str, ...]) -> None:
    decision = decide(step).decision

    assert isinstance(decision, Halt)
    assert decision.codes == codes
    assert mentions(decision.reason, *terms)


def test_decide_halts_on_a_balance_that_was_not_read() -> None:
    result = decide(with_snapshot(STEP, holdings=STEP.snapshot.holdings[:1]))

    assert result.decision == Halt("the balance of USDC was not read", (HaltCode.BALANCE,))
    assert result.drifts == ()


def test_decide_halts_differently_for_empty_and_reserved() -> None:
    empty = decide(step_input(values={"WETH": 0, "USDC": 0})).decision
    reserved = decide(step_input(values={"WETH": 0, "USDC": 0}, reserves={"WETH": 1})).decision

    assert isinstance(reserved, Halt)
    assert reserved.codes == (HaltCode.EMPTY,)
    assert reserved.reason != empty.reason


def test_decide_refuses_a_cron_expression_of_two_fields() -> None:
    with raises_field("policy.trigger.cron", "'0 9'", "2 fields"):
        decide(step_input(trigger=Cron("0 9", "UTC")))


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(
            with_snapshot(STEP, unreadable_items=(UnreadableItem("pool", STEP.snapshot.pools[0].address, "reverted"),)),
            id="unreadable pool",
        ),
        pytest.param(with_snapshot(STEP, holdings=(*STEP.snapshot.holdings, STEP.snapshot.holdings[1])), id="equal balances twice"),
        pytest.param(step_input(values=OFF, past=history(last_rebalance_s=NOW_S - DAY_S)), id="rebalance of yesterday"),
        pytest.param(step_input(values=OFF, past=history(last_review_s=NOW_S - 60)), id="review starts no cooldown"),
        pytest.param(
            step_input(values=OFF, trigger=HybridTrigger(BAND, Every(DAY_S)), destination=Destination.BAND),
            id="band destination of a hybrid",
        ),
        pytest.param(
            with_base_fee(step_input({"WBTC": 5_000, "USDC": 5_000}, {"WBTC": 600, "USDC": 400}), 10**6 * GWEI),
            id="gas without a price of native coin",
        ),
    ],
)
def test_decide_rebalances_despite(step: StepInput) -> None:
    assert isinstance(decide(step).decision, Rebalance)


def test_decide_needs_no_price_of_a_hub() -> None:
    result = decide(step_input(hubs=["DAI"]))

    assert isinstance(result.decision, Hold)
    assert [unpriced.label for unpriced in result.references.unpriced] == ["DAI"]


@pytest.mark.parametrize(("asset_count", "warnings"), [pytest.param(12, 0, id="twelve"), pytest.param(13, 1, id="thirteen")])
def test_size_warnings_begin_at_thirteen_assets(asset_count: int, warnings: int) -> None:
    assets = tuple(Asset(token(f"T{number}"), 769, 0) for number in range(asset_count))

    messages = minimum.size_warnings(replace(STEP.portfolio, assets=assets))

    assert len(messages) == warnings
    assert all(mentions(message, "13 assets", "12") for message in messages)


# --- Rebalances


def test_decide_rebalances_all_assets_outside_a_band() -> None:
    result = decide(STEP)

    assert isinstance(result.decision, Rebalance)
    assert mentions(result.decision.reason, "WETH", "60 %", "5 points", "45-55 %", "USDC", "40 %")
    assert [(weight.low, weight.high) for weight in result.decision.goal.weights] == [(Fraction(1, 2), Fraction(1, 2))] * 2
    assert [drift.weight_bps for drift in result.drifts] == [6_000, 4_000]
    assert result.references.unpriced == ()


@pytest.mark.parametrize(
    ("destination", "low", "high"),
    [
        (Destination.TARGET, Fraction(1, 2), Fraction(1, 2)),
        (Destination.HALFWAY, Fraction(11, 20), Fraction(11, 20)),
        (Destination.BAND, Fraction(45, 100), Fraction(55, 100)),
    ],
    ids=["target", "halfway", "band"],
)
def test_goal_is_the_configured_destination(destination: Destination, low: Fraction, high: Fraction) -> None:
    decision = decide(step_input(values=OFF, destination=destination)).decision

    assert isinstance(decision, Rebalance)
    assert decision.goal.weights[0].low == low
    assert decision.goal.weights[0].high == high


def test_target_of_zero_is_not_the_smallest_leg() -> None:
    decision = decide(step_input({"WETH": 5_000, "USDC": 5_000, "DAI": 0}, {"WETH": 500, "USDC": 500, "DAI": 100})).decision

    assert isinstance(decision, Rebalance)
    assert mentions(decision.reason, "DAI", "9.09 %", "9.09 points", "0-0 %")


def test_decide_is_the_same_for_the_same_input() -> None:
    assert decide(step_input(values=OFF)) == decide(step_input(values=OFF))


@pytest.mark.parametrize(("step", "is_known"), [(STEP, True), (without_feed(STEP, "WETH"), False)], ids=["known", "price missing"])
def test_current_drifts_are_those_of_the_decision(step: StepInput, is_known: bool) -> None:
    drifts = current_drifts(step)

    assert drifts == decide(step).drifts
    assert bool(drifts) is is_known


# --- Holds


def test_decide_holds_within_the_bands_and_says_what_is_closest() -> None:
    result = decide(step_input(values={"WETH": 5_300, "USDC": 4_700}))

    assert result.decision == Hold(
        "all within their bands; closest is WETH at 53 %, 2 points from the upper edge of 45-55 %, "
        "left when its price alone rises by more than 8.39 %; checked again in the next cycle"
    )
    assert not result.is_reviewed


def test_due_review_on_target_holds_and_is_done() -> None:
    result = decide(step_input(trigger=Every(DAY_S)))

    assert result.decision == Hold("first review; all exactly on target; nothing to do; next review 2027-01-16 08:00:00 UTC")
    assert result.is_reviewed


@pytest.mark.parametrize(
    ("excess", "is_traded"), [(Fraction(1, 10**6), False), (Fraction(1, 10**4), True)], ids=["dust", "a hundredth of a cent"]
)
def test_due_review__without_min_trade__is_done_at_a_drift_of_rounding(excess: Fraction, is_traded: bool) -> None:
    result = decide(with_limits(step_input(values={"WETH": 5_000 + excess, "USDC": 5_000}, trigger=Every(DAY_S)), min_trade=None))

    assert isinstance(result.decision, Rebalance) is is_traded
    assert result.is_reviewed
    assert is_traded or result.decision.reason.endswith("nothing to do; next review 2027-01-16 08:00:00 UTC")


SMALL_TARGETS = {"WETH": 8_000, "USDC": 2_000}
GAS_STEP = step_input(values={"WETH": 600, "USDC": 400}, trigger=Every(DAY_S))
COOLDOWN_STEP = step_input(values=OFF, trigger=Every(1_800), cooldown_s=7_200, past=history(last_rebalance_s=NOW_S - 1_800))


@pytest.mark.parametrize(
    ("step", "limiting_rule", "terms", "is_reviewed"),
    [
        pytest.param(
            step_input(values=OFF, past=history(last_rebalance_s=NOW_S)), "policy.cooldown", ("WETH", "60 %", "5 points"), False,
            id="cooldown begins",
        ),
        pytest.param(
            step_input(values=OFF, past=history(last_rebalance_s=NOW_S - 3_599)), "policy.cooldown", ("WETH", "60 %", "5 points"), False,
            id="last second of the cooldown",
        ),
        pytest.param(COOLDOWN_STEP, "policy.cooldown", (), False, id="cooldown leaves the review due"),
        pytest.param(
            with_base_fee(GAS_STEP, 100 * GWEI, priority_fee_wei=0), "gas", ("20 times", "600 USDC", "1200 USDC"), False,
            id="gas leaves the review due",
        ),
        pytest.param(
            with_base_fee(step_input(values={"WETH": 600, "USDC": 400}), None, gas_price_wei=100 * GWEI), "gas",
            ("20 times", "600 USDC", "1200 USDC"), False, id="gas price of a node without base fee",
        ),
        pytest.param(
            step_input(values={"WETH": "5009.98", "USDC": "4990.02"}, trigger=Every(DAY_S)), "limits.min_trade",
            ("9.98 USDC", "min_trade 10 USDC"), True, id="correction two cents below min_trade",
        ),
        pytest.param(
            step_input(trigger=HybridTrigger(BAND, Every(DAY_S))), "", ("first review", "WETH", "2027-01-16 08:00:00 UTC"), True,
            id="hybrid due within its bands",
        ),
        pytest.param(step_input(SMALL_TARGETS, {"WETH": 40, "USDC": 10}), "", (), False, id="at the smallest total"),
        pytest.param(
            with_limits(step_input(SMALL_TARGETS, {"WETH": 40, "USDC": "9.99"}), min_trade=None), "", (), False, id="min_trade off",
        ),
    ],
)  # fmt: skip
def test_decide_holds(step: StepInput, limiting_rule: str, terms: tuple[str, ...], is_reviewed: bool) -> None:
    result = decide(step)

    assert isinstance(result.decision, Hold)
    assert result.decision.limiting_rule == limiting_rule
    assert mentions(result.decision.reason, *terms)
    assert result.is_reviewed is is_reviewed


@pytest.mark.parametrize(
    ("blocked", "change"),
    [
        pytest.param(
            step_input(values=OFF, past=history(last_rebalance_s=NOW_S - 3_599)),
            lambda step: replace(step, history=history(last_rebalance_s=NOW_S - 3_600)),
            id="cooldown has wholly passed",
        ),
        pytest.param(with_base_fee(GAS_STEP, 100 * GWEI, priority_fee_wei=0), lambda _: GAS_STEP, id="gas is cheap"),
        pytest.param(
            with_base_fee(GAS_STEP, 100 * GWEI, priority_fee_wei=0), lambda step: with_limits(step, min_trade=None), id="gas, min_trade off"
        ),
        pytest.param(
            step_input(values={"WETH": "5009.98", "USDC": "4990.02"}, trigger=Every(DAY_S)),
            lambda step: with_limits(step, min_trade=None),
            id="min_trade off",
        ),
        pytest.param(
            step_input(values={"WETH": "5009.98", "USDC": "4990.02"}, trigger=Every(DAY_S)),
            lambda _: step_input(values={"WETH": 5_010, "USDC": 4_990}, trigger=Every(DAY_S)),
            id="correction of min_trade",
        ),
    ],
)
def test_hold_becomes_a_rebalance(blocked: StepInput, change: Callable[[StepInput], StepInput]) -> None:
    assert causes(decide(blocked)) != ()

    assert isinstance(decide(change(blocked)).decision, Rebalance)


def test_cooldown_says_when_it_ends() -> None:
    decision = decide(step_input(values=OFF, past=history(last_rebalance_s=NOW_S - 60))).decision

    assert isinstance(decision, Hold)
    assert f"no rebalance follows before {format_time(NOW_S + 3_540)}" in decision.reason


def test_rebalance_of_a_due_schedule_is_its_review() -> None:
    result = decide(step_input(values={"WETH": 5_010, "USDC": 4_990}, trigger=Every(DAY_S)))

    assert isinstance(result.decision, Rebalance)
    assert result.is_reviewed


def test_hybrid_between_reviews_names_the_review_once() -> None:
    result = decide(step_input(values=OFF, trigger=HybridTrigger(BAND, Every(DAY_S)), past=history(last_review_s=NOW_S - 60)))

    assert isinstance(result.decision, Hold)
    assert result.decision.reason.count("next review") == 1
    assert not result.is_reviewed
