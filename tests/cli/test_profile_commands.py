"""export-profile and import-profile on a real chain: the transition is planned and judged, shown, asked for, and written as a version."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.app.research.backtests import sample_files
from agent.config.load import load_config
from tests.cli.tools import CommandResult, Desk, at_terminal
from tests.support import agents


def exported(desk: Desk, tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """The desk's own profile, changed."""
    file = tmp_path / "their.profile"
    document = desk.ask("export-profile", str(file))
    assert document["chain_id"] == 31337
    assert len(document["sha256"]) == 64
    text = file.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text)
    return file


def shares(desk: Desk) -> dict[str, str]:
    return {asset["symbol"]: asset["target"] for asset in tomllib.loads(desk.config.read_text())["portfolio"]["assets"]}


def test_profile__is_shown_and_written_with_a_yes(desk: Desk, tmp_path: Path) -> None:
    desk.ask("plan")
    desk.ask("run", "--once")
    file = exported(desk, tmp_path)
    targets = [asset["target"] for asset in tomllib.loads(file.read_text())["assets"]]
    assert targets[0] == "30%"
    swapped = file.read_text().replace('"30%"', '"x%"', 1).replace(f'"{targets[1]}"', '"30%"', 1).replace('"x%"', f'"{targets[1]}"', 1)
    file.write_text(swapped)
    before = shares(desk)
    planned = desk.ask("import-profile", str(file), want=2)
    assert (planned["state"], shares(desk)) == ("planned", before)
    assert planned["transition"] is not None
    assert planned["transition"]["legs"]
    written = desk.ask("import-profile", str(file), "--yes", "--sha256", planned["sha256"])
    assert written["state"] == "written"
    assert list(shares(desk).values())[:2] == [targets[1], "30%"]
    versions = desk.ask("history", "--configs")["configs"]
    assert versions[0]["how"] == "edit"
    assert desk.ask("plan")["decision"]["kind"] in ("hold", "rebalance")


def test_profile_at_a_terminal__writes_nothing_after_a_no(desk: Desk, tmp_path: Path) -> None:
    symbol = desk.ask("status")["holdings"][0]["symbol"]
    address = desk.about["tokens"][symbol]
    other = "0x" + "11" * 20
    file = exported(desk, tmp_path, (address, other), ('slippage = "', 'slippage = "0.01%" # '))
    before = desk.config.read_bytes()
    code, screen = at_terminal(desk, "n\n", "import-profile", str(file))
    assert code == 10, screen
    assert other in screen
    assert address in screen
    assert "not used" in screen
    assert "adopted: tighter" in screen
    assert desk.config.read_bytes() == before


@pytest.mark.slow
def test_a_profile_is_shown_with_the_backtest_of_what_it_makes(bare: Callable[..., CommandResult], tmp_path: Path) -> None:
    pytest.importorskip("polars")
    from agent.app.research.past_results import past_result_or_reason

    config = agents.config(tmp_path)
    file = agents.profile(tmp_path)
    words = ("import-profile", str(file), "--config", str(config))
    assert "not a forecast" not in bare(*words).out, "nobody asked for it"
    text = " ".join(bare(*words, "--past").out.split())
    agents.taken_over(config, file)
    past_result: Any = past_result_or_reason(load_config(config))[0]
    for name in ("return", "return_of_holding", "max_drawdown", "max_drawdown_of_holding"):
        assert f"{float(past_result[name]) * 100:+.1f} %" in text
    assert past_result["basis"] in text
    assert "not a forecast" in text


@pytest.mark.slow
def test_profile__is_shown_with_its_return_of_each_year(bare: Callable[..., CommandResult], tmp_path: Path) -> None:
    pytest.importorskip("polars")
    config = agents.config(tmp_path)
    file = agents.profile(tmp_path)
    prices = tmp_path / "mine.csv"
    prices.write_bytes(sample_files()[0].read_bytes())
    words = ("import-profile", str(file), "--config", str(config), "--past", "--prices", str(prices))
    document = bare(*words, "--json").json
    packaged = document["past"]
    (year,) = document["other_years"]
    assert year == {**packaged, "basis": packaged["basis"].replace("of 2021", "of mine.csv")}
    text = " ".join(bare(*words).out.split())
    assert f"2021 {float(year['return']) * 100:+.1f} % (held {float(year['return_of_holding']) * 100:+.1f} %); {year['basis']}" in text
