"""Rounds of feeds that count and that do not: bounds, beginnings, rounds that fall, ages of their own; and a rollup's sequencer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.model import FeedRound, Halt, PastPrices, PriceSource, StepInput, UnreadableItem
from agent.policy.decide import decide
from agent.reference import price_inputs, prices_from, reference_prices, sequencer_fault
from tests.support.builders import NOW_S, address, feed_address, feed_round, price_of, step_input, with_feed, with_snapshot
from tests.support.plans import sell_weth, verdict
from tests.support.text import mentions
from tests.support.tokens import WETH

FEED = [PriceSource.FEED]
UPTIME = address("sequencer uptime feed")
GRACE_S = 3_600


def why(step: StepInput) -> str:
    """Why WETH has no price; empty when it has one."""
    return next((gap.why for gap in reference_prices(step).unpriced if gap.token == WETH.address), "")


@pytest.mark.parametrize(
    ("answer", "bounds", "reason"),
    [
        pytest.param(101, (100, None), "", id="above the minimum"),
        pytest.param(100, (100, None), "answers 100, its minimum answer is 100", id="at the minimum"),
        pytest.param(99, (100, 200), "answers 99, its minimum answer is 100", id="below the minimum"),
        pytest.param(199, (100, 200), "", id="below the maximum"),
        pytest.param(200, (100, 200), "answers 200, its maximum answer is 200", id="at the maximum"),
        pytest.param(201, (None, 200), "answers 201, its maximum answer is 200", id="above the maximum"),
        pytest.param(10**30, (None, None), "", id="no bounds"),
    ],
)
def test_answer_at_or_beyond_its_bound__is_no_price(answer: int, bounds: tuple[int | None, int | None], reason: str) -> None:
    step = with_feed(step_input(kinds=FEED), "WETH", answer=answer, min_answer=bounds[0], max_answer=bounds[1])
    assert (reason in why(step)) if reason else why(step) == ""
    judged = verdict("feed_health", step, sell_weth(step_input()))
    assert judged.passed is (reason == "")
    assert reason in judged.measured_text


def test_a_round_that_never_began_is_none() -> None:
    assert "unfinished round 7" in why(with_feed(step_input(kinds=FEED), "WETH", started_at_s=0))
    assert "5 s" in why(with_feed(step_input(kinds=FEED), "WETH", started_at_s=NOW_S + 5))


def past(step: StepInput, back: int, *feeds: FeedRound) -> PastPrices:
    head = step.snapshot.head
    return PastPrices(replace(head, number=head.number - back, hash=f"0x{back:064x}", timestamp_s=NOW_S - 12 * back), feeds, ())


def test_a_round_lower_than_one_of_an_earlier_block_is_no_price() -> None:
    step = step_input(kinds=FEED)
    same, higher = (past(step, 1, feed_round("WETH", 2_000, round_id=number)) for number in (7, 8))
    assert why(with_snapshot(step, past_prices=(same,))) == ""
    assert mentions(why(with_snapshot(step, past_prices=(higher,))), "round 8", "999", "round 7")
    assert mentions(why(with_snapshot(step, past_prices=(same, replace(higher, head=past(step, 2).head)))), "round 8", "998", "round 7")
    for other in (feed_round("USDC", 1, round_id=6), feed_round("LINK", 1, round_id=8)):
        assert why(with_snapshot(step, past_prices=(past(step, 1, other),))) == ""


def test_rounds_of_a_later_block_are_no_past_of_an_earlier_one() -> None:
    step = step_input(kinds=FEED)
    later = past(step, 1, feed_round("WETH", 2_000, round_id=8))
    then = past(step, 2, feed_round("WETH", 1_000, updated_at_s=NOW_S - 30), feed_round("USDC", 1, updated_at_s=NOW_S - 30))
    inputs = price_inputs(with_snapshot(step, past_prices=(later, then)))
    assert WETH.address in prices_from(inputs.at_block(then)).reference_by_token


@pytest.mark.parametrize(
    ("numeraire_age_s", "ages"),
    [
        pytest.param(500, "100 s old; that of USDC 500 s old", id="numeraire's older"),
        pytest.param(100, "100 s old", id="as old"),
        pytest.param(20, "100 s old", id="numeraire's newer"),
    ],
)
def test_price_source__names_the_age_of_its_round_and_an_older_one(numeraire_age_s: int, ages: str) -> None:
    step = with_feed(with_feed(step_input(kinds=FEED), "WETH", updated_at_s=NOW_S - 100), "USDC", updated_at_s=NOW_S - numeraire_age_s)
    detail = reference_prices(step).reference_by_token[WETH.address].detail
    assert detail == f"round 7 of feed {feed_address('WETH')}, {ages}"


def test_earlier_block_s_price__is_of_its_own_rounds_and_time() -> None:
    step = step_input(kinds=FEED)
    then = past(step, 2, feed_round("WETH", 1_000, updated_at_s=NOW_S - 30), feed_round("USDC", 1, updated_at_s=NOW_S - 30))
    assert (
        prices_from(price_inputs(step).at_block(then)).reference_by_token[WETH.address].price * 2
        == reference_prices(step).reference_by_token[WETH.address].price
    )
    later = past(step, 2, feed_round("WETH", 1_000, updated_at_s=NOW_S - 23), feed_round("USDC", 1))
    assert WETH.address not in prices_from(price_inputs(step).at_block(later)).reference_by_token  # a second after that block


def test_a_feed_may_have_an_age_of_its_own() -> None:
    plain = with_feed(step_input(kinds=FEED), "WETH", updated_at_s=NOW_S - 601)
    tight = replace(plain, reference=replace(plain.reference, max_age_s_by_feed=((feed_address("WETH"), 600),)))
    assert why(plain) == ""
    assert mentions(why(tight), "601 s", "600 s")
    assert verdict("feed_health", plain, sell_weth(step_input())).passed
    judged = verdict("feed_health", tight, sell_weth(step_input()))
    assert not judged.passed
    assert mentions(judged.measured_text, "601 s", "WETH", "600 s")


def rollup(*rounds: FeedRound, grace_s: int = GRACE_S) -> StepInput:
    """A portfolio that is off its targets, on a chain whose sequencer has an uptime feed."""
    step = step_input(values={"WETH": 7_000, "USDC": 3_000}, kinds=FEED)
    step = replace(step, reference=replace(step.reference, sequencer_feed=UPTIME, sequencer_grace_s=grace_s))
    return with_snapshot(step, feeds=(*step.snapshot.feeds, *rounds))


def uptime(answer: int, since_s: int) -> FeedRound:
    return FeedRound(UPTIME, 0, 3, answer, NOW_S - since_s, NOW_S - since_s, 3)


@pytest.mark.parametrize(
    ("feed_round", "reason"),
    [
        (uptime(0, GRACE_S), ""),
        (uptime(0, 400 * 86_400), ""),
        (uptime(0, GRACE_S - 1), "the sequencer has been up again for only 3599 s, reference.sequencer_grace is 3600 s"),
        (uptime(1, 10_000), "the sequencer has been down for 10000 s"),
        (replace(uptime(0, GRACE_S - 1), updated_at_s=NOW_S - GRACE_S), "up again for only 3599 s"),
        (replace(uptime(0, GRACE_S), updated_at_s=NOW_S - 1), ""),
        (uptime(0, -1), "dated 1 s after the block"),
        (uptime(2, 10_000), "returned 2"),
        (uptime(-1, 10_000), "returned -1"),
        (replace(uptime(0, 10_000), started_at_s=0), "no round yet"),
    ],
)
def test_sequencer_down_or_just_back__trades_nothing_and_says_so(feed_round: FeedRound, reason: str) -> None:
    step = rollup(feed_round)
    decision = decide(step).decision
    assert isinstance(decision, Halt) is bool(reason)
    assert reason in decision.reason
    judged = verdict("sequencer", step, sell_weth(step_input()))
    assert judged.passed is (reason == "")
    assert reason in judged.measured_text


def test_unread_uptime_feed__halts_and_none_at_all_does_not() -> None:
    silent = rollup()
    assert mentions(sequencer_fault(silent.snapshot, silent.reference), "uptime feed")
    named = with_snapshot(silent, unreadable_items=(UnreadableItem("round of feed", UPTIME, "the call reverted"),))
    assert "call reverted" in sequencer_fault(named.snapshot, named.reference)
    assert isinstance(decide(named).decision, Halt)
    assert sequencer_fault(step_input().snapshot, step_input().reference) == ""
    assert verdict("sequencer", step_input(), sell_weth(step_input())).limit == "off"
    assert price_of("WETH") == 2_000
