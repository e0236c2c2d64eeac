"""Decide: halts on anything unknown, holds with a reason, rebalances when a trigger fires, and always says which and why."""

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
from tests.support.text import mentions, raises_field

DAY_S = 86_400
OFF = {"WETH": 6_000, "USDC": 4_000}


def reason_of(step: StepInput, kind: type, *codes: str) -> str:
    """Return the reason of a decision of that kind, with exactly these codes of a halt or setting that holds back a trigger."""
    decision = decide(step).decision
    assert isinstance(decision, kind)
    decision_codes = decision.codes if isinstance(decision, Halt) else tuple(filter(None, [getattr(decision, "limiting_rule", "")]))
    assert decision_codes == codes
    return decision.reason


def with_assets(step: StepInput, *assets: Asset) -> StepInput:
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


def test_decide_holds_within_the_bands_and_says_what_is_closest() -> None:
    decision_result = decide(step_input(values={"WETH": 5_300, "USDC": 4_700}))
    assert decision_result.decision == Hold(
        "all within their bands; closest is WETH at 53 %, 2 points from the upper edge of 45-55 %, "
        "left when its price alone rises by more than 8.39 %; checked again in the next cycle"
    )
    assert not decision_result.is_reviewed


def test_decide_rebalances_all_assets_outside_a_band() -> None:
    decision_result = decide(step_input(values=OFF))
    assert isinstance(decision_result.decision, Rebalance)
    assert mentions(decision_result.decision.reason, "WETH", "60 %", "5 points", "45-55 %", "USDC", "40 %")
    assert [(w.low, w.high) for w in decision_result.decision.goal.weights] == [(Fraction(1, 2), Fraction(1, 2))] * 2
    assert [d.weight_bps for d in decision_result.drifts] == [6_000, 4_000]
    assert decision_result.references.unpriced == ()


@pytest.mark.parametrize(
    ("destination", "low", "high"),
    [
        (Destination.TARGET, Fraction(1, 2), Fraction(1, 2)),
        (Destination.HALFWAY, Fraction(11, 20), Fraction(11, 20)),
        (Destination.BAND, Fraction(45, 100), Fraction(55, 100)),
    ],
)
def test_goal_is_the_configured_destination(destination: Destination, low: Fraction, high: Fraction) -> None:
    decision = decide(step_input(values=OFF, destination=destination)).decision
    assert isinstance(decision, Rebalance)
    assert (decision.goal.weights[0].low, decision.goal.weights[0].high) == (low, high)


def test_decide_is_the_same_for_the_same_input() -> None:
    assert decide(step_input(values=OFF)) == decide(step_input(values=OFF))


def test_decide_halts_without_a_price_and_names_every_source() -> None:
    reason = reason_of(without_feed(step_input(values=OFF), "WETH"), Halt, HaltCode.REFERENCE_PRICE)
    assert mentions(reason, "WETH", "feed", "twap", "1800 s")


def test_current_drifts_are_those_of_the_decision() -> None:
    known, unknown = step_input(values=OFF), without_feed(step_input(values=OFF), "WETH")
    assert current_drifts(known) == decide(known).drifts
    assert current_drifts(unknown) == decide(unknown).drifts == ()


def test_decide_halts_on_a_stale_feed() -> None:
    step = with_feed(step_input(values=OFF, kinds=[PriceSource.FEED]), "WETH", updated_at_s=NOW_S - 3_601)
    assert mentions(reason_of(step, Halt, HaltCode.REFERENCE_PRICE), "WETH", "3601 s", "3600 s")


def test_decide_halts_without_a_source_of_prices() -> None:
    assert mentions(reason_of(step_input(kinds=[]), Halt, HaltCode.REFERENCE_PRICE), "WETH", "no source")


def test_decide_needs_no_price_of_a_hub() -> None:
    decision_result = decide(step_input(hubs=["DAI"]))
    assert isinstance(decision_result.decision, Hold)
    assert [gap.label for gap in decision_result.references.unpriced] == ["DAI"]


def test_decide_halts_for_an_unreadable_token_but_not_a_pool() -> None:
    step = step_input(values=OFF)
    weth = step.portfolio.assets[0].token.address
    halted = with_snapshot(step, unreadable_items=(UnreadableItem("balance", weth, "out of gas"),))
    assert mentions(reason_of(halted, Halt, HaltCode.QUARANTINE), "WETH", "balance: out of gas")
    pool = with_snapshot(step, unreadable_items=(UnreadableItem("pool", step.snapshot.pools[0].address, "reverted"),))
    assert isinstance(decide(pool).decision, Rebalance)


def test_decide_halts_on_a_balance_that_was_not_read() -> None:
    step = step_input(values=OFF)
    decision_result = decide(with_snapshot(step, holdings=step.snapshot.holdings[:1]))
    assert decision_result.decision == Halt("the balance of USDC was not read", (HaltCode.BALANCE,))
    assert decision_result.drifts == ()


