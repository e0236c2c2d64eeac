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


def _reason(step: StepInput, kind: type, *codes: str) -> str:
    """Return the reason of a decision of that kind, with exactly these codes of a halt or setting that holds back a trigger."""
    decision = decide(step).decision
    assert isinstance(decision, kind)
    found = decision.codes if isinstance(decision, Halt) else tuple(filter(None, [getattr(decision, "limiting_rule", "")]))
    assert found == codes
    return decision.reason


def _assets(step: StepInput, *assets: Asset) -> StepInput:
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


def test_within_the_bands_it_holds_and_says_what_is_closest_and_when_it_looks_again() -> None:
    decided = decide(step_input(values={"WETH": 5_300, "USDC": 4_700}))
    assert decided.decision == Hold(
        "all within their bands; closest is WETH at 53 %, 2 points from the upper edge of 45-55 %, "
        "left when its price alone rises by more than 8.39 %; checked again in the next cycle"
    )
    assert not decided.is_reviewed


def test_outside_a_band_it_rebalances_all_assets_to_the_target_and_says_which_are_outside() -> None:
    decided = decide(step_input(values=OFF))
    assert isinstance(decided.decision, Rebalance)
    assert mentions(decided.decision.reason, "WETH", "60 %", "5 points", "45-55 %", "USDC", "40 %")
    assert [(w.low, w.high) for w in decided.decision.goal.weights] == [(Fraction(1, 2), Fraction(1, 2))] * 2
    assert [d.weight_bps for d in decided.drifts] == [6_000, 4_000]
    assert decided.references.unpriced == ()


@pytest.mark.parametrize(
    ("destination", "low", "high"),
    [
        (Destination.TARGET, Fraction(1, 2), Fraction(1, 2)),
        (Destination.HALFWAY, Fraction(11, 20), Fraction(11, 20)),
        (Destination.BAND, Fraction(45, 100), Fraction(55, 100)),
    ],
)
def test_the_goal_is_the_configured_destination(destination: Destination, low: Fraction, high: Fraction) -> None:
    decision = decide(step_input(values=OFF, destination=destination)).decision
    assert isinstance(decision, Rebalance)
    assert (decision.goal.weights[0].low, decision.goal.weights[0].high) == (low, high)


def test_the_same_input_gives_the_same_decision() -> None:
    assert decide(step_input(values=OFF)) == decide(step_input(values=OFF))


def test_an_asset_without_a_price_halts_with_the_reason_of_every_source() -> None:
    reason = _reason(without_feed(step_input(values=OFF), "WETH"), Halt, HaltCode.REFERENCE_PRICE)
    assert mentions(reason, "WETH", "feed", "twap", "1800 s")


def test_reports_show_the_drifts_of_the_decision() -> None:
    known, unknown = step_input(values=OFF), without_feed(step_input(values=OFF), "WETH")
    assert current_drifts(known) == decide(known).drifts
    assert current_drifts(unknown) == decide(unknown).drifts == ()


def test_a_stale_feed_halts() -> None:
    step = with_feed(step_input(values=OFF, kinds=[PriceSource.FEED]), "WETH", updated_at_s=NOW_S - 3_601)
    assert mentions(_reason(step, Halt, HaltCode.REFERENCE_PRICE), "WETH", "3601 s", "3600 s")


def test_without_a_configured_source_of_prices_it_halts() -> None:
    assert mentions(_reason(step_input(kinds=[]), Halt, HaltCode.REFERENCE_PRICE), "WETH", "no source")


def test_a_hub_without_a_price_does_not_halt() -> None:
    decided = decide(step_input(hubs=["DAI"]))
    assert isinstance(decided.decision, Hold)
    assert [gap.label for gap in decided.references.unpriced] == ["DAI"]


def test_a_quarantined_token_halts_and_a_quarantined_pool_does_not() -> None:
    step = step_input(values=OFF)
    weth = step.portfolio.assets[0].token.address
    halted = with_snapshot(step, unreadable_items=(UnreadableItem("balance", weth, "out of gas"),))
    assert mentions(_reason(halted, Halt, HaltCode.QUARANTINE), "WETH", "balance: out of gas")
    pool = with_snapshot(step, unreadable_items=(UnreadableItem("pool", step.snapshot.pools[0].address, "reverted"),))
    assert isinstance(decide(pool).decision, Rebalance)


def test_a_balance_that_was_not_read_is_unknown_and_not_zero() -> None:
    step = step_input(values=OFF)
    decided = decide(with_snapshot(step, holdings=step.snapshot.holdings[:1]))
    assert decided.decision == Halt("the balance of USDC was not read", (HaltCode.BALANCE,))
    assert decided.drifts == ()


