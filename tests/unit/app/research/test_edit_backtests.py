"""The backtest of an edit: which prices it takes, figures worked out by hand, and what it refuses to state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")
pytest.importorskip("polars")

from agent.app.documents.research import EditBacktestDocument
from agent.app.records.price_history import _dated_closes
from agent.app.research import edit_backtests
from agent.app.research.backtests import sample_files
from agent.app.research.edit_backtests import MAX_DAYS, MIN_DAYS, _price_history, edit_backtest
from agent.backtest.data import read_table
from agent.backtest.settings import make_spec
from agent.config.load import LoadedConfig, load_config
from agent.config.tables.fields import parse_duration_s
from agent.errors import ConfigError
from agent.model import Every, HybridTrigger, PricePoint, Threshold
from agent.price_files.read import read_closes
from agent.store import open_store
from tests.cli.documents import misfits
from tests.support import agents
from tests.support.agents import ADDRESSES
from tests.support.backtests import HOUR_S
from tests.support.constants import DAY_S
from tests.support.text import mentions

DAYS = MIN_DAYS + 4
BEGINS_S = 1_700_006_400
SWING = [100.0 * (1 + 0.3 * (day % 16 in range(4, 12))) for day in range(DAYS)]
"""Up by 30 % and back, every sixteen days."""


def with_data(folder: Path, closes: Sequence[float], more: str = "") -> Path:
    """A config whose [data] has closes of WETH in its numeraire, under another name."""
    rows = [f"{BEGINS_S + day * DAY_S},{close}" for day, close in enumerate(closes)]
    (folder / "prices.csv").write_text("\n".join(["time,ETH", *rows]) + "\n")
    path = agents.config(folder)
    path.write_text(path.read_text() + f'[data.mine]\nsource = "prices.csv"\nsymbols = {{ ETH = "WETH" }}\n{more}')
    return path


@pytest.mark.slow
def test_edited_and_present_settings_against_holding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_data(tmp_path, SWING)
    changes = [("target", "WETH=100%"), ("target", "USDC=0%"), ("in-slices", "yes")]
    before = path.read_bytes()
    edit_backtest_document: Any = edit_backtest(str(path), changes)
    assert misfits(EditBacktestDocument, edit_backtest_document) == []
    assert path.read_bytes() == before
    assert (edit_backtest_document["source"], edit_backtest_document["days"], edit_backtest_document["from"]) == (
        "prices of [data]",
        DAYS,
        "2023-11-15",
    )
    assert edit_backtest_document["data_hash"]
    assert edit_backtest_document["present_hash"] == load_config(path).digest != edit_backtest_document["edited_hash"]
    # All in one asset: it holds, so its return is that of the price.
    last = SWING[-1] / SWING[0] - 1
    assert (float(edit_backtest_document["edited"]["return"]), float(edit_backtest_document["held_return"])) == pytest.approx(
        (last, last), abs=1e-6
    )
    assert edit_backtest_document["edited"]["rebalances"] == 0
    assert float(edit_backtest_document["edited"]["max_drawdown"]) == pytest.approx(1 / 1.3 - 1, abs=1e-6)
    over = edit_backtest_document["over_holding"]
    assert abs(float(over["mean"])) < 1e-6
    assert not over["beyond_chance"]
    # Half of each sells what rises and buys what falls, twice in sixteen days.
    assert edit_backtest_document["present"]["rebalances"] >= 7
    assert float(edit_backtest_document["present"]["costs"]) > 0
    assert float(edit_backtest_document["present"]["return"]) > 0
    assert float(edit_backtest_document["over_present"]["mean"]) < 0
    neighbours = edit_backtest_document["neighbours"]
    assert neighbours["settings"] == 15
    assert neighbours["folds"] == 4
    assert 0 <= float(neighbours["overfitting"]) <= 1
    assert neighbours["split_count"] == 3_432
    assert edit_backtest_document["notes"] == []

    # Runs are kept by config and prices.
    monkeypatch.setattr(edit_backtests, "simulate", None)
    assert edit_backtest(str(path), changes) == edit_backtest_document


def test_config_prices__come_first_then_recorded_then_packaged(tmp_path: Path) -> None:
    loaded = load_config(with_data(tmp_path, SWING, '[data.far]\nsource = "https://x.example/far.csv"\n'))
    name, table, notes = _price_history(loaded, loaded)
    assert (name, table.symbols, table.bar_count) == ("prices of [data]", ("WETH",), DAYS)
    assert notes == ["data.far: not downloaded yet: trimtab prices import far"]  # no address is asked
    store = open_store(loaded.store_url, 1, loaded.config.wallet.address, loaded.config.chain.wrapped_native)
    points = [PricePoint(ADDRESSES["WETH"], BEGINS_S + day * DAY_S + 3_600, 10 + day) for day in range(DAYS)]  # type: ignore[arg-type]  # exact
    store.prices.record(ADDRESSES["USDC"], points)
    store.close()
    (tmp_path / "prices.csv").write_text("time,ETH\n1700006400,1\n1700092800,2\n")
    name, table, notes = _price_history(loaded, loaded)
    assert (name, table.bar_count, table.closes[-1].tolist()) == ("recorded prices", DAYS, [10 + DAYS - 1])
    assert notes[-1] == f"prices of [data]: 2 days, fewer than {MIN_DAYS}"
    (tmp_path / "prices.csv").write_text("time,ETH\n1700006400,1\n1700010000,2\n")
    assert _price_history(loaded, loaded)[2][-1] == f"prices of [data]: 1 day, fewer than {MIN_DAYS}"
    other = load_config(agents.config(tmp_path, "other", targets="WETH=40% LINK=30% USDC=30%"))
    name, table, notes = _price_history(loaded, other)
    assert (name, table.symbols, table.bar_count, notes) == ("the packaged prices of 2021", ("WETH", "USDC", "LINK"), 365, [])


def test_an_asset_without_prices_is_named_and_nothing_is_stated(tmp_path: Path) -> None:
    path = agents.config(tmp_path, targets="WETH=40% DAI=30% USDC=30%")
    with pytest.raises(ConfigError, match="the packaged prices of 2021: no prices of DAI") as refused:
        edit_backtest(str(path), [("target", "WETH=30%"), ("target", "DAI=40%")])
    assert "trimtab prices import" in refused.value.remedy


def test_settings_around_an_edit__sum_to_a_whole() -> None:
    band = Threshold(None, 1_000)
    day_s = 86_400
    before, after = (
        make_spec({"A": share, "USD": 10_000 - share}, trigger, "USD") for share, trigger in ((4_000, band), (5_000, Every(28 * day_s)))
    )
    neighbours = edit_backtests._neighbours(before, after)
    assert {targets_bps for targets_bps, _ in neighbours} == {(4_000, 6_000), (4_500, 5_500), (5_000, 5_000), (5_500, 4_500)}
    assert {trigger for _, trigger in neighbours} == {band, *(Every(days * day_s) for days in (14, 21, 28))}
    hybrid = HybridTrigger(band, Every(day_s))
    beside = edit_backtests._neighbours(before, make_spec({"A": 4_000, "USD": 6_000}, hybrid, "USD"))
    widths = {trigger.threshold.relative_bps for _, trigger in beside if isinstance(trigger, HybridTrigger)}
    assert widths == {500, 750, 1_000, 1_500, 2_000}
    assert read_table(sample_files()[0]).bar_count == 365


@pytest.mark.parametrize("bar", ["", "0s", "12h"])
def test_a_close_has_the_day_that_an_import_gives_it(tmp_path: Path, bar: str) -> None:
    rows = [f"{BEGINS_S + day * DAY_S},100,200,90,{100 + day},1" for day in range(MIN_DAYS + 4)]
    (tmp_path / "prices.csv").write_text("\n".join(["timestamp,open,high,low,close,volume", *rows]) + "\n")
    path = agents.config(tmp_path)
    bar_line = f'bar = "{bar}"\n' if bar else ""
    path.write_text(path.read_text() + f'[data.mine]\nsource = "prices.csv"\nsymbols = {{ prices = "WETH" }}\n{bar_line}')
    loaded = load_config(path)
    _, table, _ = _price_history(loaded, loaded)
    file_closes = read_closes(tmp_path / "prices.csv")
    bar_s = parse_duration_s(bar) if bar else None
    later_s = int(table.times_s[-1]) + 9 * DAY_S
    imported, _ = _dated_closes(file_closes.series[0], "WETH", path, bar_s, file_closes.has_bar_starts, later_s)
    assert file_closes.has_bar_starts
    close_by_day = {close_s // DAY_S: float(close) for close_s, close in imported}
    shown_by_day = {int(time_s) // DAY_S: float(close) for time_s, close in zip(table.times_s, table.closes[:, 0], strict=True)}
    shared_days = close_by_day.keys() & shown_by_day.keys()
    assert len(shared_days) >= MIN_DAYS
    assert {day: shown_by_day[day] for day in shared_days} == {day: close_by_day[day] for day in shared_days}


def test_notes_of_a_long_history_are_those_of_its_newest_days(tmp_path: Path) -> None:
    swing = [*SWING, *[100.0] * (MAX_DAYS - 5)]
    path = with_data(tmp_path, swing)
    rows = (tmp_path / "prices.csv").read_text().splitlines()
    (tmp_path / "prices.csv").write_text("\n".join([*rows[:3], *rows[4:]]) + "\n")  # a day is missing before the newest 730
    loaded = load_config(path)
    _, table, notes = _price_history(loaded, loaded)
    assert (table.bar_count, notes) == (MAX_DAYS, [])


def with_files(folder: Path, files: dict[str, tuple[str, list[tuple[int, float]]]], **options: str) -> LoadedConfig:
    """A config whose [data] has a file of closes for each token: its column and its rows."""
    path = agents.config(folder, **options)
    tables = []
    for symbol, (column, rows) in files.items():
        (folder / f"{symbol}.csv").write_text("\n".join([f"time,{column}", *(f"{time_s},{close}" for time_s, close in rows)]) + "\n")
        tables.append(f'[data.{symbol.lower()}]\nsource = "{symbol}.csv"\nsymbols = {{ {column} = "{symbol}" }}\n')
    path.write_text(path.read_text() + "".join(tables))
    return load_config(path)


DAILY = [(BEGINS_S + day * DAY_S, 100.0 + day) for day in range(DAYS)]
BASKET = {"targets": "WETH=40% LINK=30% USDC=30%"}


@pytest.mark.parametrize(
    ("files", "options", "reason"),
    [
        ({"WETH": ("ETHEUR", DAILY)}, {}, "the closes are in EUR, not in USDC"),
        ({"WETH": ("ETHUSDT", DAILY), "LINK": ("LINKEUR", DAILY)}, BASKET, "the closes are in several currencies: EUR, USD"),
        ({"WETH": ("ETHEUR", DAILY), "USDC": ("USDC", DAILY), "LINK": ("LINKUSD", DAILY)}, BASKET, "several currencies: EUR, USD"),
        ({"USDC": ("USDC", DAILY)}, {"numeraire": "WETH"}, "numeraire: the file has no prices of WETH, and WETH is no known currency"),
    ],
    ids=["another", "one of two files", "with the numeraire", "unknown unit"],
)
def test_prices_in_another_currency_are_not_used(tmp_path: Path, files: Any, options: dict[str, str], reason: str) -> None:
    loaded = with_files(tmp_path, files, **options)
    name, _, notes = _price_history(loaded, loaded)
    assert name == "the packaged prices of 2021"
    assert mentions(notes, "prices of [data]: ", reason)


def test_prices_in_one_currency_are_used(tmp_path: Path) -> None:
    in_euro = with_files(tmp_path, {"WETH": ("ETHEUR", DAILY), "USDC": ("USDCEUR", DAILY)})
    assert _price_history(in_euro, in_euro)[0] == "prices of [data]", "both are in EUR"


HOURS = range(24 * DAYS)


@pytest.mark.parametrize("daily_hour", [0, 7, 20])
@pytest.mark.parametrize("hours", [HOURS, HOURS[13:-9], HOURS[::6]], ids=["hourly", "part of a day", "six hours"])
def test_closes_of_a_day_have_one_time(tmp_path: Path, daily_hour: int, hours: range) -> None:
    """Each close is the number of its hour: those of a bar are of the same hour, or the newest before it."""
    daily = [(BEGINS_S + hour * HOUR_S, hour + 1.0) for hour in range(daily_hour, 24 * DAYS, 24)]
    other = [(BEGINS_S + hour * HOUR_S, hour + 1.0) for hour in hours]
    for files in ({"WETH": ("ETH", daily), "LINK": ("LINK", other)}, {"LINK": ("LINK", other), "WETH": ("ETH", daily)}):
        loaded = with_files(tmp_path, files, **BASKET)
        name, table, _ = _price_history(loaded, loaded)
        assert name == "prices of [data]"
        weth = table.closes[:, table.symbols.index("WETH")]
        link = table.closes[:, table.symbols.index("LINK")]
        assert (weth == (table.times_s - BEGINS_S) / HOUR_S + 1).all()
        ages = (weth - link)[~np.isnan(link) & (table.times_s <= other[-1][0])]
        assert len(ages) >= DAYS - 2
        assert 0 <= ages.min() <= ages.max() < hours.step


def test_recorded_closes_of_a_day_have_one_time(tmp_path: Path) -> None:
    loaded = load_config(agents.config(tmp_path, **BASKET))
    store = open_store(loaded.store_url, 1, loaded.config.wallet.address, loaded.config.chain.wrapped_native)
    hours = {"WETH": range(0, 24 * DAYS, 24), "LINK": HOURS}
    points = [PricePoint(ADDRESSES[symbol], BEGINS_S + hour * HOUR_S, hour + 1) for symbol in hours for hour in hours[symbol]]  # type: ignore[arg-type]  # exact
    store.prices.record(ADDRESSES["USDC"], points)
    store.close()
    name, table, _ = _price_history(loaded, loaded)
    assert name == "recorded prices"
    assert table.closes[:, 0].tolist() == table.closes[:, 1].tolist()
