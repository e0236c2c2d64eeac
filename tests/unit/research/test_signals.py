"""A function as a signal of a backtest: what it sees, when it is asked, and which answers are refused."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from agent import research
from agent.backtest.data import PriceTable
from agent.errors import ConfigError
from agent.signals import SignalTargets, SignalView
from tests.support.studies.signals import BAND, BTC, DAYS, ETH, PRICES, TARGETS, TIMES, day_of, momentum


class Recorder:
    """Keeps the views that it is given."""

    def __init__(self) -> None:
        self.views: list[SignalView] = []

    def __call__(self, view: SignalView) -> dict[str, float]:
        self.views.append(view)
        return {"BTC": 0.5, "ETH": 0.2}


def test_view__has_closes_before_the_bar_and_weights_at_it() -> None:
    recorder = Recorder()
    research.backtest(PRICES, TARGETS, BAND, signal=research.signal(recorder, window="5d"))
    for view in recorder.views:
        day = day_of(view.now_s)
        for symbol, closes in (("BTC", BTC), ("ETH", ETH)):
            days = [day_of(bar.at_s) for bar in view.prices[symbol]]
            assert days == list(range(max(0, day - 4), day))
            assert [bar.close for bar in view.prices[symbol]] == pytest.approx([closes[earlier] for earlier in days])
        assert set(view.weights) == set(view.free) == {"BTC", "ETH", "USD"}
        assert sum(view.weights.values()) == pytest.approx(1)
    assert [day_of(view.now_s) for view in recorder.views] == list(range(1, DAYS))


@pytest.mark.parametrize("every", ["", "3d"], ids=["each bar", "every third"])
def test_bar_after_a_gap__is_not_seen_before_it_is_traded(every: str) -> None:
    """On a Monday nothing is in a window of two days: after its own trade, the close it traded at would have been."""
    weekdays = PRICES.filter(pl.col("time").dt.weekday() <= 5)
    views: list[SignalView] = []
    signal = research.signal(lambda view: views.append(view) or {"BTC": 0.6}, every=every, window="2d")
    research.backtest(weekdays, TARGETS, research.band(0.001), signal=signal)
    assert views
    assert [view.now_s for view in views if view.prices["BTC"][-1].at_s >= view.now_s] == []


@pytest.mark.parametrize("argument", ["signal", "allocator"])
def test_window_of_a_bar__is_refused(argument: str) -> None:
    arguments: dict[str, Any] = {argument: research.signal(lambda view: {"BTC": 1.0}, window="1d")}
    with pytest.raises(ConfigError, match="no price is within the window of 1 day before a bar"):
        research.backtest(PRICES, TARGETS, BAND, **arguments)


@pytest.mark.parametrize("length", [5, 12])
def test_later_prices_change_nothing_earlier(length: int) -> None:
    whole = research.backtest(PRICES, TARGETS, BAND, signal=momentum)
    start = research.backtest(PRICES.head(length), TARGETS, BAND, signal=momentum)
    assert start.weights.equals(whole.weights.head(length))
    assert start.frame()["value"].to_list() == whole.frame()["value"].head(length).to_list()


@pytest.mark.parametrize(
    ("returned", "weights"),
    [
        ({"BTC": 0.6}, [0.6, 0.0, 0.4]),
        ({"BTC": 0.6, "ETH": 0.4}, [0.6, 0.4, 0.0]),
        ({"BTC": 0.5, "USD": 0.5}, [0.5, 0.0, 0.5]),
        ({"USD": 1}, [0.0, 0.0, 1.0]),
        (pd.Series({"BTC": 0.6}), [0.6, 0.0, 0.4]),
        (SignalTargets(spot={"ETH": 0.25, "USD": 0.75}), [0.0, 0.25, 0.75]),
    ],
    ids=["rest in cash", "all named", "cash named", "cash alone", "Series", "SignalTargets"],
)
def test_portfolio_holds_what_the_function_returns(returned: Any, weights: list[float]) -> None:
    result = research.backtest(PRICES, TARGETS, BAND, signal=lambda view: returned)
    assert result.weights.drop("time").row(1) == pytest.approx(weights, abs=1e-3)


@pytest.mark.parametrize("argument", ["signal", "allocator"])
def test_function_that_falls_back_to_the_targets_of_its_view_keeps_them(argument: str) -> None:
    """They are those of the argument, also after a choice."""
    views: list[SignalView] = []

    def fall_back(view: SignalView) -> dict[str, float]:
        views.append(view)
        return {"BTC": 1.0} if day_of(view.now_s) == 5 else dict(view.targets)

    arguments: dict[str, Any] = {argument: fall_back}
    result = research.backtest(PRICES, TARGETS, BAND, **arguments)
    assert [dict(view.targets) for view in views] == [TARGETS] * (DAYS - 1)
    assert result.weights.drop("time").row(1) == pytest.approx(list(TARGETS.values()), abs=0.05)
    assert result.weights["USD"].max() < 0.35


@pytest.mark.parametrize("empty", [{}, pd.Series(dtype=float)], ids=["dict", "Series"])
@pytest.mark.parametrize("argument", ["signal", "allocator"])
def test_empty_answer_is_refused_with_what_cash_alone_is(argument: str, empty: Any) -> None:
    arguments: dict[str, Any] = {argument: lambda view: empty}
    with pytest.raises(ConfigError) as caught:
        research.backtest(PRICES, TARGETS, BAND, **arguments)
    assert caught.value.message == f'{argument}: it returned no weights (write {{"USD": 1}} for cash alone), at 2024-01-02 00:00 UTC'


BEYOND = "of weights moved one by more than max_change of 20 %"
LIVE_WAITS = "live each waits for trimtab weights --accept"


@pytest.mark.parametrize(
    ("shares", "notes"),
    [
        ((0.4, 0.6, 0.4), []),
        (
            (0.4, 0.61, 0.4),
            [f"2 choices {BEYOND}, most USD from 30 % to 9 % at {TIMES[8]:%F} 00:00:00 UTC: {LIVE_WAITS}"],
        ),
        (
            (0.7, 0.7, 0.7),
            [f"1 choice {BEYOND}, most USD from 30 % to 0 % at {TIMES[1]:%F} 00:00:00 UTC: {LIVE_WAITS}"],
        ),
    ],
    ids=["at the limit", "beyond it", "from the targets"],
)
def test_choices_that_wait_for_the_owner_of_a_live_agent_are_noted(shares: tuple[float, ...], notes: list[str]) -> None:
    answers = iter(shares)
    signal = research.signal(lambda view: {"BTC": next(answers), "ETH": 0.3}, every="7d")
    result = research.backtest(PRICES, TARGETS, BAND, signal=signal)
    assert [note for note in result.notes if "max_change" in note] == notes


HOURLY = pl.DataFrame({"time": [TIMES[0] + timedelta(hours=hour) for hour in range(9)], "BTC": [100.0] * 9})


@pytest.mark.parametrize("argument", ["signal", "allocator", "trigger"])
@pytest.mark.parametrize("window", ["1001h", "90d"])
def test_window_that_a_live_agent_refuses_is_refused(argument: str, window: str) -> None:
    make = research.trigger if argument == "trigger" else research.signal
    words = f"{argument}: a live agent takes no window of .* 1000 steps of 1 h .*write window=.1000h."
    with pytest.raises(ConfigError, match=words):
        research.backtest(HOURLY, {"BTC": 0.5, "USD": 0.5}, **{argument: make(lambda view: {}, window=window)})


@pytest.mark.parametrize(
    ("window", "bar_s", "window_s"),
    [
        pytest.param("", 86_400, 90 * 86_400, id="daily bars"),
        pytest.param("", 3_600, 3_600_000, id="hourly bars"),
        pytest.param("", 60, 3_600_000, id="minute bars"),
        pytest.param("1000h", 3_600, 3_600_000, id="hours given"),
        pytest.param("730d", 86_400, 730 * 86_400, id="days given"),
    ],
)
def test_window__is_that_given_or_the_usual_as_far_as_a_live_agent_takes_it(window: str, bar_s: int, window_s: int) -> None:
    bars = PriceTable(("BTC",), np.array([0, bar_s]), np.ones((2, 1)))
    assert research.signal(momentum, window=window).allocator(bars).window_s == window_s


@pytest.mark.parametrize("start", ["2021-03-10", "2021-10-25"], ids=["a day of 23 hours", "a day of 25 hours"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "UTC"])
@pytest.mark.parametrize("in_polars", [False, True])
def test_days_of_a_zone_are_counted_by_its_calendar(start: str, zone: str, in_polars: bool) -> None:
    days = pd.date_range(start, periods=28, tz=zone)
    frame = pd.DataFrame({"time": days, "BTC": 100.0 + np.arange(28) % 5})
    prices = pl.DataFrame({"time": days.to_list(), "BTC": frame["BTC"].to_list()}) if in_polars else frame
    view_days = []
    result = research.backtest(
        prices,
        {"BTC": 0.5, "USD": 0.5},
        research.every("7d"),
        signal=lambda view: view_days.append(datetime.fromtimestamp(view.now_s, UTC).day) or dict(view.targets),
        end=days[-2],
        flows={days[9]: 5_000},
    )
    assert list(dict.fromkeys(view_days)) == [day.day for day in days[1:-1]]  # twice at the flow
    assert [time.day for time in result.trades["time"]] == [day.day for day in days[7:-1:7]]
    assert {time.hour for time in result.frame()["time"]} == {0}
    assert result.frame()["value"].diff().arg_max() == 9
    notes = [note for note in result.notes if "clock" in note]
    assert notes == (
        [] if zone == "UTC" else [f"times are the clock of {zone}, shown as UTC, so that each close keeps its day, of 24 hours"]
    )


@pytest.mark.parametrize(
    ("weights", "notes"),
    [
        pytest.param({"BTC": 0.6, "ETH": 0.1}, ["signal: what its weights leave of 1 stays in USD: 30 %, 15 choices"], id="a rest"),
        pytest.param({"BTC": 0.6, "ETH": 0.4}, [], id="all invested"),
        pytest.param({"BTC": 0.6, "USD": 0.4}, [], id="cash named"),
    ],
)
def test_rest_of_weights__is_named_in_the_notes(weights: dict[str, float], notes: list[str]) -> None:
    result = research.backtest(PRICES, TARGETS, BAND, signal=lambda view: weights)
    assert [note for note in result.notes if "leave" in note] == notes


def test_signal_without_prices__is_noted_in_plain_words() -> None:
    days = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=day) for day in range(60)]
    prices = pl.DataFrame({"time": days, "BTC": [100.0] * 20 + [None] * 20 + [100.0] * 20})
    result = research.backtest(
        prices, {"BTC": 0.5, "USD": 0.5}, BAND, signal=research.signal(lambda view: {"BTC": 0.5}, every="3d", window="5d")
    )
    (note,) = [note for note in result.notes if "target weights" in note]
    assert ": no target weights: signal function: BTC has no price in the window, which starts " in note
    assert note.endswith(" UTC; the last weights are too old")
    assert not {"min_history", "keep", "trimtab"} & set(note.replace(".", " ").split())


def test_bare_function_is_asked_at_each_bar__also_at_a_short_one() -> None:
    months = [datetime(2023 + month // 12, month % 12 + 1, 1, tzinfo=UTC) for month in range(16)]
    view_times_s = []
    research.backtest(
        pl.DataFrame({"time": months, "BTC": [100.0] * 16}),
        {"BTC": 0.5, "USD": 0.5},
        BAND,
        signal=lambda view: view_times_s.append(view.now_s) or dict(view.targets),
    )
    assert view_times_s == [month.timestamp() for month in months[1:]]


@pytest.mark.parametrize("start", ["2021-03-27", "2021-10-30"])
def test_hours_of_a_zone_stay_instants(start: str) -> None:
    hours = pd.date_range(start, periods=60, freq="h", tz="Europe/Berlin")
    result = research.backtest(pd.DataFrame({"time": hours, "BTC": 100.0}), {"BTC": 0.5, "USD": 0.5}, BAND)
    assert result.frame()["time"].to_list() == hours.tz_convert("UTC").to_list()
    assert result.notes == ()


def test_function_is_asked_as_often_as_it_says() -> None:
    recorder = Recorder()
    research.backtest(PRICES, TARGETS, BAND, signal=research.signal(recorder, every="7d"))
    assert [day_of(view.now_s) for view in recorder.views] == [1, 8, 15]


@pytest.mark.parametrize(
    ("trigger", "is_noted"),
    [
        pytest.param(research.every("7d"), True, id="schedule"),
        pytest.param(BAND, False, id="band"),
        pytest.param(research.every("7d", research.band(0.1)), False, id="band at a schedule"),
    ],
)
def test_choice_that_waits_for_a_schedule__is_noted(trigger: Any, is_noted: bool) -> None:
    result = research.backtest(PRICES, TARGETS, trigger, signal=research.signal(Recorder(), every="7d", window="9d"))
    note = "weights are chosen every 7 days from the second bar on, and traded every 7 days from the first"
    assert any(text.startswith(note) for text in result.notes) is is_noted


def test_missing_close__is_the_one_before_for_two_bars() -> None:
    recorder = Recorder()
    gap = PRICES.with_columns(pl.when(pl.int_range(pl.len()).is_in([3, 4, 5])).then(None).otherwise(pl.col("BTC")).alias("BTC"))
    research.backtest(gap, TARGETS, BAND, signal=research.signal(recorder, window="9d"))
    bars = next(view for view in recorder.views if day_of(view.now_s) == 7).prices["BTC"]
    closes = {day_of(bar.at_s): bar.close for bar in bars}
    assert closes.keys() == {0, 1, 2, 3, 4, 6}
    assert closes[2] == closes[3] == closes[4]


def test_search__gives_every_setting_the_weights_of_the_function() -> None:
    search = research.tune(PRICES, TARGETS, [BAND], signal=momentum, objective="growth")
    three_quarters = research.backtest(PRICES.head(12), TARGETS, BAND, signal=momentum)
    assert search.frame()["final_value"][0] == pytest.approx(three_quarters.summary.value)


def test_search__shows_the_function_the_prices_before_the_last_quarter() -> None:
    recorder = Recorder()
    research.tune(PRICES, TARGETS, [BAND], signal=research.signal(recorder, window="5d"), objective="growth")
    counts = {len(view.prices["BTC"]) for view in recorder.views if day_of(view.now_s) >= 12}
    assert counts == {4}


def test_stress_test__asks_the_function_on_each_path() -> None:
    arguments: dict[str, Any] = {"step_paths": 1, "bars": 12, "scenarios": ["crash"]}
    prices = PRICES.vstack(PRICES.with_columns(time=PRICES["time"].dt.offset_by("16d")))
    in_cash = research.stress(prices, TARGETS, BAND, signal=lambda view: {"USD": 1}, **arguments)
    invested = research.stress(prices, TARGETS, BAND, signal=lambda view: {"BTC": 1}, **arguments)
    loss_in_cash, loss_invested = (test.frame().filter(case="crash")["loss_median"].item() for test in (in_cash, invested))
    assert loss_in_cash < 0.25 * loss_invested
    assert any("it does not support an allocator" in note for note in in_cash.notes)


def test_closes_of_a_view_are_a_frame() -> None:
    frames: list[pl.DataFrame] = []

    def keep(view: SignalView) -> dict[str, float]:
        frames.append(research.closes(view))
        return {"BTC": 0.5}

    research.backtest(PRICES, TARGETS, BAND, signal=keep)
    assert frames[-1].columns == ["time", "BTC", "ETH"]
    assert frames[-1]["time"].to_list() == TIMES[: DAYS - 1]
    assert frames[-1]["BTC"].to_list() == pytest.approx(BTC[: DAYS - 1])


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda view: {"BTC": 1.2}, "signal: the weight of BTC is 1.2, not from 0 to 1"),
        (lambda view: {"BTC": 0.6, "ETH": 0.6}, "signal: its spot weights sum to 1.2, not 1"),
        (lambda view: {"BTC": -0.2}, "signal:"),
        (lambda view: {"LINK": 0.5}, "signal: 'LINK' is not an asset"),
        (lambda view: {"BTC": float("nan")}, "signal:"),
        (lambda view: {"BTC": 10**400}, "signal: the weight of 'BTC' is too large"),
        (lambda view: {"BTC": {}}, "signal: the weight of 'BTC' is dict"),
        (lambda view: {"BTC": None}, "signal: the weight of 'BTC' is NoneType"),
        (lambda view: {"BTC": "half"}, "signal: the weight of 'BTC' is str"),
        (lambda view: {0: 0.5}, "signal: 0 is no symbol"),
        (lambda view: {("BTC",): 0.5}, "signal: ('BTC',) is no symbol"),
        (lambda view: pd.Series([0.5, 0.5]), "signal: 0 is no symbol"),
        (lambda view: 5, "signal: it returned 5, not a dict of weights"),
        (lambda view: None, "signal: it returned None, not a dict of weights"),
        (lambda view: SignalTargets(), "signal: it returned neither spot nor futures weights"),
        (lambda view: SignalTargets(futures={"ETH": 0.5}), "signal: it returned futures weights"),
    ],
)
def test_answer_that_a_live_agent_would_refuse_ends_the_backtest(function: Callable[[SignalView], Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        research.backtest(PRICES, TARGETS, BAND, signal=function)
    assert words in caught.value.message
    assert caught.value.message.endswith(", at 2024-01-02 00:00 UTC")


@pytest.mark.parametrize("weight", ["0.5", None, True, [0.5]])
def test_weight_that_is_no_number_is_refused_with_an_example(weight: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        research.backtest(PRICES, TARGETS, BAND, signal=lambda view: {"BTC": weight})
    assert caught.value.remedy == 'return numbers from 0 to 1 by symbol, such as {"BTC": 0.6}'


def test_a_refused_answer_names_its_bar_and_who_takes_the_rest() -> None:
    with pytest.raises(ConfigError) as caught:
        research.backtest(PRICES, TARGETS, BAND, signal=lambda view: {"BTC": 0.05 if len(view.prices["BTC"]) > 4 else 0.9, "USD": 0.1})
    assert caught.value.message == "signal: its spot weights sum to 0.15, not 1, at 2024-01-06 00:00 UTC"
    assert caught.value.remedy.endswith("in a dict without USD they may sum to less, and USD takes the rest")


def test_refused_answer_without_cash_among_the_targets_says_how_it_takes_the_rest() -> None:
    targets = {"BTC": 0.5, "ETH": 0.5}
    with pytest.raises(ConfigError) as caught:
        research.backtest(PRICES, targets, BAND, signal=lambda view: {"BTC": 0.9})
    assert caught.value.remedy.endswith('with "USD": 0 among the targets they may sum to less, and USD takes the rest')
    assert research.backtest(PRICES, targets | {"USD": 0.0}, BAND, signal=lambda view: {"BTC": 0.9}).summary.trades


ESTIMATOR = functools.partial(momentum, SimpleNamespace(prices={}))
"""A function with arguments, as an estimator's method is; it takes no view."""
FAILURES: dict[str, tuple[Any, str]] = {
    "a lambda": (lambda view: 1 / 0, "<lambda> raised ZeroDivisionError: division by zero"),
    "a key": (lambda view: view.prices["LINK"], "<lambda> raised KeyError: 'LINK'"),
    "a partial function": (ESTIMATOR, "partial raised TypeError: momentum() takes 1 positional argument but 2 were given"),
    "an iterator": (iter(()).__next__, "__next__ raised TypeError"),
    "no text": (lambda view: (_ for _ in ()).throw(AssertionError), "<lambda> raised AssertionError"),
    "two lines": (lambda view: (_ for _ in ()).throw(ValueError("first\nsecond")), "<lambda> raised ValueError: first"),
}