def test_decide_halts_on_contradicting_balances() -> None:
    step = step_input(values=OFF)
    usdc = step.portfolio.assets[1].token.address
    twice = with_snapshot(step, holdings=(*step.snapshot.holdings, Holding(usdc, 1)))
    assert mentions(reason_of(twice, Halt, HaltCode.BALANCE), "USDC", "1 and 4000000000")
    same = with_snapshot(step, holdings=(*step.snapshot.holdings, step.snapshot.holdings[1]))
    assert isinstance(decide(same).decision, Rebalance)


def test_decide_names_every_fault_at_once() -> None:
    step = without_feed(step_input(values=OFF), "WETH")
    reason = reason_of(with_snapshot(step, holdings=()), Halt, HaltCode.BALANCE, HaltCode.REFERENCE_PRICE)
    assert mentions(reason, "balance of WETH", "balance of USDC")


@pytest.mark.parametrize("field", ["last_rebalance_s", "last_review_s"])
def test_decide_halts_on_a_store_ahead_of_the_block(field: str) -> None:
    assert isinstance(decide(step_input(values=OFF, past=history(**{field: NOW_S - DAY_S}))).decision, Rebalance)
    reason = reason_of(step_input(values=OFF, past=history(**{field: NOW_S + 1})), Halt, HaltCode.STORE_AHEAD)
    assert mentions(reason, "2027-01-15 08:00:01 UTC", "2027-01-15 08:00:00 UTC")


def test_decide_halts_on_targets_that_do_not_sum_up() -> None:
    assert "9999 bps" in reason_of(step_input({"WETH": 5_000, "USDC": 4_999}), Halt, HaltCode.TARGETS)
    assert "10000 bps" in reason_of(step_input({"WETH": 10_001, "USDC": -1}, OFF), Halt, HaltCode.TARGETS)


def test_decide_halts_on_an_asset_listed_twice() -> None:
    step = step_input(values=OFF)
    weth, usdc = step.portfolio.assets
    half = replace(weth, target_bps=2_500)
    assert mentions(reason_of(with_assets(step, half, half, usdc), Halt, HaltCode.ASSETS), "WETH", "2 times")


def test_decide_needs_two_assets_and_warns_of_thirteen() -> None:
    step = step_input()
    assert mentions(reason_of(with_assets(step, step.portfolio.assets[0]), Halt, HaltCode.ASSETS), "at least 2", "has 1")
    assert minimum.size_warnings(step.portfolio) == ()
    many = tuple(Asset(token(f"T{i}"), 769, 0) for i in range(13))
    assert mentions(minimum.size_warnings(replace(step.portfolio, assets=many))[0], "13 assets", "12")
    assert minimum.size_warnings(replace(step.portfolio, assets=many[:12])) == ()


@pytest.mark.parametrize("trigger", [Every(DAY_S), Cron("0 9 * * *", "UTC")])
def test_decide_halts_on_a_band_destination_without_a_band(trigger: Every | Cron) -> None:
    step = step_input(values=OFF, trigger=trigger, destination=Destination.BAND)
    assert reason_of(step, Halt, HaltCode.DESTINATION)
    hybrid = step_input(values=OFF, trigger=HybridTrigger(Threshold(None, 1_000), trigger), destination=Destination.BAND)
    assert isinstance(decide(hybrid).decision, Rebalance)


def test_decide_halts_differently_for_empty_and_reserved() -> None:
    empty = reason_of(step_input(values={"WETH": 0, "USDC": 0}), Halt, HaltCode.EMPTY)
    reserved = step_input(values={"WETH": 0, "USDC": 0}, reserves={"WETH": 1})
    assert reason_of(reserved, Halt, HaltCode.EMPTY) != empty


def test_decide_halts_below_the_smallest_total() -> None:
    targets = {"WETH": 8_000, "USDC": 2_000}
    small = step_input(targets, {"WETH": 40, "USDC": "9.99"})
    assert mentions(reason_of(small, Halt, HaltCode.MIN_TRADE), "49.99 USDC", "min_trade 10 USDC", "50 USDC")
    assert isinstance(decide(step_input(targets, {"WETH": 40, "USDC": 10})).decision, Hold)
    assert isinstance(decide(with_limits(small, min_trade=None)).decision, Hold)


def test_target_of_zero_is_not_the_smallest_leg() -> None:
    step = step_input({"WETH": 5_000, "USDC": 5_000, "DAI": 0}, {"WETH": 500, "USDC": 500, "DAI": 100})
    assert mentions(reason_of(step, Rebalance), "DAI", "9.09 %", "9.09 points", "0-0 %")


