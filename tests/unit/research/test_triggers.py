"""A function as a trigger of a backtest: what it sees, when it is asked, and which answers are refused."""

from __future__ import annotations

import re
from datetime import timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agent import codec, model, research
from agent.errors import ConfigError
from agent.model import (
    AnsweredTrigger,
    Cron,
    Destination,
    HybridTrigger,
    NoTradeZone,
    Policy,
    Threshold,
    TrackingRisk,
    Trigger,
)
from agent.policy.triggers.validation import validate_policy
from agent.research.triggers import FunctionTrigger
from agent.signals import SignalView
from tests.support.studies.signals import BTC, ETH, PRICES, TARGETS, TIMES, day_of, momentum

HALF_A_TENTH = 0.05


def leaves_its_band(view: SignalView) -> bool:
    return any(abs(view.weights[symbol] - target) > HALF_A_TENTH for symbol, target in TARGETS.items())


def falls(view: SignalView) -> bool:
    return view.prices["BTC"][-1].close < 100


class Recorder:
    """Keeps the views that it is given, and answers each with the same."""

    def __init__(self, is_due: bool) -> None:
        self.views: list[SignalView] = []
        self._is_due = is_due

    def __call__(self, view: SignalView) -> bool:
        self.views.append(view)
        return self._is_due


def test_function_is_asked_once_a_bar_from_the_first_price_on() -> None:
    for is_due in (True, False):
        recorder = Recorder(is_due)
        result = research.backtest(PRICES.head(5), TARGETS, recorder)
        assert [day_of(view.now_s) for view in recorder.views] == [1, 2, 3, 4]
        assert result.summary.trades == 4 * is_due


def test_view__has_closes_before_the_bar_and_weights_at_it() -> None:
    recorder = Recorder(False)
    research.backtest(PRICES, TARGETS, research.trigger(recorder, window="5d"))
    for view in recorder.views:
        day = day_of(view.now_s)
        for symbol, closes in (("BTC", BTC), ("ETH", ETH)):
            days = [day_of(bar.at_s) for bar in view.prices[symbol]]
            assert days == list(range(max(0, day - 4), day))
            assert [bar.close for bar in view.prices[symbol]] == pytest.approx([closes[earlier] for earlier in days])
        values = [0.4 * BTC[day] / BTC[0], 0.3 * ETH[day] / ETH[0], 0.3]
        assert list(view.weights.values()) == pytest.approx([value / sum(values) for value in values], abs=1e-6)
        assert view.numeraire == "USD"
        assert view.free == ("BTC", "ETH", "USD")


@pytest.mark.parametrize("length", [5, 12])
@pytest.mark.parametrize("trigger", [falls, leaves_its_band])
def test_later_prices_change_nothing_earlier(trigger: Any, length: int) -> None:
    whole = research.backtest(PRICES, TARGETS, trigger)
    start = research.backtest(PRICES.head(length), TARGETS, trigger)
    assert whole.summary.trades > 0
    assert start.weights.equals(whole.weights.head(length))
    assert start.frame()["value"].to_list() == whole.frame()["value"].head(length).to_list()


def test_function_of_the_weights_trades_as_the_band_does() -> None:
    by_function = research.backtest(PRICES, TARGETS, leaves_its_band)
    by_band = research.backtest(PRICES, TARGETS, research.band(absolute=HALF_A_TENTH))
    assert by_function.trades.equals(by_band.trades)


def test_function_trades_at_the_bars_that_it_names() -> None:
    result = research.backtest(PRICES, TARGETS, lambda view: np.bool_(day_of(view.now_s) in (3, 9)))  # type: ignore[arg-type, return-value]
    assert result.trades["time"].to_list() == [TIMES[3], TIMES[9]]


def test_function_goes_with_a_signal_a_destination_and_a_report(tmp_path: Any) -> None:
    result = research.backtest(PRICES.head(6), TARGETS, falls, signal=momentum, destination="halfway")
    assert result.summary.trades > 0
    assert "AnsweredTrigger" in result.report(tmp_path / "report.html").read_text(encoding="utf-8")


def test_view__has_the_targets_of_the_backtest() -> None:
    recorder = Recorder(True)
    research.backtest(PRICES.head(5), TARGETS, recorder)
    assert [dict(view.targets) for view in recorder.views] == [TARGETS] * 4