def test_two_balances_of_one_token_contradict_each_other() -> None:
    step = step_input(values=OFF)
    usdc = step.portfolio.assets[1].token.address
    twice = with_snapshot(step, holdings=(*step.snapshot.holdings, Holding(usdc, 1)))
    assert mentions(_reason(twice, Halt, HaltCode.BALANCE), "USDC", "1 and 4000000000")
    same = with_snapshot(step, holdings=(*step.snapshot.holdings, step.snapshot.holdings[1]))
    assert isinstance(decide(same).decision, Rebalance)


def test_every_fault_is_said_at_once() -> None:
    step = without_feed(step_input(values=OFF), "WETH")
    reason = _reason(with_snapshot(step, holdings=()), Halt, HaltCode.BALANCE, HaltCode.REFERENCE_PRICE)
    assert mentions(reason, "balance of WETH", "balance of USDC")


@pytest.mark.parametrize("field", ["last_rebalance_s", "last_review_s"])
def test_a_store_that_is_ahead_of_the_block_halts(field: str) -> None:
    assert isinstance(decide(step_input(values=OFF, past=history(**{field: NOW_S - DAY_S}))).decision, Rebalance)
    reason = _reason(step_input(values=OFF, past=history(**{field: NOW_S + 1})), Halt, HaltCode.STORE_AHEAD)
    assert mentions(reason, "2027-01-15 08:00:01 UTC", "2027-01-15 08:00:00 UTC")


def test_targets_that_do_not_sum_to_the_whole_or_are_negative_halt() -> None:
    assert "9999 bps" in _reason(step_input({"WETH": 5_000, "USDC": 4_999}), Halt, HaltCode.TARGETS)
    assert "10000 bps" in _reason(step_input({"WETH": 10_001, "USDC": -1}, OFF), Halt, HaltCode.TARGETS)


def test_an_asset_listed_twice_halts() -> None:
    step = step_input(values=OFF)
    weth, usdc = step.portfolio.assets
    half = replace(weth, target_bps=2_500)
    assert mentions(_reason(_assets(step, half, half, usdc), Halt, HaltCode.ASSETS), "WETH", "2 times")


def test_one_asset_is_no_portfolio_and_thirteen_are_a_warning() -> None:
    step = step_input()
    assert mentions(_reason(_assets(step, step.portfolio.assets[0]), Halt, HaltCode.ASSETS), "at least 2", "has 1")
    assert minimum.size_warnings(step.portfolio) == ()
    many = tuple(Asset(token(f"T{i}"), 769, 0) for i in range(13))
    assert mentions(minimum.size_warnings(replace(step.portfolio, assets=many))[0], "13 assets", "12")
    assert minimum.size_warnings(replace(step.portfolio, assets=many[:12])) == ()


@pytest.mark.parametrize("trigger", [Every(DAY_S), Cron("0 9 * * *", "UTC")])
def test_a_band_as_destination_of_a_trigger_without_one_halts(trigger: Every | Cron) -> None:
    step = step_input(values=OFF, trigger=trigger, destination=Destination.BAND)
    assert _reason(step, Halt, HaltCode.DESTINATION)
    hybrid = step_input(values=OFF, trigger=HybridTrigger(Threshold(None, 1_000), trigger), destination=Destination.BAND)
    assert isinstance(decide(hybrid).decision, Rebalance)


def test_an_empty_wallet_and_one_where_all_is_reserved_halt_with_different_words() -> None:
    empty = _reason(step_input(values={"WETH": 0, "USDC": 0}), Halt, HaltCode.EMPTY)
    reserved = step_input(values={"WETH": 0, "USDC": 0}, reserves={"WETH": 1})
    assert _reason(reserved, Halt, HaltCode.EMPTY) != empty


def test_a_portfolio_below_the_minimum_halts_with_the_smallest_total_that_would_work() -> None:
    targets = {"WETH": 8_000, "USDC": 2_000}
    small = step_input(targets, {"WETH": 40, "USDC": "9.99"})
    assert mentions(_reason(small, Halt, HaltCode.MIN_TRADE), "49.99 USDC", "min_trade 10 USDC", "50 USDC")
    assert isinstance(decide(step_input(targets, {"WETH": 40, "USDC": 10})).decision, Hold)
    assert isinstance(decide(with_limits(small, min_trade=None)).decision, Hold)


def test_a_target_of_zero_does_not_count_as_the_smallest_leg() -> None:
    step = step_input({"WETH": 5_000, "USDC": 5_000, "DAI": 0}, {"WETH": 500, "USDC": 500, "DAI": 100})
    assert mentions(_reason(step, Rebalance), "DAI", "9.09 %", "9.09 points", "0-0 %")


def test_while_gas_is_too_dear_for_the_smallest_leg_it_holds_and_the_review_stays_due() -> None:
    step = step_input(values={"WETH": 600, "USDC": 400}, trigger=Every(DAY_S))
    assert isinstance(decide(step).decision, Rebalance)
    dear = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=100 * GWEI), priority_fee_wei=0)
    decided = decide(dear)
    assert isinstance(decided.decision, Hold)
    assert decided.decision.limiting_rule == "gas"
    assert mentions(decided.decision.reason, "20 times", "600 USDC", "1200 USDC")
    assert not decided.is_reviewed
    assert isinstance(decide(with_limits(dear, min_trade=None)).decision, Rebalance)