def test_decide_holds_for_gas_and_the_review_stays_due() -> None:
    step = step_input(values={"WETH": 600, "USDC": 400}, trigger=Every(DAY_S))
    assert isinstance(decide(step).decision, Rebalance)
    costly_step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=100 * GWEI), priority_fee_wei=0)
    decision_result = decide(costly_step)
    assert isinstance(decision_result.decision, Hold)
    assert decision_result.decision.limiting_rule == "gas"
    assert mentions(decision_result.decision.reason, "20 times", "600 USDC", "1200 USDC")
    assert not decision_result.is_reviewed
    assert isinstance(decide(with_limits(costly_step, min_trade=None)).decision, Rebalance)


def test_gas_price_of_the_node_counts_without_eip_1559() -> None:
    step = step_input(values={"WETH": 600, "USDC": 400})
    legacy = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=None), gas_price_wei=100 * GWEI)
    assert mentions(reason_of(legacy, Hold, "gas"), "20 times", "600 USDC", "1200 USDC")


def test_decide_leaves_gas_to_guards_without_a_native_price() -> None:
    step = step_input({"WBTC": 5_000, "USDC": 5_000}, {"WBTC": 600, "USDC": 400})
    costly_step = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=10**6 * GWEI))
    assert isinstance(decide(costly_step).decision, Rebalance)


@pytest.mark.parametrize(("ago_s", "kind"), [(0, Hold), (3_599, Hold), (3_600, Rebalance)])
def test_cooldown_holds_until_it_has_wholly_passed(ago_s: int, kind: type) -> None:
    decision_result = decide(step_input(values=OFF, past=history(last_rebalance_s=NOW_S - ago_s)))
    assert isinstance(decision_result.decision, kind)
    if isinstance(decision_result.decision, Hold):
        assert decision_result.decision.next_evaluation_s == NOW_S - ago_s + 3_600
        assert mentions(decision_result.decision.reason, "WETH", "60 %", "5 points")
        assert decision_result.decision.limiting_rule == "policy.cooldown"


def test_cooldown_leaves_the_review_due() -> None:
    assert isinstance(decide(step_input(values=OFF, past=history(last_review_s=NOW_S - 60))).decision, Rebalance)
    step = step_input(values=OFF, trigger=Every(1_800), cooldown_s=7_200, past=history(last_rebalance_s=NOW_S - 1_800))
    decision_result = decide(step)
    assert isinstance(decision_result.decision, Hold)
    assert not decision_result.is_reviewed


def test_due_review_on_target_holds_and_is_done() -> None:
    decision_result = decide(step_input(trigger=Every(DAY_S)))
    assert decision_result.decision == Hold(
        "first review; all exactly on target; nothing to do; next review 2027-01-16 08:00:00 UTC", NOW_S + DAY_S
    )
    assert decision_result.is_reviewed


def test_corrections_below_min_trade_hold_and_are_reviewed() -> None:
    step = step_input(values={"WETH": "5009.98", "USDC": "4990.02"}, trigger=Every(DAY_S))
    decision_result = decide(step)
    assert isinstance(decision_result.decision, Hold)
    assert mentions(decision_result.decision.reason, "9.98 USDC", "min_trade 10 USDC")
    assert decision_result.decision.limiting_rule == "limits.min_trade"
    assert decision_result.is_reviewed
    for acting_step in (with_limits(step, min_trade=None), step_input(values={"WETH": 5_010, "USDC": 4_990}, trigger=Every(DAY_S))):
        assert isinstance(decide(acting_step).decision, Rebalance)
        assert decide(acting_step).is_reviewed


def test_due_hybrid_within_its_bands_is_a_reviewed_hold() -> None:
    decision_result = decide(step_input(trigger=HybridTrigger(Threshold(None, 1_000), Every(DAY_S))))
    assert isinstance(decision_result.decision, Hold)
    assert decision_result.is_reviewed
    assert mentions(decision_result.decision.reason, "first review", "WETH")
    assert mentions(decision_result.decision.reason, "2027-01-16 08:00:00 UTC")


def test_hybrid_between_reviews_names_the_review_once() -> None:
    step = step_input(values=OFF, trigger=HybridTrigger(Threshold(None, 1_000), Every(DAY_S)), past=history(last_review_s=NOW_S - 60))
    decision_result = decide(step)
    assert isinstance(decision_result.decision, Hold)
    assert decision_result.decision.reason.count("next review") == 1
    assert not decision_result.is_reviewed


def test_decide_refuses_a_cron_expression_of_two_fields() -> None:
    with raises_field("policy.trigger.cron", "'0 9'", "2 fields"):
        decide(step_input(trigger=Cron("0 9", "UTC")))


def test_decide_reads_the_feed_of_the_asset() -> None:
    step = step_input(values=OFF, kinds=[PriceSource.FEED])
    weth, usdc = step.portfolio.assets
    step_with_other_feed = with_assets(step, replace(weth, feed=feed_address("OTHER")), usdc)
    assert mentions(reason_of(step_with_other_feed, Halt, HaltCode.REFERENCE_PRICE), "feed", "WETH", "not read")
