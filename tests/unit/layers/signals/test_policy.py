"""Tests of agent/layers/signals/policy.py: what a signal is shown, which answers count, and what they become."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest

from agent import codec
from agent.layers.futures.policy.chosen_weights import policy_with_shares
from agent.layers.futures.state import futures_policy, with_policy
from agent.layers.inputs import apply_effective_targets
from agent.layers.signals.policy import checked_answer, idle_signals, signal_requests, trigger_request
from agent.layers.signals.state import SignalState
from agent.model import (
    AdjustFutures,
    AnsweredTrigger,
    Halt,
    InitialWeights,
    NoTradeZone,
    PricePoint,
    Rebalance,
    SignalRequest,
    StepInput,
    TrackingRisk,
)
from agent.model.futures import FuturesTarget
from agent.model.weights import SignalAnswer, SignalMarket
from agent.policy.decide import decide
from agent.units import format_time
from tests.support.builders import NOW_S, split, strategy, token, with_snapshot
from tests.support.constants import DAY_S
from tests.support.perpetuals.steps import EMPTY, FUTURES_POLICY
from tests.support.planning_worlds import PLAIN, bps_of, limit
from tests.support.signals import SIGNAL, signal_step, trigger_step
from tests.support.text import mentions

WITH_MARKET = replace(SIGNAL, markets=(SignalMarket("ETH", "ETH", "WETH"),))
HALF = {"spot": {"WETH": 0.5, "WBTC": 0.25, "LINK": 0.25}, "futures": None}
WETH = token("WETH").address


def request_of(step: StepInput) -> SignalRequest:
    (request,) = signal_requests(step, {})
    return request


def signal_answer(reply: object, step: StepInput) -> SignalAnswer:
    return checked_answer(request_of(step), reply, "own-signals 1.0")


def with_answer(step: StepInput, answer: SignalAnswer) -> StepInput:
    """Return the step with the targets that follow from an answer."""
    return apply_effective_targets(step.with_layer(SignalState((answer,))))


# --- requests and views


def test_view_has_prices_weights_options_and_its_own_time() -> None:
    request = request_of(signal_step())
    view = request.view

    assert (request.why, request.owner, dict(view.options), view.numeraire) == ("", "", {"fast": "5"}, "USDC")
    assert set(view.prices) == {"WETH", "WBTC", "LINK", "UNI"}
    assert all(bars[-1].at_s <= view.now_s and len(bars) > 10 for bars in view.prices.values())
    assert all(bar.at_s < next_bar.at_s for bars in view.prices.values() for bar, next_bar in pairwise(bars))
    assert 1_000 < view.prices["WETH"][-1].close < 4_000
    assert sum(view.weights.values()) == pytest.approx(1)
    assert [symbol for symbol, _ in request.address_by_symbol] == list(view.free) == ["WETH", "WBTC", "LINK", "UNI"]


def test_view_has_one_price_for_each_interval() -> None:
    view = request_of(signal_step(step_s=2 * DAY_S, window_s=60 * DAY_S)).view
    intervals = [bar.at_s // (2 * DAY_S) for bar in view.prices["WETH"]]

    assert len(set(intervals)) == len(intervals) > 1


@pytest.mark.parametrize(
    ("age_s", "is_shown"),
    [
        pytest.param(-1, False, id="a second ahead"),
        pytest.param(0, True, id="of now"),
        pytest.param(30 * DAY_S - 1, True, id="a second within the window"),
        pytest.param(30 * DAY_S, False, id="at its beginning"),
    ],
)
def test_view_has_the_prices_of_its_window(age_s: int, is_shown: bool) -> None:
    step = trigger_step(SIGNAL)
    point = PricePoint(WETH, NOW_S - age_s, Fraction(1))
    step = replace(step, history=replace(step.history, prices=(point,)))

    request = trigger_request(step)

    assert [bar.at_s for bar in request.view.prices["WETH"]] == [point.at_s] * is_shown


@pytest.mark.parametrize("horizon_s", [None, 30 * DAY_S], ids=["no horizon", "a month"])
def test_request_is_the_same_before_the_risk_of_a_zone_is_known(horizon_s: int | None) -> None:
    """Risk is estimated for the targets, which follow from the answers."""
    step = signal_step()
    zone = NoTradeZone(TrackingRisk(Fraction(1, 2), horizon_s, (), ()))

    assert request_of(replace(step, policy=replace(step.policy, trigger=zone))) == request_of(step)


@pytest.mark.parametrize("trigger", [None, NoTradeZone(TrackingRisk(Fraction(1, 2), None, (), ()))], ids=["band", "zone"])
def test_request_has_the_reason_while_a_balance_is_unknown(trigger: NoTradeZone | None) -> None:
    step = signal_step()
    step = replace(step, policy=replace(step.policy, trigger=trigger or step.policy.trigger))

    assert "some balances or prices are unknown" in request_of(with_snapshot(step, holdings=step.snapshot.holdings[1:])).why


def bars_step(count: int, age_s: int) -> StepInput:
    """Return a step whose only prices are this many daily ones, the last of this age."""
    step = signal_step(min_returns=5, max_age_s=DAY_S)
    prices = tuple(
        PricePoint(token(symbol).address, NOW_S - age_s - day * DAY_S, Fraction(1))
        for day in reversed(range(count))
        for symbol in ("WETH", "WBTC", "LINK", "UNI")
    )
    return replace(step, history=replace(step.history, prices=prices))


@pytest.mark.parametrize(
    ("count", "age_s", "reason"),
    [
        pytest.param(6, 0, "", id="as many as needed"),
        pytest.param(5, 0, "WETH has 5 prices, min_history requires 6", id="one less"),
        pytest.param(1, 0, "WETH has 1 price, min_history requires 6", id="only one"),
        pytest.param(5, 0, f"in the window, which starts {format_time(NOW_S - 90 * DAY_S)}", id="start of the window"),
        pytest.param(6, DAY_S, "", id="as old as allowed"),
        pytest.param(6, DAY_S + 1, "WETH has no price within 1 day", id="a second older"),
    ],
)
def test_request_needs_enough_recent_prices(count: int, age_s: int, reason: str) -> None:
    why = request_of(bars_step(count, age_s)).why

    assert bool(why) is bool(reason)
    assert reason in why
    assert not reason or "trimtab prices fetch" in why


def test_request_of_a_strategy_has_the_weights_of_the_wallet() -> None:
    """Its books are known after the answers."""
    step = signal_step()
    own = replace(strategy("own", 6_000, {"USDC": 10_000}), allocator=step.portfolio.allocator)
    shared_step = step.with_config(split(own, strategy("rest", 4_000, {"USDC": 10_000})))

    request = request_of(shared_step)

    assert (request.owner, request.why) == ("own", "")
    assert request.view.weights == request_of(step).view.weights


def test_request_of_a_strategy_has_its_own_targets() -> None:
    step = signal_step()
    own = replace(strategy("own", 6_000, {"WETH": 7_500, "USDC": 2_500}), allocator=step.portfolio.allocator)
    shared_step = step.with_config(split(own, strategy("rest", 4_000, {"USDC": 10_000})))

    assert request_of(shared_step).view.targets == {"WETH": 0.75, "WBTC": 0, "LINK": 0, "UNI": 0, "USDC": 0.25}


def test_request_after_a_choice_has_the_targets_of_the_config() -> None:
    """A function that multiplies them would else multiply its last choice."""
    step = signal_step()
    chosen_step = with_answer(step, signal_answer(HALF, step))
    allocation = chosen_step.history.allocation
    assert allocation is not None
    next_step = replace(step, history=replace(step.history, allocation=replace(allocation, at_s=NOW_S - 60 * DAY_S)))

    assert request_of(next_step).view.targets == request_of(step).view.targets
    assert sum(request_of(step).view.targets.values()) == pytest.approx(1)


def test_signal_that_is_not_due_is_idle() -> None:
    step = signal_step()
    chosen_step = with_answer(step, signal_answer(HALF, step))

    assert [settings.name for _, settings in idle_signals(chosen_step, {})] == ["mine"]
    assert signal_requests(chosen_step, {}) == ()
    assert idle_signals(step, {}) == ()


# --- answers


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param('{"spot": {"WETH": NaN}}', "the weight of WETH is nan, not from 0 to 1", id="not a number"),
        pytest.param('{"spot": {"WETH": Infinity}}', "the weight of WETH is inf, not from 0 to 1", id="infinite"),
        pytest.param('{"spot": {"WETH": -0.1, "WBTC": 1.1}}', "the weight of WETH is -0.1, not from 0 to 1", id="negative"),
        pytest.param('{"spot": {"WETH": 1' + 400 * "0" + "}}", "int too large to convert to float", id="too large"),
        pytest.param('{"spot": {"WETH": 0.5}}', "its spot weights sum to 0.5, not 1", id="half of the whole"),
        pytest.param(
            '{"spot": {"DOGE": 1}}', "'DOGE' is not an asset whose weight is free; choose from WETH, WBTC, LINK, UNI", id="no asset"
        ),
        pytest.param(
            '{"spot": {"USDC": 1}}', "'USDC' is not an asset whose weight is free; choose from WETH, WBTC, LINK, UNI", id="a fixed weight"
        ),
        pytest.param(
            '{"spot": {"BTC": 1}}',
            "'BTC' is not an asset whose weight is free; did you mean WBTC? choose from WETH, WBTC, LINK, UNI",
            id="name of a backtest",
        ),
        pytest.param(
            '{"spot": {"weth": 1}}',
            "'weth' is not an asset whose weight is free; did you mean WETH? choose from WETH, WBTC, LINK, UNI",
            id="small letters",
        ),
        pytest.param('{"spot": {"WETH": true}}', "the weight of WETH is not a number", id="a truth value"),
        pytest.param('{"spot": {"WETH": "1"}}', "the weight of WETH is not a number", id="text"),
        pytest.param('{"spot": [1]}', "its weights are not a mapping", id="a list"),
        pytest.param('{"spot": null, "futures": null}', "it returned neither spot nor futures weights", id="nothing"),
        pytest.param('{"futures": {"ETH": 1}}', "it returned futures weights, but the config has no [futures]", id="no futures"),
        pytest.param("[]", "its answer is not readable", id="no object"),
        pytest.param('{"why": "it raised ValueError: no"}', "it raised ValueError: no", id="an error"),
    ],
)
def test_invalid_answer_has_no_weights_and_the_reason(text: str, why: str) -> None:
    answer = signal_answer(json.loads(text), signal_step())

    assert (answer.why, answer.spot_ppm, answer.market_ppm) == (why, None, None)


@pytest.mark.parametrize(
    ("weights", "is_valid"),
    [
        pytest.param({"WETH": 0.5, "WBTC": 0.5001}, True, id="0.01 % too much"),
        pytest.param({"WETH": 0.5, "WBTC": 0.500101}, False, id="a millionth more"),
        pytest.param({"WETH": 0.5, "WBTC": 0.4999}, True, id="0.01 % too little"),
        pytest.param({"WETH": 0.5, "WBTC": 0.499899}, False, id="a millionth less"),
        pytest.param({"WETH": 1, "WBTC": 0}, True, id="all in one"),
        pytest.param({"WETH": 1.000001, "WBTC": 0}, False, id="a millionth above one"),
        pytest.param({"WETH": -0.000001, "WBTC": 1}, False, id="a millionth below zero"),
    ],
)
def test_spot_weights_are_from_zero_to_one_and_sum_to_one(weights: dict[str, float], is_valid: bool) -> None:
    assert (signal_answer({"spot": weights}, signal_step()).why == "") is is_valid


def test_spot_weights_ignore_the_last_bits_of_floats() -> None:
    answers = {
        signal_answer({"spot": {"WETH": weight, "WBTC": 0.7}, "futures": None}, signal_step()).spot_ppm
        for weight in (0.1 + 0.2, 0.3, 0.3 - 2**-54)
    }

    assert len(answers) == 1


TWO_MARKETS = replace(SIGNAL, markets=(SignalMarket("ETH", "ETH", "WETH"), SignalMarket("BTC", "BTC", "WBTC")))


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        pytest.param({"ETH": 0.6}, "", id="long"),
        pytest.param({"ETH": -1}, "", id="all short"),
        pytest.param({"ETH": -1.000001}, "not from -1 to 1", id="a millionth beyond"),
        pytest.param({"ETH": 1.5}, "not from -1 to 1", id="too much long"),
        pytest.param({"ETH": 0.5, "BTC": -0.5001}, "", id="both, 0.01 % too much"),
        pytest.param({"ETH": 0.5, "BTC": -0.500101}, "above 1", id="both, a millionth more"),
        pytest.param({"SOL": 0.5}, "'SOL' is not a futures market; choose from ETH, BTC", id="no market"),
    ],
)
def test_futures_weights_stay_within_the_target_notional(weights: dict[str, float], why: str) -> None:
    answer = signal_answer({"futures": weights}, signal_step(TWO_MARKETS))

    assert bool(answer.why) is bool(why)
    assert why in answer.why
    assert (answer.market_ppm is None) is bool(why)


def test_market_that_a_signal_does_not_name_has_no_weight() -> None:
    assert [weight for _, weight in signal_answer({"futures": {}}, signal_step(WITH_MARKET)).market_ppm or ()] == [0]


# --- what an answer becomes


def test_spot_weights_of_a_signal_are_the_targets() -> None:
    step = signal_step()
    step_with_targets = with_answer(step, signal_answer(HALF, step))
    allocation = step_with_targets.history.allocation

    assert bps_of(step_with_targets) == {"WETH": 4_000, "WBTC": 2_000, "LINK": 2_000, "UNI": 0, "USDC": 2_000}
    assert isinstance(decide(step_with_targets).decision, Rebalance)
    assert (allocation.why, allocation.sample_text) == ("spot weights of the signal mine", "own-signals 1.0")


def futures_step(weights: dict[str, float]) -> StepInput:
    step = signal_step(WITH_MARKET, initial_weights=InitialWeights.WAIT)
    step = with_policy(with_snapshot(step, futures=EMPTY), replace(FUTURES_POLICY, leverage_band_bps=1_000))
    return with_answer(step, signal_answer({"futures": weights}, step))


def test_futures_weights_of_a_signal_are_targets_and_spot_stays() -> None:
    step = futures_step({"ETH": -0.5})
    policy = futures_policy(step)

    assert (policy.targets, policy.leverage_bps) == ((FuturesTarget("ETH", -10_000),), 10_000)
    assert bps_of(step) == PLAIN
    assert "futures targets are those of the signal: 50 % of the target notional" in step.targets.reasons


def test_futures_weights_of_zero_open_nothing() -> None:
    step = futures_step({})
    policy = futures_policy(step)

    assert policy.leverage_bps == 0
    assert not isinstance(decide(step).decision, AdjustFutures)


def test_futures_weights_that_sum_to_less_lower_the_leverage() -> None:
    policy = policy_with_shares(FUTURES_POLICY, {"ETH": Fraction(1, 4), "BTC": Fraction(-1, 8)})

    assert (policy.targets, policy.leverage_bps) == ((FuturesTarget("ETH", 6_667), FuturesTarget("BTC", -3_333)), 7_500)


def test_recorded_step_decides_without_the_signal() -> None:
    step = signal_step()
    answered_step = step.with_layer(SignalState((signal_answer(HALF, step),)))
    step_with_targets = apply_effective_targets(answered_step)

    step_read = codec.loads(StepInput, codec.dumps(step_with_targets))

    assert step_read.layer(SignalState) == step_with_targets.layer(SignalState)
    assert decide(step_read) == decide(step_with_targets)
    assert apply_effective_targets(codec.loads(StepInput, codec.dumps(answered_step))) == step_with_targets


FAILED = SignalAnswer("mine", "", why="it raised ValueError: no")


@pytest.mark.parametrize(
    ("age_s", "has_weights"),
    [
        pytest.param(3 * DAY_S, True, id="overdue as long as allowed"),
        pytest.param(3 * DAY_S + 1, False, id="a second longer"),
    ],
)
def test_failed_signal_keeps_the_last_weights_and_then_halts(age_s: int, has_weights: bool) -> None:
    """A new choice each day may be two days late."""
    step = signal_step(initial_weights=InitialWeights.WAIT, every_s=DAY_S, max_overdue_s=2 * DAY_S)
    allocation = with_answer(step, signal_answer(HALF, step)).history.allocation
    old_allocation = replace(allocation, at_s=allocation.at_s - age_s)

    late_step = with_answer(replace(step, history=replace(step.history, allocation=old_allocation)), FAILED)

    assert (bps_of(late_step)["WETH"] == 4_000) is has_weights
    assert isinstance(decide(late_step).decision, Halt) is not has_weights
    assert any("signal mine: it raised" in text for text in (*late_step.targets.reasons, late_step.history.allocation_fault))


def test_signal_that_never_answered_trades_nothing() -> None:
    step = with_answer(signal_step(initial_weights=InitialWeights.WAIT), FAILED)

    assert isinstance(decide(step).decision, Halt)
    assert bps_of(step) == PLAIN


# --- the signal that is the trigger


def test_trigger_request_has_the_view_of_the_wallet() -> None:
    request = trigger_request(trigger_step(replace(SIGNAL, options=(("above", "0.1"),))))

    assert (request.why, request.is_trigger, dict(request.view.options)) == ("", True, {"above": "0.1"})
    assert 25 < len(request.view.prices["WETH"]) <= 30
    assert sum(request.view.weights.values()) == pytest.approx(1)


def test_trigger_request__has_the_targets_of_the_config_without_an_allocator() -> None:
    request = trigger_request(trigger_step(SIGNAL))

    assert request is not None
    assert request.view.targets == {"WETH": 0.35, "WBTC": 0.25, "LINK": 0.15, "UNI": 0.15, "USDC": 0.1}


def test_trigger_request__has_the_targets_chosen_last() -> None:
    chosen_step = with_answer(signal_step(), signal_answer(HALF, signal_step()))
    policy = replace(chosen_step.policy, trigger=trigger_step(SIGNAL).policy.trigger)
    request = trigger_request(replace(chosen_step, policy=policy))

    assert request is not None
    assert request.view.targets == {"WETH": 0.4, "WBTC": 0.2, "LINK": 0.2, "UNI": 0, "USDC": 0.2}


def test_trigger_request_is_none_without_a_signal() -> None:
    step = signal_step()

    assert trigger_request(step) is None
    assert trigger_request(replace(step, policy=replace(step.policy, trigger=AnsweredTrigger(30 * DAY_S, step_s=DAY_S)))) is None


def without_prices(step: StepInput, symbol: str = "") -> StepInput:
    prices = tuple(point for point in step.history.prices if symbol and point.token != token(symbol).address)
    return replace(step, history=replace(step.history, prices=prices))


STEP = trigger_step(SIGNAL)


@pytest.mark.parametrize(
    ("step", "reasons"),
    [
        pytest.param(with_snapshot(STEP, holdings=STEP.snapshot.holdings[1:]), ("some balances or prices are unknown",), id="a balance"),
        pytest.param(without_prices(STEP), ("WETH has no prices", "WBTC has no prices"), id="all prices"),
        pytest.param(without_prices(STEP, "WETH"), ("WETH has no prices",), id="prices of one asset"),
    ],
)
def test_trigger_request_has_the_reason_while_something_is_unknown(step: StepInput, reasons: tuple[str, ...]) -> None:
    request = trigger_request(step)

    assert mentions(request.why, *reasons)


@pytest.mark.parametrize(
    ("reply", "is_due", "why"),
    [
        pytest.param({"is_due": True}, True, "", id="due"),
        pytest.param({"is_due": False}, False, "", id="not due"),
        pytest.param({"is_due": 1}, False, "it returned neither True nor False", id="a number"),
        pytest.param({"spot": {"WETH": 1.0}}, False, "it returned neither True nor False", id="weights"),
        pytest.param({"why": "it raised", "is_due": True}, False, "it raised", id="an error"),
    ],
)
def test_trigger_answer_is_a_truth_value(reply: dict[str, object], is_due: bool, why: str) -> None:
    request = trigger_request(STEP)
    assert request is not None

    answer = checked_answer(request, reply, "calm.py")

    assert (answer.is_due, answer.why) == (is_due, why)


def test_weight_beyond_its_limit_is_no_target() -> None:
    step = signal_step(limits=(limit("WETH", 0, 3_900),), initial_weights=InitialWeights.WAIT)

    decision = decide(with_answer(step, signal_answer(HALF, step))).decision

    assert isinstance(decision, Halt)
    assert "signal mine: WETH 40.00 % is not within 0 to 39 %" in decision.reason
