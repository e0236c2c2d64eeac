"""`trimtab backtest --config` with [futures]: spot, futures and hedges by one step, in document, terminal and report."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from tests.cli.documents import misfits
from tests.cli.mapping_documents import BacktestDocument
from tests.cli.tools import CommandResult
from tests.support.configs.futures import FUTURES
from tests.support.configs.samples import config_text

pytest.importorskip("polars")

Bare = Callable[..., CommandResult]
HEDGE = '[futures.hedge]\nhorizon = "30d"\nmin_saving = "0.5%"\ntax_rate = "25%"\ncapital_cost = "4%"\n'
STRATEGIES = """
[[strategies]]
name = "falling"
share = "50%"
weights = { USDC = "100%" }
futures = { WETH = "100%" }
floor = "0%"
trigger = { kind = "threshold", absolute = "5%" }
destination = "target"
cooldown = "0s"
[strategies.health]
sharpe = 0.5
recover = 0.8
window = "20d"
period = "30d"
recover_period = "14d"
"""
ROOMY = ("turnover", "daily_turnover", "daily_loss", "total_loss", "plan_cost")


def config_of(folder: Path, **futures: str) -> Path:
    """A config of WETH and USDC with a market of WETH that only hedges, without tight limits."""
    config = "\n".join(f'{line.split(" =")[0]} = "off"' if line.split(" =")[0] in ROOMY else line for line in config_text().splitlines())
    config = config.replace("[limits]", '[limits]\ni_accept = ["daily_loss", "plan_cost"]', 1)
    config = config.replace("confirm_blocks = 3", "confirm_blocks = 0").replace('max_live_value = "1000"', 'max_live_value = "off"')
    table = FUTURES.replace(FUTURES[FUTURES.index('[[futures.markets]]\nsymbol = "WBTC"') : FUTURES.index("[futures.limits]")], "")
    for old, new in {'max_position = "70%"': 'max_position = "100%"', 'weight = "60%"': 'weight = "100%"', **futures}.items():
        assert old in table, old
        table = table.replace(old, new, 1)
    (folder / "trimtab.toml").write_text(config + table)
    return folder / "trimtab.toml"


def prices(folder: Path, *closes: float) -> Path:
    rows = [f"2021-01-{day:02},{close}" for day, close in enumerate(closes, 1)]
    (folder / "prices.csv").write_text("\n".join(["time,WETH", *rows]) + "\n")
    return folder / "prices.csv"


@pytest.mark.parametrize("setting", ["leverage=2x", "leverage=3x", "band=5%", "max-utilisation=80%", "spot-multiple=0%", "stress=10%"])
def test_what_the_config_sets__is_refused_also_at_its_usual_value(bare: Bare, tmp_path: Path, setting: str) -> None:
    arguments = ("--config", str(config_of(tmp_path)), "--prices", str(prices(tmp_path, 100, 140, 140)), "--futures", setting)
    error = bare("backtest", *arguments, "--json").error
    assert (error["message"], error["remedy"]) == (f"--futures {setting.partition('=')[0]}: the config sets it", "omit it")


ONLY_HEDGES = {'leverage = "2x"': 'leverage = "0x"', 'weight = "100%"': 'weight = "0%"', "[futures.limits]": HEDGE + "[futures.limits]"}


def test_hedges_and_futures__are_in_document_terminal_and_report(bare: Bare, tmp_path: Path) -> None:
    config = config_of(tmp_path, **ONLY_HEDGES)
    page = tmp_path / "page.html"
    arguments = (
        "backtest",
        "--config",
        str(config),
        "--prices",
        str(prices(tmp_path, 100, 140, 140, 290, 290, 145, 145)),
        "--futures",
        "margin=4000",
    )
    result = bare(*arguments, "--html", str(page), "--json")
    assert result.code == 0, result.why
    assert not misfits(BacktestDocument, result.json)
    book = result.json["futures"]
    (hedge,) = book["hedges"]
    assert Fraction(hedge["size"]) < 0
    assert hedge["closed"] > hedge["opened"]
    assert Fraction(hedge["profit"]) > 0
    assert [fill["trigger"] for fill in book["agent"]["fills"]] == ["hedge", "close_hedge"]
    spot = Fraction(result.json["final_value"]) - Fraction(book["agent"]["final_value"])
    assert spot > 10_000, "final_value is wallet and margin account together"
    assert Fraction(result.json["start_value"]) == 14_000
    tables = next(section for section in json.loads(page.with_suffix(".json").read_text())["sections"] if section["title"] == "Futures")[
        "tables"
    ]
    assert tables[1]["rows"][0][0].startswith("WETH, ")
    command_result = bare(*arguments)
    for word in ("hedge of", "back in its band", "earned excluding funding", "Futures, 7 bars"):
        assert word in command_result.out


@pytest.mark.slow
def test_the_health_of_strategies_is_shown(bare: Bare, tmp_path: Path) -> None:
    config = config_of(tmp_path, **{'band = "5%"': 'band = "5%"\nleverage_band = "20%"'})
    page = tmp_path / "page.html"
    config.write_text(
        config.read_text()
        + STRATEGIES
        + "[split]\nrelative = '20%'\n"
        + STRATEGIES.replace('"falling"', '"idle"').replace('futures = { WETH = "100%" }\n', "")
    )
    file = tmp_path / "prices.csv"
    file.write_text("time,WETH\n" + "".join(f"{1_609_459_200 + 86_400 * day},{100 * 0.994**day + (day % 2)}\n" for day in range(75)))
    arguments = ("backtest", "--config", str(config), "--prices", str(file), "--futures", "margin=4000")
    result = bare(*arguments, "--html", str(page), "--json")
    assert result.code == 0, result.why
    assert not misfits(BacktestDocument, result.json)
    (paused,) = result.json["health"]
    assert (paused["name"], paused["health"]) == ("falling", "paused")
    assert Fraction(paused["sharpe"]) < Fraction(1, 2)
    assert {strategy["name"]: strategy["health"] for strategy in result.json["strategies"]} == {"falling": "paused", "idle": "active"}
    assert result.json["futures"]["agent"]["sizes"] == {}
    sections = {section["title"]: section for section in json.loads(page.with_suffix(".json").read_text())["sections"]}
    assert [row[0] for row in sections["Health of strategies"]["tables"][1]["rows"]] == ["falling"]
    command_result = bare(*arguments)
    assert "strategy falling is paused" in command_result.out
    assert "strategy idle: active at the end" in command_result.out


def test_a_reserve_beside_a_config_is_refused(bare: Bare, tmp_path: Path) -> None:
    config = config_of(tmp_path, **ONLY_HEDGES)
    result = bare("backtest", "--config", str(config), "--prices", str(prices(tmp_path, 100, 100)), "--futures", "reserve=10", "--json")
    assert result.code == 2
    assert result.json["error"]["message"].startswith("--futures reserve")
