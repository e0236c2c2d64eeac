"""Arguments of research from Python: each of a wrong kind, or of an unknown name, is named with what to write."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from functools import partial
from inspect import Parameter, isfunction, signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from agent import research
from agent.backtest.settings import SimulationSettings
from agent.calls import described
from agent.errors import ConfigError
from agent.research.arguments import duration_s
from agent.research.inputs import MarketArguments, cores_and_scheduler, read_inputs

DAYS = [1_700_000_000 + 86_400 * day for day in range(60)]
PRICES = pl.DataFrame({"time": DAYS, "BTC": [100.0 + day % 7 for day in range(60)]})
TARGETS = {"BTC": 0.5, "USD": 0.5}
BAND = research.band(0.1)
CALLS: dict[str, Callable[..., object]] = {
    "backtest": partial(research.backtest, prices=PRICES, targets=TARGETS, trigger=BAND),
    "compare": partial(research.compare, prices=PRICES, targets=TARGETS, triggers={"band": BAND}),
    "tune": partial(research.tune, prices=PRICES, targets=TARGETS, triggers=[BAND]),
    "stress": partial(research.stress, prices=PRICES, targets=TARGETS, trigger=BAND, paths=2),
}
WRONG_BY_KIND = {
    "int": -5,
    "str": "nonsense",
    "list": ["nonsense"],
    "dict": {5: "nonsense"},
    "Series": pd.Series([1.0]),
    "class": dict,
}
FITTING_KINDS = {"numeraire": {"str"}, "folder": {"str"}, "progress": set[str]()}


def argument_names(name: str) -> list[str]:
    parameters = signature(getattr(research, name)).parameters
    names = [*parameters, *MarketArguments.__annotations__, *(["signal", "flows"] if name == "compare" else [])]
    return [argument for argument in dict.fromkeys(names) if argument not in {"market", "arguments"}]


ROWS = [
    (name, argument, kind)
    for name in CALLS
    for argument in argument_names(name)
    for kind in WRONG_BY_KIND
    if kind not in FITTING_KINDS.get(argument, set()) and (argument, kind) != ("jobs", "str")
]


@pytest.mark.parametrize(("name", "argument", "kind"), ROWS, ids=["-".join(row) for row in ROWS])
def test_an_argument_of_a_wrong_kind_is_named(name: str, argument: str, kind: str) -> None:
    with pytest.raises(ConfigError) as error:
        CALLS[name](**{argument: WRONG_BY_KIND[kind]})
    assert argument.rstrip("s") in error.value.message
    assert error.value.remedy
    assert "--" not in f"{error.value.message} {error.value.remedy}"


@pytest.mark.parametrize(
    ("unknown", "remedy"),
    [
        ("fees", "did you mean costs? write costs="),
        ("slippage", "did you mean costs?"),
        ("cash", "did you mean value?"),
        ("seed", "choose from prices, targets"),
    ],
)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_unknown_argument_is_named(call: Callable[..., object], unknown: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as error:
        call(**{unknown: 1})
    assert error.value.message == f"{unknown}: no such argument"
    assert error.value.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (partial(CALLS["compare"], triggers=BAND), 'write for example {"band": research.band(0.1)'),
        (partial(CALLS["tune"], triggers=BAND), "write for example triggers=[research.band(0.1)"),
        (partial(CALLS["backtest"], trigger=research.band), "write for example research.band(0.1)"),
        (partial(CALLS["backtest"], trigger=research.every), 'write for example research.every("7d")'),
        (partial(CALLS["backtest"], targets={"BTC": 1.0}, trigger=None), 'add "USD": 0, or give a band or a schedule'),
        (partial(CALLS["tune"], targets={"BTC": 1.0}), 'add "USD": 0, or give a band or a schedule'),
        (partial(CALLS["backtest"], signal=research.signal), "signal: function is no function that chooses weights"),
        (partial(CALLS["stress"], scenarios="crash"), "write for example scenarios=[research.Scenario.CRASH]"),
        (partial(CALLS["backtest"], start=2023), 'start: 2023 is no time (write for example "2021-03-01")'),
        (partial(CALLS["backtest"], flows=[("2023-02-01", 5)]), 'write for example flows={"2021-04-01": 250'),
        (partial(research.every, "7d", 0.1), "every: 0.1 is no band"),
        (partial(research.closes, {"BTC": []}), "view: {'BTC': []} is no view (call it in the function"),
        (partial(research.band, [0.1]), "band: relative [0.1] is no share"),
    ],
)
def test_a_usual_mistake_is_answered_with_what_to_write(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        call()
    assert words in str(error.value)


def test_a_series_is_a_mapping() -> None:
    day = pd.Timestamp(DAYS[9], unit="s")
    by_series = research.backtest(PRICES, pd.Series(TARGETS), BAND, flows=pd.Series({day: 1000.0}))  # type: ignore[arg-type]
    assert by_series.summary == research.backtest(PRICES, TARGETS, BAND, flows={str(day): 1000}).summary


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a file/r.html", "/a file is no folder"),
        ("none/r.html", "/none is no folder"),
        ("r.pdf", "path: r.pdf does not end in .html"),
        ("report", "path: report does not end in .html"),
        ("long" * 99 + ".html", "… cannot be written: File name too long"),
        (".", "is a folder"),
        (5, "path: 5 is no path"),
        ("a\0b.html", " is no path"),
    ],
)
def test_a_report_names_a_path_that_cannot_be_written(path: Any, words: str, tmp_path: Path) -> None:
    result = research.backtest(PRICES, TARGETS, BAND)
    (tmp_path / "a file").touch()
    with pytest.raises(ConfigError) as error:
        result.report(tmp_path / path if isinstance(path, str) else path)
    assert words in error.value.message
    assert error.value.remedy
    assert [entry.name for entry in tmp_path.iterdir()] == ["a file"]


def test_costs_show_what_they_are_and_are_those_of_the_market() -> None:
    costs = research.Costs(fee=0.003, depth=1_000, latency=2)
    assert repr(costs) == "Costs(fee=0.003, depth=1000, latency=2)"
    assert costs == research.Costs(0.003, 1_000, 2)
    settings = read_inputs(PRICES, TARGETS, BAND, {"costs": costs, "value": 500}).settings
    assert settings == SimulationSettings(Fraction(1_000), 3_000, Fraction(500), latency_bars=2)


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ({"fee": 0.5}, "fee: 50 %"),
        ({"fee": float("inf")}, "fee: inf is no number"),
        ({"fee": -0.1}, "fee: -10 %"),
        ({"fee": None}, "fee: None is no number"),
        ({"fee": "dear"}, "fee: 'dear' is no number"),
        ({"depth": 0}, "depth: 0 is not above zero"),
        ({"latency": 0.5}, "latency: 0.5 is no whole number"),
        ({"latency": -1}, "latency: -1"),
        ({"latency": 10**20}, "latency: 100000000000000000000"),
        ({"latency": 10**400}, "latency: a number of too many digits is no whole number"),
    ],
)
def test_costs_that_cannot_be_are_refused_where_they_are_written(costs: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        research.Costs(**costs)
    assert error.value.message.startswith(words)
    assert error.value.remedy
    assert "--" not in f"{error.value.message} {error.value.remedy}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"costs": research.Costs(fee=0.3)}, "fee=0.3 is 30 % of each swap; 0.3 % is fee=0.003"),
        ({"costs": research.Costs(fee="0.05")}, "fee=0.05 is 5 % of each swap; 0.05 % is fee=0.0005"),
        ({"costs": research.Costs(depth=100)}, "depth: one side of a pool, 100 USD, is less than the portfolio of 10000 USD"),
        (
            {"value": 0.5},
            "value=0.5: the whole portfolio is worth 0.5 USD at the start; value is an amount, by default 10,000 USD, and no share",
        ),
    ],
)
def test_figure_that_is_probably_of_another_unit_is_noted(arguments: dict[str, Any], words: str) -> None:
    for notes in notes_by_call(arguments).values():
        assert words in " ".join(notes)


@pytest.mark.parametrize(
    "arguments",
    [{"costs": research.Costs(fee=0.01, depth=10_000)}, {"value": 10}],
    ids=["highest fee, depth of the portfolio", "least value"],
)
def test_likely_figure__is_not_noted(arguments: dict[str, Any]) -> None:
    for notes in notes_by_call(arguments).values():
        assert not any(words in note for note in notes for words in ("of each swap", "one side of a pool", "a share of an amount"))


def test_help_of_a_backtest__names_each_trigger() -> None:
    for maker in (research.band, research.every, research.cron, research.tracking):
        assert f"`{maker.__name__}`" in str(research.backtest.__doc__)


@pytest.mark.parametrize("call", [research.stress, research.tune])
def test_help__names_the_arguments_of_a_backtest_that_it_takes(call: Callable[..., object]) -> None:
    for name in MarketArguments.__annotations__:
        assert f"`{name}`" in str(call.__doc__)


def notes_by_call(arguments: dict[str, Any]) -> dict[str, list[str]]:
    notes: dict[str, list[str]] = {name: CALLS[name](**arguments).notes for name in ("backtest", "stress")}  # type: ignore[attr-defined]
    return {**notes, "tune": CALLS["tune"](**arguments).document["notes"]}  # type: ignore[attr-defined]


def calls_of_research() -> dict[str, Callable[..., object]]:
    """All that a reader may call by names: functions, classes with arguments, and methods."""
    result = research.backtest(PRICES, TARGETS, BAND)
    functions = {name: getattr(research, name) for name in research.__all__ if isfunction(getattr(research, name))}
    methods = {"report": result.report, "signal.config": research.signal(max).config, "trigger.config": research.trigger(max).config}
    return {name: call for name, call in (functions | methods | {"Costs": research.Costs}).items() if name != "allocator"}


@pytest.mark.parametrize("name", calls_of_research())
def test_misspelt_argument_is_named_with_the_nearest(name: str) -> None:
    call = calls_of_research()[name]
    argument = next(iter(signature(call).parameters))
    with pytest.raises(ConfigError) as error:
        call(**{f"{argument}x": 1})
    is_open = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in signature(call).parameters.values())
    assert error.value.message == f"{argument}x: no such argument" or is_open
    assert error.value.remedy.startswith((f"did you mean {argument}?", "its arguments are"))
    with pytest.raises(ConfigError, match=r": too many positional arguments \(its arguments are "):
        call(*range(20))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"trigger": BAND}, "trigger: no such argument (did you mean triggers?)"),
        ({"signals": max}, "signals: no such argument (did you mean signal?)"),
        ({"fee": 0.1}, "fee: no such argument (did you mean costs? write costs=research.Costs(fee=0.003))"),
        ({"progress": 5}, "progress: 5 is no function (write for example progress=print)"),
        ({"value": None}, "value: None is no number (write for example value=10000)"),
    ],
)
def test_argument_of_a_comparison_is_checked_before_prices_are_read(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        research.compare("no such file.csv", TARGETS, {"band": BAND}, **arguments)
    assert str(error.value) == words


@pytest.mark.parametrize("name", ["backtest", "compare", "tune", "stress", "signal", "trigger", "every", "closes", "to_pandas", "report"])
def test_missing_argument_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: missing a required argument: '\w+' \(its arguments are "):
        calls_of_research()[name]()


MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "no triggers": (partial(CALLS["tune"], triggers=[]), "triggers: [] is no list of triggers (write for example triggers=[research.band"),
    "no destinations": (partial(CALLS["tune"], destinations=[]), "destinations: [] is no list of destinations"),
    "no allocators": (partial(CALLS["tune"], allocators=()), "allocators: () is no list of methods"),
    "no scenarios": (partial(CALLS["stress"], scenarios=[]), "scenarios: [] is no list of scenarios"),
    "folder with a null": (partial(CALLS["tune"], folder="a\0b"), "folder: 'a\\x00b' is no folder (write for example folder="),
    "path of a signal": (lambda: research.signal(max).config(5, step="1d"), "path: 5 is no path (give a text or a Path)"),  # type: ignore[arg-type]
    "path of a trigger": (lambda: research.trigger(max).config("a\0b.py", step="1d"), "path: 'a\\x00b.py' is no path"),
    "fee below a millionth": (lambda: research.Costs(fee=1e-7), "fee: 1e-07 is finer than 0.000001 (round it)"),
    "fee between millionths": (lambda: research.Costs(fee=0.0000015), "fee: 1.5e-06 is finer than 0.000001 (round it)"),
    "a third of a fee": (lambda: research.Costs(fee=Fraction(1, 3_000)), "fee: 1/3000 is finer than 0.000001 (round it)"),
    "fee of percents": (lambda: research.Costs(fee=3), "fee: 300 % (use a fee of at least 0 and below 50 %, such as 0.003)"),
    "share of a text": (partial(CALLS["backtest"], targets={"BTC": "50%", "USD": 0.5}), "targets: '50%' of BTC is no number"),
    "share of None": (partial(CALLS["tune"], targets={"BTC": None, "USD": 0.5}), "targets: None of BTC is no number"),
    "share of NaN": (partial(CALLS["stress"], targets={"BTC": 0.5, "USD": float("nan")}), "targets: nan of USD is no number"),
    "share below a bp": (partial(CALLS["backtest"], targets={"BTC": 0.99999, "USD": 0.00001}), "targets: USD is 1e-05, finer than 0.0001"),
    "symbol of nothing": (partial(CALLS["backtest"], targets={"BTC": 0.5, "": 0.5}), "targets: '' is no symbol"),
    "symbol of a space": (partial(CALLS["backtest"], targets={"BTC": 0.5, " ": 0.5}), "targets: ' ' is no symbol"),
    "symbol with a space": (partial(CALLS["backtest"], targets={"BTC": 0.5, "USD ": 0.5}), "targets: 'USD ' is no symbol"),
    "amount of a flow": (partial(CALLS["backtest"], flows={"2023-12-01": "abc"}), "flows: 'abc' of 2023-12-01 is no number"),
    "flow at the start": (
        partial(CALLS["backtest"], flows={"2023-11-14 22:13:20": 5}),
        "flows: 2023-11-14 22:13:20+00:00 is not within the simulation (write a time after 2023-11-14 22:13:20+00:00, at most"
        " 2024-01-12 22:13:20+00:00; value sets the initial balance)",
    ),
    "flow after the end": (
        partial(CALLS["compare"], flows={"2025-01-01": 5}),
        "flows: 2025-01-01 00:00:00+00:00 is not within the simulation",
    ),
    "flow of more than all": (
        partial(CALLS["backtest"], flows={"2023-12-01": -20_000}),
        "flows: a withdrawal of 20,000.00 USD at 2023-12-01 22:13 UTC is not below the portfolio's value of 10,",
    ),
    "too many bars": (partial(CALLS["stress"], bars=61), "bars: 61, but the prices have 60 (use 60 or fewer)"),
    "horizon of a bar": (
        partial(CALLS["stress"], horizon="36h"),
        "horizon: 1 day 12 h is 1 bar of 1 day, the prices have 60 (write 3 days to 60 days)",
    ),
    "horizon beyond the prices": (partial(CALLS["stress"], horizon="61d"), "horizon: 61 days is 61 bars of 1 day, the prices have 60"),
    "interval of a second": (
        partial(CALLS["backtest"], trigger=research.every("1s")),
        "every: 1s (write a time from 30m to 28d, or a cron time such as @monthly)",
    ),
    "strictness": (lambda: research.tracking("Normal"), "tracking: 'Normal' is unknown"),
    "list of a strictness": (
        lambda: research.tracking(["strict"]),  # type: ignore[arg-type]  # wrong on purpose
        "strictness: ['strict'] is no text (write for example strictness=\"strict\"",
    ),
    "complex band": (lambda: research.band(1 + 0j), "band: relative (1+0j) is no share"),  # type: ignore[arg-type]  # wrong on purpose
    "value below a base unit": (
        partial(CALLS["backtest"], value=1e-30),
        "value: 1e-30 is too low for one base unit of BTC (18 decimals) (raise value)",
    ),
}


@pytest.mark.parametrize(("call", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_has_its_field_value_and_remedy(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        call()
    assert str(error.value).startswith(words)
    assert "--" not in str(error.value)


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    assert (
        CALLS["backtest"](costs=research.Costs(latency=np.int64(1))).summary == CALLS["backtest"](costs=research.Costs(latency=1)).summary
    )  # type: ignore[arg-type, attr-defined]
    counts = {"paths": np.int64(2), "step_paths": np.int64(1), "bars": np.int32(20), "scenarios": ["crash"]}
    test = CALLS["stress"](**counts)
    assert (
        test.document == CALLS["stress"](**{name: int(count) if name != "scenarios" else count for name, count in counts.items()}).document
    )  # type: ignore[attr-defined, call-overload]
    assert cores_and_scheduler(np.int64(2)) == (2, "")


@pytest.mark.parametrize(
    "arguments", [{"value": 10**30}, {"costs": research.Costs(depth=1e-9)}, {"value": 1e-6}], ids=["large", "shallow", "small"]
)
def test_rebalances_that_could_not_trade_are_noted(arguments: dict[str, Any]) -> None:
    result = research.backtest(PRICES, TARGETS, research.band(0.02), **arguments)
    (note,) = [note for note in result.notes if note.startswith("no trade at ")]
    assert "nothing to trade of a drift" in note
    assert "see " not in note
    assert note.count("(") == note.count(")")


@pytest.mark.parametrize("duration", [timedelta(0), timedelta(seconds=-1), timedelta(milliseconds=500)])
def test_duration_that_is_no_whole_number_of_seconds_is_refused(duration: timedelta) -> None:
    with pytest.raises(ConfigError, match="is no whole number of seconds"):
        duration_s(duration, "every")
    assert duration_s(timedelta(seconds=1), "every") == 1


@pytest.mark.parametrize(("number", "text"), [(10**60 - 1, "9" * 60), (10**60, "a number of too many digits")])
def test_number_of_sixty_digits_is_written_out(number: int, text: str) -> None:
    assert described(number) == text