def test_without_eip_1559_the_nodes_gas_price_counts() -> None:
    step = step_input(values={"WETH": 600, "USDC": 400})
    legacy = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=None), gas_price_wei=100 * GWEI)
    assert mentions(_reason(legacy, Hold, "gas"), "20 times", "600 USDC", "1200 USDC")


def test_where_native_coin_has_no_price_gas_is_left_to_the_guards() -> None:
    step = step_input({"WBTC": 5_000, "USDC": 5_000}, {"WBTC": 600, "USDC": 400})
    dear = with_snapshot(step, head=replace(step.snapshot.head, base_fee_wei=10**6 * GWEI))
    assert isinstance(decide(dear).decision, Rebalance)


@pytest.mark.parametrize(("ago_s", "kind"), [(0, Hold), (3_599, Hold), (3_600, Rebalance)])
def test_the_cooldown_since_the_last_rebalance_holds_until_it_has_wholly_passed(ago_s: int, kind: type) -> None:
    decided = decide(step_input(values=OFF, past=history(last_rebalance_s=NOW_S - ago_s)))
    assert isinstance(decided.decision, kind)
    if isinstance(decided.decision, Hold):
        assert decided.decision.next_evaluation_s == NOW_S - ago_s + 3_600
        assert mentions(decided.decision.reason, "WETH", "60 %", "5 points")
        assert decided.decision.limiting_rule == "policy.cooldown"


def test_a_review_does_not_start_a_cooldown_but_a_cooldown_leaves_the_review_due() -> None:
    assert isinstance(decide(step_input(values=OFF, past=history(last_review_s=NOW_S - 60))).decision, Rebalance)
    step = step_input(values=OFF, trigger=Every(1_800), cooldown_s=7_200, past=history(last_rebalance_s=NOW_S - 1_800))
    decided = decide(step)
    assert isinstance(decided.decision, Hold)
    assert not decided.is_reviewed


def test_a_due_review_that_finds_nothing_to_do_holds_and_counts_as_done() -> None:
    decided = decide(step_input(trigger=Every(DAY_S)))
    assert decided.decision == Hold(
        "first review; all exactly on target; nothing to do; next review 2027-01-16 08:00:00 UTC", NOW_S + DAY_S
    )
    assert decided.is_reviewed


def test_corrections_below_the_smallest_trade_are_left_and_the_review_counts_as_done() -> None:
    step = step_input(values={"WETH": "5009.98", "USDC": "4990.02"}, trigger=Every(DAY_S))
    decided = decide(step)
    assert isinstance(decided.decision, Hold)
    assert mentions(decided.decision.reason, "9.98 USDC", "min_trade 10 USDC")
    assert decided.decision.limiting_rule == "limits.min_trade"
    assert decided.is_reviewed
    for acts in (with_limits(step, min_trade=None), step_input(values={"WETH": 5_010, "USDC": 4_990}, trigger=Every(DAY_S))):
        assert isinstance(decide(acts).decision, Rebalance)
        assert decide(acts).is_reviewed


def test_a_hybrid_that_is_due_within_the_bands_holds_counts_as_done_and_names_the_next_review() -> None:
    decided = decide(step_input(trigger=HybridTrigger(Threshold(None, 1_000), Every(DAY_S))))
    assert isinstance(decided.decision, Hold)
    assert decided.is_reviewed
    assert mentions(decided.decision.reason, "first review", "WETH")
    assert mentions(decided.decision.reason, "2027-01-16 08:00:00 UTC")


def test_a_hybrid_between_reviews_holds_outside_its_band_and_names_the_review_once() -> None:
    step = step_input(values=OFF, trigger=HybridTrigger(Threshold(None, 1_000), Every(DAY_S)), past=history(last_review_s=NOW_S - 60))
    decided = decide(step)
    assert isinstance(decided.decision, Hold)
    assert decided.decision.reason.count("next review") == 1
    assert not decided.is_reviewed


def test_a_cron_expression_that_is_none_is_a_config_error() -> None:
    with raises_field("policy.trigger.cron", "'0 9'", "2 fields"):
        decide(step_input(trigger=Cron("0 9", "UTC")))


def test_the_feed_of_the_asset_and_not_of_its_namesake_is_asked() -> None:
    step = step_input(values=OFF, kinds=[PriceSource.FEED])
    weth, usdc = step.portfolio.assets
    moved = _assets(step, replace(weth, feed=feed_address("OTHER")), usdc)
    assert mentions(_reason(moved, Halt, HaltCode.REFERENCE_PRICE), "feed", "WETH", "not read")
