"""An allocator of a backtest: the keys of a config's table, or a function; which are refused, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import research
from agent.config.tables.weights import AllocatorTable
from agent.config.weights import build_allocator
from agent.errors import ConfigError
from agent.model import PRICE_ONLY_METHODS, AllocationMethod
from agent.research.allocators import with_table
from agent.research.inputs import read_inputs
from tests.support.studies.signals import BAND, PRICES, TARGETS, momentum

EQUAL: dict[str, Any] = {"every": "7d", "keep": "7d", "churn": "0%", "until_chosen": "targets"}
RISK = EQUAL | {"window": "8d", "step": "1d", "min_history": "3d", "max_age": "2d", "fixed": ["USD"]}


def test_table_of_a_config_chooses_the_weights() -> None:
    result = research.backtest(PRICES, TARGETS, BAND, allocator=research.allocator("equal", **EQUAL, fixed=["USD"]))
    assert result.weights.drop("time").row(2) == pytest.approx([0.35, 0.35, 0.3], abs=0.02)
    assert result.summary.trades > 0


def test_returns_of_the_window_choose_the_weights() -> None:
    """ETH moves steadily and BTC does not, so that ETH gets more."""
    results = research.compare(PRICES, TARGETS, {"band": BAND}, allocator=research.allocator("inverse_volatility", **RISK))
    btc, eth, usd = results["band"].weights.drop("time").row(-1)
    assert eth > 0.5 > 0.2 > btc
    assert usd == pytest.approx(0.3, abs=0.02)


def test_allocator__is_the_config_s_and_waits_for_nobody() -> None:
    table = AllocatorTable.model_validate({"kind": "risk_parity"} | RISK)
    spec = read_inputs(PRICES, TARGETS, BAND, {}).spec
    of_the_config = build_allocator(table, spec.portfolio, Path(), chain_id=1)
    assert of_the_config.max_change_bps is not None
    assert with_table(spec, table).portfolio.allocator == replace(of_the_config, max_change_bps=None)


def test_function_is_an_allocator_as_it_is_a_signal() -> None:
    by_allocator = research.backtest(PRICES.head(6), TARGETS, BAND, allocator=research.signal(momentum))
    by_signal = research.backtest(PRICES.head(6), TARGETS, BAND, signal=momentum)
    assert by_allocator.weights.equals(by_signal.weights)


@pytest.mark.parametrize(
    "allocator",
    [
        momentum,
        research.signal(momentum, every="2d", window="3d"),
        research.allocator("inverse_volatility", **RISK | {"every": "2d", "keep": "2d"}),
        research.allocator("risk_parity", **RISK | {"every": "2d", "keep": "2d"}),
    ],
    ids=["function", "function each two days", "inverse volatility", "risk parity"],
)
def test_later_prices_change_nothing_earlier(allocator: Any) -> None:
    length = 11
    whole = research.backtest(PRICES, TARGETS, BAND, allocator=allocator)
    start = research.backtest(PRICES.head(length), TARGETS, BAND, allocator=allocator)
    assert whole.summary.trades > start.summary.trades > 0
    assert start.weights.equals(whole.weights.head(length))
    assert start.frame()["value"].to_list() == whole.frame()["value"].head(length).to_list()


def backtested(allocator: Any, **arguments: Any) -> Callable[[], object]:
    return lambda: research.backtest(PRICES.head(4), TARGETS, BAND, allocator=allocator, **arguments)


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "a text": (backtested("equal"), "allocator: 'equal' is no allocator"),
    "a method": (backtested(AllocationMethod.EQUAL), "allocator: AllocationMethod is no allocator"),
    "its maker": (backtested(research.allocator), "allocator: function is no allocator"),
    "beside a signal": (backtested(momentum, signal=momentum), "allocator: signal chooses the weights already"),
    "an answer": (backtested(lambda view: {"BTC": 1.2}), "allocator: the weight of BTC is 1.2"),
    "an unknown kind": (lambda: research.allocator("best"), "allocator: kind: choose from 'fixed'"),
    "a missing key": (lambda: research.allocator("equal", every="7d"), "allocator: keep, churn, until_chosen: missing"),
    "an unknown key": (lambda: research.allocator("equal", **EQUAL, often="7d"), "allocator: often: unknown key"),
    "more than prices": (
        backtested(research.allocator("market_cap", **EQUAL, max_age="2d")),
        "allocator: kind market_cap needs more than prices",
    ),
    "the numeraire": (backtested(research.allocator("risk_parity", **(RISK | {"fixed": []}))), "allocator: fixed: USD is the numeraire"),
    "no asset": (backtested(research.allocator("equal", **EQUAL, fixed=["LINK"])), "allocator: fixed: 'LINK' is not an asset"),
}


@pytest.mark.parametrize(("make", "words"), WRONG.values(), ids=WRONG)
def test_wrong_allocator_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert words in caught.value.message


def test_choices_are_texts_or_members() -> None:
    by_text = research.backtest(PRICES.head(6), TARGETS, BAND, destination="halfway")
    by_member = research.backtest(PRICES.head(6), TARGETS, BAND, destination=research.Destination.HALFWAY)
    assert by_text.trades.equals(by_member.trades)
    with pytest.raises(ConfigError, match="jobs: -1"):
        research.tune(
            PRICES,
            TARGETS,
            [BAND],
            destinations=[research.Destination.HALFWAY],
            allocators=[research.AllocationMethod.EQUAL],
            objective=research.Objective.GROWTH,
            jobs=-1,
        )


def test_cash_that_is_weighed_as_an_asset_is_noted() -> None:
    words = 'allocator: equal gives USD the share of each of 3 assets; fixed=["USD"] keeps its target'
    for keys, is_noted in (({}, True), ({"fixed": ["USD"]}, False), ({"fixed": ["BTC"]}, True)):
        result = research.backtest(PRICES, TARGETS, BAND, allocator=research.allocator("equal", **EQUAL, **keys))
        assert (words in result.notes) is is_noted
    without_cash = research.backtest(PRICES, {"BTC": 0.6, "ETH": 0.4}, BAND, allocator=research.allocator("equal", **EQUAL))
    assert not any(note.startswith("allocator") for note in without_cash.notes)


@pytest.mark.parametrize("kind", ["hrp", research.AllocationMethod.HRP], ids=["a text", "a member"])
def test_kind_that_is_no_allocator_is_in_the_example(kind: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        research.backtest(PRICES, TARGETS, BAND, allocator=kind)
    assert 'research.allocator("hrp", every="28d"' in caught.value.remedy


def test_help_of_the_allocator__names_each_kind_that_takes_prices_alone() -> None:
    kinds = {method.value for method in PRICE_ONLY_METHODS} - {"fixed"}
    assert {kind for kind in kinds if f'"{kind}"' in str(research.allocator.__doc__)} == kinds


def test_missing_keys__are_named_together_with_an_example_of_the_kind() -> None:
    with pytest.raises(ConfigError) as caught:
        research.allocator("inverse_volatility", every="28d")
    assert "keep, churn, until_chosen, window, step, min_history, max_age: missing" in caught.value.message
    example = caught.value.remedy.partition("research.allocator")[2].partition(";")[0]
    assert str(eval(f"allocator{example}", {"allocator": research.allocator})).startswith("allocator('inverse_volatility', every='28d'")