@pytest.mark.parametrize("argument", ["signal", "allocator", "trigger"])
@pytest.mark.parametrize(("function", "words"), FAILURES.values(), ids=FAILURES)
def test_error_names_the_bar_the_function_and_what_it_raised(argument: str, function: Any, words: str) -> None:
    arguments: dict[str, Any] = {"trigger": BAND} | {argument: function}
    with pytest.raises(ConfigError) as caught:
        research.backtest(PRICES, TARGETS, **arguments)
    assert re.fullmatch(f"{argument}: {re.escape(words)}.*, at 2024-01-02 00:00 UTC", caught.value.message)
    assert words.startswith(f"{getattr(function, '__name__', 'partial')} raised {type(caught.value.__cause__).__name__}")


def test_error_names_the_line_of_the_function() -> None:
    def divides(view: SignalView) -> dict[str, float]:
        shares = len(view.prices) - 2
        return {"BTC": 1 / shares}

    line = divides.__code__.co_firstlineno + 2
    with pytest.raises(ConfigError, match=f"correct the function at line {line}"):
        research.backtest(PRICES, TARGETS, BAND, signal=divides)


@pytest.mark.parametrize(("bars", "closes"), [(1, "1 close"), (6, "6 closes")])
def test_error_says_how_many_closes_of_which_coins_the_function_saw(bars: int, closes: str) -> None:
    def momentum_of_a_week(view: SignalView) -> dict[str, float]:
        bars_seen = view.prices["BTC"]
        return {"BTC": 0.5} if len(bars_seen) < bars or bars_seen[-7].close else {}

    with pytest.raises(ConfigError, match=rf"raised IndexError: .* \(correct the function at line \d+, which saw {closes} of BTC, ETH\)"):
        research.backtest(PRICES, TARGETS, BAND, signal=momentum_of_a_week)


