"""`trimtab backtest --html`: what it writes, and what it refuses before any work is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from math import floor
from pathlib import Path

import pytest

from tests.cli.tools import Said

pytest.importorskip("polars")

Bare = Callable[..., Said]
WEEKLY = Path(__file__).parent.parent / "data" / "weekly_2021.csv"
RUN = ("backtest", "--prices", str(WEEKLY), "--target", "WBTC=50,USD=50", "--band", "10%abs")


def test_a_real_run_is_written_as_a_page_and_as_data(bare: Bare, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    said = bare(*RUN, "--cost", "30bps", "--html", str(path), "--json")
    assert said.code == 0, said.why
    assert said.json["report"] == [str(path), str(path.with_suffix(".json"))]
    page, told = path.read_text(), json.loads(path.with_suffix(".json").read_text())
    shown = f"{floor(Fraction(said.json['final_value']) * 100) / 100:,.2f}"
    for text in (f"{shown} USD", said.json["config_hash"], said.json["data_hash"], "WBTC and USD"):
        assert text in page
    facts = {one["name"]: one["value"] for one in told["facts"]}
    assert facts["Final value, USD"] == shown
    assert facts["Rebalances"] == str(said.json["rebalances"])
    earned = next(one for one in told["sections"] if one["title"] == "What rebalancing earned")
    assert "gas money" not in [row[0] for row in earned["tables"][0]["rows"]]  # no gas: the parts alone add up
    assert "absolute_bps" in next(one["value"] for one in told["origin"] if one["name"] == "policy")
    spoken = bare(*RUN, "--html", str(path))
    assert "report.html" in spoken.out


@pytest.mark.parametrize("name", ["report", "report.json", "nowhere/report.html", "folder.html"])
def test_a_place_where_no_page_can_be_is_refused_before_the_run(bare: Bare, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.html").mkdir()
    said = bare("backtest", "--prices", str(tmp_path / "missing.csv"), "--html", str(tmp_path / name), "--json")
    assert said.code == 2
    assert "--html" in said.json["error"]["message"]
