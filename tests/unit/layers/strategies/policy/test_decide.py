"""Several strategies over one wallet: each acts by its own trigger, what cancels stays inside, the market sees one goal of the rest."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from agent import codec
from agent.app.alerting import RunFacts
from agent.app.alerting import cycle_alerts as alerts
from agent.execution.step_context import OutcomeKind, StepOutcome
from agent.layers.inputs import apply_effective_targets
from agent.layers.strategies.policy import accounting, netting
from agent.layers.strategies.policy.capital import target_capital_shares
from agent.layers.strategies.policy.decide import StrategiesResult
from agent.layers.strategies.policy.netting import strategy_drifts
from agent.layers.strategies.state import CapitalSplit, StrategiesState, StrategyHealth, StrategyLedger, StrategyState
from agent.model import Destination, Every, Halt, HaltCode, Hold, Rebalance, StepInput
from agent.planning import proposals
from agent.policy.decide import current_drifts, decide
from agent.policy.decision import DecisionResult
from tests.support.builders import (
    NOW_S,
    balances,
    books_of,
    brought_up,
    opening,
    split,
    step_input,
    strategy,
    strategy_coins,
    token,
    with_state,
)
from tests.support.text import mentions

HALF = {"WETH": 5_000, "USDC": 5_000}
UP = {"WETH": 8_000, "USDC": 2_000}
DOWN = {"WETH": 2_000, "USDC": 8_000}
WETH = token("WETH").address
USDC = token("USDC").address


def shared(*parts: object, ledger: StrategyLedger | None = None, **step: object) -> StepInput:
    """A wallet of 5,000 USDC and 2.5 WETH at 2,000 that these strategies share."""
    plain_step = step_input(**step)  # type: ignore[arg-type]  # keywords of the builder
    return brought_up(plain_step.with_config(split(*parts)), ledger)  # type: ignore[arg-type]  # strategies


def view_of(decision_result: DecisionResult) -> netting.NettingResult:
    netting_result = decision_result.layer(StrategiesResult).netting
    assert netting_result is not None
    return netting_result


def shares(goal: netting.Goal) -> dict[str, Fraction]:
    return {weight.token: weight.low for weight in goal.weights}


def test_cancelling_wishes__are_exchanged_inside_and_not_traded() -> None:
    step = shared(strategy("up", 5_000, UP), strategy("down", 5_000, DOWN))
    decision_result = decide(step)
    assert isinstance(decision_result.decision, Hold), decision_result.decision
    assert decision_result.layer(StrategiesResult).is_netting_only
    assert proposals.propose_rebalance(step).plan is None
    assert [netted_token.net_value for netted_token in view_of(decision_result).netted_tokens] == [0, 0]
    assert [netted_token.crossed_value for netted_token in view_of(decision_result).netted_tokens] == [1_500 * 10**6] * 2
    assert view_of(decision_result).crossed_value == 1_500 * 10**6
    assert view_of(decision_result).saved_fees == 1_500 * 10**6 * Fraction(3_000, 10**6), "the pool charges 0.3 %"
    assert "1500 USDC" in decision_result.decision.reason
    assert "never in" in decision_result.decision.reason
    booking = accounting.netting_booking(step, "s1", netting.strategy_adjustments)
    assert booking is not None
    assert set(booking.requesters) == {"up", "down"}
    after = brought_up(step, replace(StrategyLedger(), bookings=(*books_of(step).unstored_bookings, booking)))
    assert (strategy_coins(after, "up", "WETH"), strategy_coins(after, "up", "USDC")) == (2, 1_000)
    assert (strategy_coins(after, "down", "WETH"), strategy_coins(after, "down", "USDC")) == (Fraction(1, 2), 4_000)
    assert isinstance(decide(after).decision, Hold)
    assert not decide(after).layer(StrategiesResult).is_netting_only


def test_market__sees_the_rest_and_the_goal_is_that_of_all() -> None:
    step = shared(strategy("up", 7_000, UP), strategy("down", 3_000, DOWN), depth=100_000_000)
    proposal = proposals.propose_rebalance(step)
    assert isinstance(proposal.decision_result.decision, Rebalance)
    wished = {netted_token.token: netted_token for netted_token in view_of(proposal.decision_result).netted_tokens}
    assert wished[WETH].bought_value == 2_100 * 10**6
    assert wished[WETH].sold_value == 900 * 10**6
    assert shares(proposal.decision_result.decision.goal) == {WETH: Fraction(62, 100), USDC: Fraction(38, 100)}
    assert proposal.plan is not None
    assert abs(proposal.plan.turnover - 1_200 * 10**6) < 10 * 10**6, "2,100 are wanted, 900 come from inside"
    assert "900 USDC" in proposal.decision_result.decision.reason


def test_who_does_not_act_keeps_what_it_has() -> None:
    """One is far off and rests, one is within its band: only the third is traded for."""
    books = opening({"rests": {"WETH": 1, "USDC": 0}, "calm": {"WETH": "0.5", "USDC": 1_000}, "acts": {"WETH": 1, "USDC": 4_000}})
    parts = (strategy("rests", 2_000, HALF, cooldown_s=10**9), strategy("calm", 2_000, HALF), strategy("acts", 6_000, HALF))
    step = brought_up(step_input().with_config(split(*parts, relative_bps=10_000)), books)
    rested = replace(books_of(step).by_name["rests"], last_rebalance_s=NOW_S - 10)
    others = tuple(rested if strategy_book.name == "rests" else strategy_book for strategy_book in books_of(step).strategy_books)
    step = step.with_layer(StrategiesState(replace(books_of(step), strategy_books=others)))
    decision_result = decide(step)
    by_name = {adjustment.name: adjustment for adjustment in view_of(decision_result).adjustments}
    assert [by_name[name].acts for name in ("rests", "calm", "acts")] == [False, False, True]
    assert "not before" in by_name["rests"].reason
    assert isinstance(decision_result.decision, Rebalance)
    assert by_name["acts"].values_to_trade == {WETH: 1_000 * 10**6, USDC: -1_000 * 10**6}
    assert shares(decision_result.decision.goal) == {WETH: Fraction(6, 10), USDC: Fraction(4, 10)}


def test_each_goes_by_its_own_trigger_and_destination() -> None:
    halfway = strategy("halfway", 5_000, UP, destination=Destination.HALFWAY)
    edge = strategy("edge", 5_000, UP, destination=Destination.BAND)
    wished = {adjustment.name: dict(adjustment.target_values) for adjustment in view_of(decide(shared(halfway, edge))).adjustments}
    assert wished["halfway"] == {WETH: 3_250 * 10**6, USDC: 1_750 * 10**6}
    assert wished["edge"] == {WETH: 3_900 * 10**6, USDC: 1_100 * 10**6}, "72 % would do for WETH, but 22 % is the most for USDC"


def test_a_schedule_is_reviewed_by_each_strategy_for_itself() -> None:
    timed = strategy("timed", 5_000, UP, Every(86_400))
    banded = strategy("banded", 5_000, HALF)
    first = decide(shared(timed, banded))
    assert first.is_reviewed
    assert first.due_schedules == ("timed: review every 86400",)
    past = replace(
        step_input().history, reviews=replace(step_input().history.reviews, by_schedule=((first.due_schedules[0], NOW_S - 3_600),))
    )
    again = decide(shared(timed, banded, past=past))
    assert isinstance(again.decision, Hold)
    assert not again.is_reviewed
    assert not any(adjustment.acts for adjustment in view_of(again).adjustments)


def test_a_split_of_75_to_25_is_brought_back_to_60_to_40_in_kind() -> None:
    """W5: strategies 75/25 against 60/40."""
    books = opening({"trend": {"WETH": "2.5", "USDC": 2_500}, "reversion": {"USDC": 2_500}})
    parts = (strategy("trend", 6_000, {"WETH": 7_000, "USDC": 3_000}), strategy("reversion", 4_000, {"WETH": 1_500, "USDC": 8_500}))
    step = brought_up(step_input().with_config(split(*parts)), books)
    netting_result = view_of(decide(step))
    assert [(giver, receiver, round(value / 10**6)) for giver, receiver, value in netting_result.transfers] == [
        ("trend", "reversion", 1_500)
    ]
    capital = {adjustment.name: adjustment.capital for adjustment in netting_result.adjustments}
    assert capital == {"trend": 6_000 * 10**6, "reversion": 4_000 * 10**6}
    booking = accounting.netting_booking(step, "s", netting.strategy_adjustments)
    assert booking is not None
    after = brought_up(step, replace(books, bookings=(*books.bookings, booking)))
    units = {strategy_book.name: strategy_book.units for strategy_book in books_of(after).strategy_books}
    assert units == {"trend": 8 * 10**17, "reversion": 16 * 10**17}, "who gives a fifth of its capital gives a fifth of its units"
    assert not view_of(decide(after)).transfers


def test_a_split_within_its_band_is_left_alone() -> None:
    books = opening({"trend": {"WETH": "2.5", "USDC": 1_500}, "reversion": {"USDC": 3_500}})
    parts = (strategy("trend", 6_000, {"WETH": 7_000, "USDC": 3_000}), strategy("reversion", 4_000, {"USDC": 10_000}))
    assert not view_of(decide(brought_up(step_input().with_config(split(*parts)), books))).transfers


def signals(step: StepInput, bad_usdc: int, good_usdc: int) -> frozenset[tuple[str, str]]:
    """What the split signals while the strategies hold so many cents."""
    holdings = {name: {USDC: cents * 10**4} for name, cents in (("bad", bad_usdc), ("good", good_usdc))}
    return netting.capital_signals(step.config(CapitalSplit), step.layer(StrategiesState), holdings, {USDC: Fraction(1)})


def test_the_band_of_the_split_ends_at_a_fifth_of_each_share() -> None:
    step = shared(strategy("bad", 5_000, UP), strategy("good", 5_000, HALF))
    assert signals(step, 600_000, 400_000) == frozenset()
    assert signals(step, 600_001, 399_999) == {("too much capital", "bad"), ("too little capital", "good")}


def test_paused_strategy__signals_only_what_exceeds_its_floor() -> None:
    parts = (strategy("bad", 5_000, UP, floor_bps=1_000), strategy("good", 5_000, HALF))
    step = with_state(shared(*parts), StrategyState("bad", StrategyHealth.PAUSED, NOW_S))
    assert signals(step, 100_100, 899_900) == frozenset(), "a hundredth of a percent is rounding"
    assert signals(step, 100_101, 899_899) == {("too much capital", "bad")}
    assert signals(step, 20_000, 980_000) == frozenset(), "it is not brought up to its floor"


def test_strategies_that_are_worth_nothing_signal_nothing() -> None:
    assert signals(shared(strategy("bad", 5_000, UP), strategy("good", 5_000, HALF)), 0, 0) == frozenset()


def test_paused_strategy__waits_in_the_numeraire_with_its_floor() -> None:
    parts = (strategy("bad", 5_000, UP, floor_bps=1_000), strategy("good", 5_000, HALF))
    step = with_state(shared(*parts), StrategyState("bad", StrategyHealth.PAUSED, NOW_S))
    decision_result = decide(step)
    by_name = {adjustment.name: adjustment for adjustment in view_of(decision_result).adjustments}
    assert [(transfer[0], transfer[1]) for transfer in view_of(decision_result).transfers] == [("bad", "good")]
    assert abs(by_name["bad"].capital - 1_000 * 10**6) < 10
    assert dict(by_name["bad"].target_values)[WETH] == 0
    assert by_name["bad"].acts
    assert isinstance(decision_result.decision, Rebalance)


def test_a_strategy_holds_nothing_of_what_it_does_not_have() -> None:
    step = shared(strategy("up", 5_000, UP), strategy("half", 5_000, HALF))
    prices = {WETH: Fraction(2_000, 10**12), USDC: Fraction(1)}
    drifts, _ = strategy_drifts(step, strategy("up", 5_000, UP), StrategyState("up", StrategyHealth.ACTIVE, NOW_S), {USDC: 7}, prices)
    assert [(drift.token, drift.raw, drift.value) for drift in drifts] == [(WETH, 0, 0), (USDC, 7, 7)]


def test_working_strategies__share_what_a_paused_one_leaves() -> None:
    parts = split(strategy("bad", 5_000, UP, floor_bps=1_000), strategy("half", 3_000, HALF), strategy("down", 2_000, DOWN))
    books = books_of(brought_up(step_input().with_config(parts))).by_name
    assert target_capital_shares(parts, books) == {"bad": Fraction(1, 2), "half": Fraction(3, 10), "down": Fraction(1, 5)}
    paused = {name: replace(book, state=StrategyState(name, StrategyHealth.PAUSED, NOW_S)) for name, book in books.items()}
    assert target_capital_shares(parts, books | {"bad": paused["bad"]}) == {
        "bad": Fraction(1, 10),
        "half": Fraction(9, 10) * Fraction(3, 5),
        "down": Fraction(9, 10) * Fraction(2, 5),
    }
    assert target_capital_shares(parts, paused) == target_capital_shares(parts, books), "with nobody at work each keeps what it has"


def test_asset_kept_out_by_an_order__waits_in_the_numeraire() -> None:
    step = shared(strategy("up", 5_000, UP), strategy("half", 5_000, HALF))
    out = tuple((asset.token.address, 0 if asset.token.address == WETH else 10_000) for asset in step.portfolio.assets)
    decision_result = decide(replace(step, targets=replace(step.targets, effective_bps=out)))
    assert isinstance(decision_result.decision, Rebalance)
    assert shares(decision_result.decision.goal) == {WETH: 0, USDC: 1}


def test_portfolio_targets__are_those_of_all_strategies() -> None:
    step = apply_effective_targets(step_input().with_config(split(strategy("up", 6_000, UP), strategy("down", 4_000, DOWN))))
    assert [asset.target_bps for asset in step.effective_assets] == [5_600, 4_400]
    assert "up 60 %, down 40 %" in step.targets.reasons[-1]


def test_books_that_do_not_come_to_the_wallet_halt_by_name() -> None:
    step = shared(strategy("up", 5_000, UP), strategy("down", 5_000, DOWN))
    ledger = StrategyLedger(books_of(step).unstored_bookings)
    decision_result = decide(brought_up(balances(step, WETH="2.4"), ledger))
    assert isinstance(decision_result.decision, Halt)
    assert decision_result.decision.codes == (HaltCode.STRATEGIES,)
    assert mentions(decision_result.decision.reason, "WETH: 2.5", "2.4")
    assert "trimtab strategies apply" in decision_result.decision.reason


def test_without_books_nothing_is_decided() -> None:
    decision_result = decide(step_input().with_config(split(strategy("up", 5_000, UP), strategy("down", 5_000, DOWN))))
    assert isinstance(decision_result.decision, Halt)
    assert decision_result.decision.codes == (HaltCode.STRATEGIES,)


def test_prices_of_blocks_before_must_agree_with_each_strategy() -> None:
    step = shared(strategy("up", 5_000, UP), strategy("down", 5_000, DOWN))
    decision_result = decide(replace(step, policy=replace(step.policy, confirm_blocks=3)))
    assert not decision_result.layer(StrategiesResult).is_netting_only
    assert not any(adjustment.acts for adjustment in view_of(decision_result).adjustments)
    assert mentions(decision_result.decision.reason, "3 preceding", "missing")


def test_a_step_that_was_written_down_decides_the_same_again() -> None:
    step = shared(strategy("up", 7_000, UP), strategy("down", 3_000, DOWN))
    again = codec.loads(StepInput, codec.dumps(step))
    assert again == step
    assert decide(again) == decide(step)


def test_a_paused_strategy_is_told_for_as_long_as_it_is() -> None:
    calm = RunFacts(paused=False, heartbeat_fault="", low_gas_wei=None)
    step = shared(strategy("bad", 5_000, UP), strategy("good", 5_000, HALF))
    paused = with_state(step, StrategyState("bad", StrategyHealth.PAUSED, NOW_S, "the Sharpe ratio was low"))

    def told(now: StepInput) -> list[str]:
        decision_result = decide(now)
        outcome = StepOutcome("0123", OutcomeKind.HOLD, decision_result.decision.reason, now, decision_result, None)
        return [alert.text for alert in alerts(outcome, calm) if alert.key == "strategy:bad" and alert.is_lasting]

    assert told(step) == []
    (alert,) = told(paused)
    assert mentions(alert, "bad", "paused", "USDC", "Sharpe ratio", "trimtab strategies")


@pytest.mark.parametrize(
    ("values", "shares_after"),
    [
        ((4_000, 3_000, 3_000), (Fraction(45) + Fraction(30, 13), Fraction(30) + Fraction(9, 13), Fraction(22))),
        ((6_000, 3_000, 1_000), (Fraction(55) - Fraction(30, 13), Fraction(30) - Fraction(9, 13), Fraction(18))),
        ((5_000, 3_000, 2_000), (Fraction(50), Fraction(30), Fraction(20))),
    ],
    ids=["too little within the bands", "too much within the bands", "within all bands"],
)
def test_band_destination__gap_is_shared_by_the_bands_room(
    values: tuple[int, int, int], shares_after: tuple[Fraction, Fraction, Fraction]
) -> None:
    """Bands of 45 to 55, 27 to 33 and 18 to 22 %: after each asset goes to its nearer edge, 3 % are missing or too much."""
    symbols = ("WETH", "WBTC", "USDC")
    step = step_input(dict(zip(symbols, (5_000, 3_000, 2_000), strict=True)), dict(zip(symbols, values, strict=True)))
    banded = strategy("one", 10_000, {}, destination=Destination.BAND)
    assert netting._target_shares(step.portfolio, step.policy, banded, current_drifts(step), False) == [part / 100 for part in shares_after]


def test_target_shares__paused_strategy_goes_to_its_weights() -> None:
    step = step_input(values={"WETH": 8_000, "USDC": 2_000})
    banded = strategy("one", 10_000, {}, destination=Destination.BAND)
    assert netting._target_shares(step.portfolio, step.policy, banded, current_drifts(step), True) == [Fraction(1, 2)] * 2