def searches(**arguments: Any) -> list[Callable[[], object]]:
    return [
        lambda: research.compare(PRICES, TARGETS, {"band": BAND}, **arguments),
        lambda: research.tune(PRICES, TARGETS, [BAND], objective="growth", **arguments),
        lambda: research.stress(PRICES.vstack(PRICES.with_columns(time=PRICES["time"].dt.offset_by("16d"))), TARGETS, BAND, **arguments),
    ]


@pytest.mark.parametrize("search", searches(signal=lambda view: 1 / 0), ids=["compare", "tune", "stress"])
def test_searches_name_the_bar_the_function_and_what_it_raised(search: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match=r"signal: <lambda> raised ZeroDivisionError: division by zero, at \d{4}-\d\d-\d\d 00:00 UTC"):
        search()


MUTATIONS: dict[str, Callable[[SignalView], object]] = {
    "set": lambda view: view.weights.__setitem__("BTC", 1.0),  # type: ignore[attr-defined]
    "delete": lambda view: view.weights.__delitem__("BTC"),  # type: ignore[attr-defined]
    "clear": lambda view: view.prices.clear(),  # type: ignore[attr-defined]
    "update": lambda view: view.prices.update(BTC=()),  # type: ignore[attr-defined]
    "pop": lambda view: view.prices.pop("BTC"),  # type: ignore[attr-defined]
    "bar": lambda view: view.prices["BTC"].__setitem__(0, None),  # type: ignore[attr-defined]
    "options": lambda view: view.options.update(width="1"),  # type: ignore[attr-defined]
    "field": lambda view: setattr(view, "weights", {}),
}


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.parametrize("argument", ["signal", "trigger"])
def test_view_is_read_only_and_the_error_names_the_bar(argument: str, name: str) -> None:
    """As live, where the worker gives the same kind of view."""

    def change(view: SignalView) -> Any:
        if day_of(view.now_s) == 3:
            MUTATIONS[name](view)
        return {"BTC": 0.5} if argument == "signal" else True

    arguments: dict[str, Any] = {"trigger": BAND} | {argument: change}
    with pytest.raises(ConfigError, match=rf"{argument}: change raised \w+: .*, at 2024-01-04 00:00 UTC") as caught:
        research.backtest(PRICES.head(5), TARGETS, **arguments)
    assert isinstance(caught.value.__cause__, TypeError | AttributeError)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: research.signal(5), "signal: 5 is no function"),  # type: ignore[arg-type]
        (lambda: research.signal(momentum, every="soon"), "every"),
        (lambda: research.signal(momentum, window="ever"), "window"),
        (lambda: research.backtest(PRICES, TARGETS, BAND, signal="trend"), "signal: 'trend' is no function"),  # type: ignore[arg-type]
    ],
)
def test_wrong_signal_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


@pytest.mark.parametrize(("target", "added"), [("BTC", "USD"), ("USD", "BTC")])
def test_signal_with_one_target_is_refused(target: str, added: str) -> None:
    with pytest.raises(ConfigError, match=f'{target} is the only target.*add "{added}": 0 to targets'):
        research.backtest(PRICES, {target: 1}, BAND, signal=momentum)