def test_view__has_the_targets_that_a_signal_chose() -> None:
    recorder = Recorder(True)
    shares = iter((0.1, 0.5, 0.7))
    signal = research.signal(lambda view: {"BTC": next(shares)}, every="7d")
    research.backtest(PRICES, TARGETS, recorder, signal=signal)
    assert [view.targets["BTC"] for view in recorder.views] == [0.1] * 7 + [0.5] * 7 + [0.7]
    assert all(sum(view.targets.values()) == pytest.approx(1) for view in recorder.views)


def test_compare_takes_functions_beside_triggers() -> None:
    results = research.compare(
        PRICES.head(6), TARGETS, {"function": leaves_its_band, "window": research.trigger(falls), "band": research.band(0.1)}
    )
    assert results.keys() == {"function", "window", "band"}
    assert results["function"].summary != results["window"].summary


def test_stress_test_asks_the_function_on_each_path() -> None:
    recorder = Recorder(False)
    later = PRICES.with_columns(time=PRICES["time"].dt.offset_by("16d"))
    research.stress(PRICES.vstack(later), TARGETS, recorder, paths=1, bars=4, scenarios=["crash"])
    assert len(recorder.views) > 0
    assert {len(view.prices["BTC"]) for view in recorder.views} == {1, 2, 3}


@pytest.mark.parametrize("answer", [1, None, "yes", np.array([True, False])], ids=["number", "nothing", "text", "array"])
def test_answer_that_is_not_true_or_false_is_refused(answer: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        research.backtest(PRICES, TARGETS, lambda view: answer)
    assert caught.value.message == f"trigger: <lambda> returned {answer!r}, at 2024-01-02 00:00 UTC"
    assert caught.value.remedy == "return True, if a rebalance is due, or False"


def test_signal_in_place_of_a_trigger_is_named() -> None:
    def weights(view: SignalView) -> dict[str, float]:
        return dict(view.targets)

    with pytest.raises(ConfigError) as caught:
        research.backtest(PRICES, TARGETS, weights)  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.remedy == "write signal=weights if it chooses weights, else return True, if a rebalance is due, or False"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: research.trigger(5), "trigger: 5 is no trigger"),  # type: ignore[arg-type]
        (lambda: research.backtest(PRICES, TARGETS, "weekly"), "trigger: 'weekly' is no trigger"),  # type: ignore[arg-type]
        (lambda: research.backtest(PRICES, TARGETS, False), "trigger: False is no trigger"),  # type: ignore[arg-type]
        (lambda: research.trigger(falls, window="ever"), "window"),
        (
            lambda: research.backtest(PRICES, TARGETS, research.trigger(falls, window="1d")),
            "trigger: no price is within the window of 1 day",
        ),
        (lambda: research.backtest(PRICES, TARGETS, falls, destination="band"), "destination: band, but the trigger has no band"),
        (lambda: research.stress(PRICES, TARGETS, falls, jobs=2), "jobs: 2, but a function"),
        (lambda: research.tune(PRICES, TARGETS, [falls]), "triggers: function cannot be searched over"),  # type: ignore[list-item]
    ],
)
def test_wrong_trigger_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_answer_is_a_part_of_the_policy() -> None:
    for is_due in (True, False):
        policy = Policy(AnsweredTrigger(86_400, is_due), Destination.TARGET, cooldown_s=0)
        assert codec.loads(Policy, codec.dumps(policy)) == policy
    with pytest.raises(ConfigError, match="a window of 0 s"):
        validate_policy(Policy(AnsweredTrigger(0), Destination.TARGET, cooldown_s=0))


@pytest.mark.parametrize("duration", ["7d", timedelta(days=7), pd.Timedelta("7d")], ids=["text", "Python", "pandas"])
def test_durations_of_every_kind_are_read(duration: str | timedelta) -> None:
    assert research.every(duration) == research.every("168h")
    assert research.signal(falls, every=duration, window=duration) == research.signal(falls, every="168h", window="168h")
    assert research.trigger(falls, window=duration) == FunctionTrigger(falls, 7 * 86_400)


