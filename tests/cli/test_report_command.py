"""`trimtab backtest --html`: what it writes, and what it refuses before any work is done."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from agent.app.research.kept_reports import list_reports, read_report
from tests.cli.tools import CommandResult
from tests.support import agents
from tests.support.text import mentions

pytest.importorskip("polars")

Bare = Callable[..., CommandResult]
WEEKLY = Path(__file__).parent.parent / "data" / "weekly_2021.csv"
RUN = ("backtest", "--prices", str(WEEKLY), "--target", "WBTC=50,USD=50", "--band", "10%abs")


def test_a_real_run_is_written_as_a_page_and_as_data(bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    result = bare(*RUN, "--market", "fee=30bps", "--html", str(path), "--json")
    assert result.code == 0, result.why
    assert result.json["report"] == [str(path), str(path.with_suffix(".json"))]
    page = path.read_text()
    document = json.loads(path.with_suffix(".json").read_text())
    final_value = f"{float(round(Fraction(result.json['final_value']), 2)):,.2f}"
    for text in (f"{final_value} USD", result.json["config_hash"], result.json["data_hash"], "WBTC and USD"):
        assert text in page
    facts = {fact["name"]: fact["value"] for fact in document["facts"]}
    assert facts["Final value, USD"] == final_value
    assert facts["Rebalances"] == str(result.json["rebalances"])
    earned = next(section for section in document["sections"] if section["title"] == "Return attribution")
    assert "gas money" not in [row[0] for row in earned["tables"][0]["rows"]]  # no gas: the parts alone add up
    assert "absolute_bps" in next(fact["value"] for fact in document["origin"] if fact["name"] == "policy")
    # Kept for the dashboard of the config in this folder, beside the file that was asked for.
    monkeypatch.chdir(tmp_path)
    config = agents.config(tmp_path, "trimtab")
    spoken = bare(*RUN, "--html", str(path), "--keep")
    (reports,) = list_reports(config)["reports"]
    assert "report.html" in spoken.out
    assert reports["name"] in spoken.out.replace("\n", "")
    assert (reports["title"], reports["figures"][0]["name"]) == ("WBTC and USD", "Final value, USD")
    assert reports["kind"] == "Backtest, 1 Jan 2021 to 31 Dec 2021"
    assert read_report(config, reports["name"]) == (tmp_path / "trimtab.db.reports" / reports["name"]).read_bytes()


def test_without_a_config_there_is_no_place_to_keep_a_report(bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = bare(*RUN, "--keep", "--json")
    assert result.code == 2
    assert "--keep" in result.json["error"]["message"]
    assert "--html" in result.json["error"]["remedy"]


@pytest.mark.parametrize("name", ["report", "report.json", "nowhere/report.html", "folder.html"])
def test_a_place_where_no_page_can_be_is_refused_before_the_run(bare: Bare, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.html").mkdir()
    result = bare("backtest", "--prices", str(tmp_path / "missing.csv"), "--html", str(tmp_path / name), "--json")
    assert result.code == 2
    assert "--html" in result.json["error"]["message"]


ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_the_command_and_the_picture_of_the_readme_are_one_run(bare: Bare) -> None:
    """The picture holds its command as text (scripts/make/report_picture.py); what the README says of it is what the run says."""
    readme = (ROOT / "README.md").read_text()
    match = re.search(r"trimtab (backtest --sample .*) --html report\.html", readme)
    assert match is not None
    picture = (ROOT / "docs" / "report.png").read_bytes()
    assert f"tEXtComment\0{match[1]} --html report.html".encode() in picture
    assert f"trimtab {match[1]} --html report.html" in (ROOT / "docs" / "report.md").read_text()
    document = bare(*shlex.split(match[1]), "--json").json
    behind = 1 - float(document["final_value"]) / float(document["hold_value"])
    assert mentions(readme, f"{behind * 100:.1f} %", "buy and hold")


def test_gas_without_a_price_is_told_as_not_counted(bare: Bare) -> None:
    """Of the sample too: tests/cli/test_backtest_command.py."""
    free = bare(*RUN)
    paid = bare(*RUN, "--market", "gas=20 gwei", "--native", "WBTC")
    assert free.code == paid.code == 0, free.err + paid.err
    assert "cost: gas" in free.out
    assert "not counted" in free.out
    assert "not counted" in free.out
    assert "not counted" not in paid.out
    assert bare(*RUN, "--json").json["gas_counted"] is False


def test_the_table_has_what_is_quoted_of_a_portfolio(bare: Bare) -> None:
    result = bare(*RUN)
    figures = bare(*RUN, "--json").json["figures"]
    for name in ("CAGR", "annual volatility", "Sharpe ratio", "maximum drawdown"):
        assert name in result.out
    for whose in ("rebalanced", "held"):
        assert -1 < float(figures[whose]["max_drawdown"]) < 0 < float(figures[whose]["volatility"])
    prices = [float(line.split(",")[1]) for line in WEEKLY.read_text().split()[1:]]
    growth = 0.5 + 0.5 * prices[-1] / prices[0]
    assert float(figures["held"]["cagr"]) == pytest.approx(growth ** (365 / (7 * 52)) - 1, rel=1e-3)
