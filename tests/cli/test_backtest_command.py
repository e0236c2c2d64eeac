"""`trimtab backtest`, as it is typed: its document, its words, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import log
from pathlib import Path

import pytest

from tests.cli.tools import Said

pytest.importorskip("polars")

Bare = Callable[..., Said]
WEEKLY = Path(__file__).parent.parent / "data" / "weekly_2021.csv"
HALVES = ("--target", "WBTC=50,USD=50", "--band", "10%abs")


def test_its_document_adds_up(bare: Bare) -> None:
    said = bare("backtest", "--prices", str(WEEKLY), *HALVES, "--cost", "30bps", "--json")
    assert said.code == 0, said.why
    found = said.json
    costs = {kind: Fraction(text) for kind, text in found["costs"].items()}
    assert costs["total"] == pytest.approx(costs["fees"] + costs["impact"] + costs["gas"])
    assert found["rebalances"] == len(found["trades"]) >= 1
    assert sum(Fraction(one["fees"]) for one in found["trades"]) == pytest.approx(costs["fees"])
    assert Fraction(found["start_value"]) == 10_000
    assert abs(found["weights_bps"]["WBTC"] - 5_000) <= 1_000
    assert sum(found["weights_bps"].values()) == 10_000
    assert (found["bars"], found["halted"], found["refused"]) == (53, 0, {})
    assert found["numeraire"] == "USD"
    held = 5_000 + 5_000 * found_ratio()
    assert float(found["hold_value"]) == pytest.approx(held)
    assert len(found["config_hash"]) == len(found["data_hash"]) == 64
    earned = {name: float(text) for name, text in found["harvest"].items()}
    assert earned["advantage"] == pytest.approx(log(float(found["final_value"]) / float(found["hold_value"])), abs=2e-6)
    parts = earned["excess_growth"] + earned["off_target"] - earned["dispersion"] - earned["costs"]
    assert earned["advantage"] == pytest.approx(parts, abs=5e-6)


def found_ratio() -> float:
    """What the last price of the file is of the first."""
    rows = [line.split(",") for line in WEEKLY.read_text().split()]
    return float(rows[-1][1]) / float(rows[1][1])


def test_its_words_name_what_came_of_it(bare: Bare) -> None:
    said = bare("backtest", "--prices", str(WEEKLY), *HALVES, "--every", "4w", "--as", "WBTC=BTC", "--target", "BTC=50,USD=50")
    assert said.code == 0, said.why
    assert "53 bars, values in USD" in said.out
    for word in ("rebalanced", "held", "cost: fees", "turnover", "from rebalancing itself"):
        assert word in said.out


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ((), "--target or --config is needed"),
        (("--target", "WBTC=50,USD=50"), "--band or --every is needed"),
        (("--target", "WBTC=50,USD=40", "--band", "5%abs"), "sums to 90%"),
        (("--target", "WBTC=50,DOGE=30,USD=20", "--band", "5%abs"), "USD is not in the file"),
        ((*HALVES, "--cost", "much"), "--cost"),
        ((*HALVES, "--pool", "v4"), "--pool"),
        ((*HALVES, "--gas", "20 gwei"), "--gas: no price of the native coin is known"),
        ((*HALVES, "--native", "DOGE"), "--native: 'DOGE'"),
        ((*HALVES, "--destination", "zone"), "--destination"),
        ((*HALVES, "--as", "DOGE=BTC"), "--as: 'DOGE' is not in the file"),
        ((*HALVES, "--as", "WBTC=LINK"), "get the same name"),
        ((*HALVES, "--config", "trimtab.toml"), "--config: says targets and triggers itself"),
    ],
)
def test_a_mistake_is_named_by_its_option(bare: Bare, more: tuple[str, ...], named: str) -> None:
    said = bare("backtest", "--prices", str(WEEKLY), *more, "--json")
    assert said.code == 2
    assert named in said.json["error"]["message"]