@pytest.mark.parametrize("duration", [timedelta(0), timedelta(days=-1), timedelta(seconds=1.5), pd.NaT])
def test_a_duration_without_whole_seconds_is_refused(duration: Any) -> None:
    with pytest.raises(ConfigError, match="every: "):
        research.every(duration)


@pytest.mark.parametrize("duration", [pd.Series([True]), np.array([1, 2]), None, 7])
def test_what_is_no_duration_is_refused(duration: Any) -> None:
    makers = (research.every, lambda wrong: research.trigger(falls, window=wrong), lambda wrong: research.signal(falls, every=wrong))
    for make in makers:
        with pytest.raises(ConfigError, match="is not a duration"):
            make(duration)


@pytest.mark.parametrize(
    "text",
    [
        "band(0.1)",
        "band(absolute=0.05)",
        "band(0.1, absolute=0.0333)",
        'every("12h")',
        'every("90min")',
        'every("7d", band(0.1))',
        'cron("@monthly")',
        'cron("0 0 1 1,4,7,10 *", timezone="Europe/Berlin")',
        'tracking("normal")',
        'tracking("strict")',
        'trigger(falls, window="30d")',
        "trigger(falls)",
        'signal(falls, every="7d", window="90d")',
        "signal(falls)",
        "allocator('equal', every='28d', keep='7d', churn='1%', until_chosen='targets')",
        "Costs(fee=0.003, depth=1000000000, latency=0)",
    ],
)
def test_what_is_shown__can_be_typed(text: str) -> None:
    names = {"falls": falls, **{name: getattr(research, name) for name in research.__all__}}
    typed_object = eval(text, names)
    assert repr(typed_object) == text
    assert eval(repr(typed_object), names) == typed_object


@pytest.mark.parametrize(
    "trigger",
    [
        HybridTrigger(Threshold(None, 1_000), Cron("0 8 * * 1", "UTC")),
        NoTradeZone(TrackingRisk(Fraction(1, 2), 86_400, (), ())),
        NoTradeZone(TrackingRisk(Fraction(7, 10), None, (), ())),
        NoTradeZone(TrackingRisk(Fraction(1, 2), None, (), (), after_tax=True)),
    ],
    ids=["cron", "horizon", "another cost", "after tax"],
)
def test_what_research_does_not_make__is_shown_with_its_fields(trigger: Trigger) -> None:
    names: dict[str, Any] = {**vars(model), "Fraction": Fraction, "band": research.band, "cron": research.cron}
    assert eval(repr(trigger), names) == trigger


def test_trigger_keeps_function_and_window() -> None:
    assert research.trigger(falls, window="30d") == FunctionTrigger(falls, 30 * 86_400)


@pytest.mark.parametrize("interval", ["30d", "720h", timedelta(days=30)])
def test_schedule_out_of_range_is_named_as_a_duration(interval: str | timedelta) -> None:
    with pytest.raises(ConfigError, match=r"^every: 30d \(write a time from 30m to 28d, or a cron time such as @monthly\)"):
        research.backtest(PRICES, TARGETS, research.every(interval))


def test_cron__trades_at_the_first_bar_after_its_time() -> None:
    result = research.backtest(PRICES, TARGETS, research.cron("0 6 * * 3"))
    days = result.trades["time"].dt.truncate("1d").unique()
    assert len(days) > 1
    assert set(days.dt.weekday()) == {4}


def test_comparison__names_each_cron_time() -> None:
    schedules = [research.cron("0 6 * * 3"), research.cron("@monthly")]
    assert list(research.compare(PRICES, TARGETS, schedules)) == ['cron("0 6 * * 3")', 'cron("@monthly")']


@pytest.mark.parametrize(
    ("expression", "timezone", "words"),
    [
        ("monthly", "UTC", "cron: 'monthly' has 1 field ("),
        ("0 0 30 2 *", "UTC", "cron: '0 0 30 2 *' in UTC never comes"),
        ("@monthly", "Mars/Base", "timezone: 'Mars/Base' is unknown"),
        (30, "UTC", "cron: 30, 'UTC' are no texts"),
    ],
    ids=["a word", "30 February", "unknown zone", "a number"],
)
def test_cron__that_never_comes_is_refused(expression: Any, timezone: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        research.cron(expression, timezone=timezone)
