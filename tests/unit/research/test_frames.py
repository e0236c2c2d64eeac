"""Frames of results as frames of pandas."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from agent import research
from agent.errors import ConfigError
from agent.signals import PriceBar, SignalView
from tests.support.studies.signals import BAND, PRICES, TARGETS, TIMES

DAY_S = 86_400
START_S = int(TIMES[0].timestamp())
VIEW = SignalView(
    START_S + 3 * DAY_S,
    "USD",
    {"BTC": tuple(PriceBar(START_S + day * DAY_S, 100.0 + day) for day in range(2)), "ETH": (PriceBar(START_S, 50.0),)},
    {"BTC": 0.6, "USD": 0.4},
)


@cache
def result() -> research.Backtest:
    return research.backtest(PRICES.head(4), TARGETS, BAND)


@pytest.fixture(autouse=True)
def without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only pandas is installed."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # type: ignore[arg-type]  # its import fails


@pytest.mark.parametrize(
    "make",
    [
        lambda: result().frame(),
        lambda: result().weights,
        lambda: result().trades,
        lambda: result().swaps,
        lambda: result().trades.head(0),
        lambda: result().swaps.head(0),
        lambda: research.Comparison(band=result()).frame(),
        lambda: research.closes(VIEW),
    ],
    ids=["frame", "weights", "trades", "swaps", "no trades", "no swaps", "comparison", "closes"],
)
def test_frame_of_a_result_has_the_same_columns_and_values(make: Callable[[], pl.DataFrame]) -> None:
    frame = make()
    copy = research.to_pandas(frame)
    if "time" in frame.columns:
        assert list(copy.index) == frame["time"].to_list()
        copy = copy.reset_index()
    assert list(copy.columns) == frame.columns
    for name in set(frame.columns) - {"time"}:
        values = [None if isinstance(value, float) and pd.isna(value) else value for value in copy[name].to_list()]
        assert values == [None if value != value else value for value in frame[name].to_list()]


def test_columns_without_rows_keep_their_kind() -> None:
    kinds = research.to_pandas(result().trades.head(0)).dtypes
    assert list(kinds) == ["float64"] * 4 + ["bool"]


def test_time_is_an_index_in_utc_for_returns() -> None:
    closes = research.to_pandas(research.closes(VIEW))
    assert closes.index.name == "time"
    assert closes.index[0] == pd.Timestamp(datetime(2024, 1, 1, tzinfo=UTC))
    assert closes["ETH"].isna().to_list() == [False, True]
    assert closes["BTC"].pct_change().iloc[1] == pytest.approx(0.01)


def test_closes_of_coins_with_gaps__are_aligned_for_a_correlation() -> None:
    """As docs/python.md writes it."""
    days = [1_704_067_200 + 86_400 * day for day in range(6)]
    btc = tuple(PriceBar(day, close) for day, close in zip(days, (100.0, 110.0, 105.0, 120.0, 90.0, 100.0), strict=True))
    eth = tuple(PriceBar(bar.at_s, bar.close / 10) for bar in btc[1::2])
    view = SignalView(days[-1] + 86_400, "USD", {"BTC": btc, "ETH": eth}, {"BTC": 0.6, "USD": 0.4})
    correlation = np.corrcoef(research.closes(view).drop("time").drop_nulls(), rowvar=False)
    assert correlation == pytest.approx(np.ones((2, 2)))


def test_times_of_a_frame__join_naive_ones_with_a_zone() -> None:
    """As docs/python.md writes it, of polars and pandas."""
    closes = research.closes(VIEW)
    naive = closes.select(pl.col("time").dt.replace_time_zone(None), note=pl.lit("x"))
    aware = naive.with_columns(pl.col("time").dt.replace_time_zone("UTC"))
    assert closes.join(aware, on="time")["note"].to_list() == ["x", "x"]
    notes = pd.Series("x", index=pd.DatetimeIndex(naive["time"].to_list()).tz_localize("UTC"), name="note")
    assert research.to_pandas(closes).join(notes)["note"].to_list() == ["x", "x"]


@pytest.mark.parametrize("wrong", [5, {"BTC": [1.0]}, pd.DataFrame({"BTC": [1.0]}), pl.Series([1.0])])
def test_what_is_no_frame_of_polars_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="is no frame of polars"):
        research.to_pandas(wrong)


def test_missing_pandas_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)  # type: ignore[arg-type]  # its import fails
    with pytest.raises(ConfigError, match="the package pandas is not installed"):
        research.to_pandas(result().frame())
