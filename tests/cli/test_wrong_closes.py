"""`trimtab backtest`, `tune` and `stress` say what a wrong close does to their result."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.backtest.tune.jobs import WorkEstimate
from tests.cli.tools import CommandResult
from tests.support.samples import slow
from tests.support.studies.price_walks import walk
from tests.support.text import mentions

pytest.importorskip("polars")

Bare = Callable[..., CommandResult]
PORTFOLIO = ("--target", "BTC=50,USD=50", "--numeraire", "USD")
SETTINGS = {
    "backtest": ("--band", "10%rel"),
    "tune": ("--band", "5%rel,10%rel", "--every", "7d"),
    "stress": ("--band", "10%rel", "--paths", "60,step-paths=1,bars=100", "--scenarios", "crash"),
}


def prices(folder: Path, closes: list[float]) -> str:
    """Write daily closes; NaN is missing, while the other column keeps the bar."""
    path = folder / "prices.csv"
    cells = ("" if math.isnan(close) else f"{close:.6f}" for close in closes)
    path.write_text("time,BTC,ETH\n" + "".join(f"{1_609_459_200 + 86_400 * row},{cell},100\n" for row, cell in enumerate(cells)))
    return str(path)


@pytest.mark.parametrize(
    ("index", "wrong"),
    [
        (0, 1.0),
        (119, 3_000_000.0),
        *slow([(0, 3_000_000.0), (1, 1.0), (1, 3_000_000.0), (60, 1.0), (60, 3_000_000.0), (119, 1.0)]),
    ],
)
def test_a_backtest_says_the_result_without_a_wrong_close(index: int, wrong: float, tmp_path: Path, bare: Bare) -> None:
    closes = walk(4)
    words = ("backtest", "--prices", prices(tmp_path, closes), *PORTFOLIO, *SETTINGS["backtest"])
    sound = bare(*words, "--json").json
    assert not [note for note in sound["notes"] if "probably wrong" in note]
    closes[index] = wrong
    prices(tmp_path, closes)
    report = bare(*words, "--json").json
    (note,) = [note for note in report["notes"] if "probably wrong" in note]
    assert f"BTC is {wrong:.8g} at 2021-" in note
    ends = re.search(r"ends at ([\d.]+) instead of ([\d.]+) USD", note)
    assert ends is not None
    assert abs(float(ends[2]) - float(report["final_value"])) < 0.01
    assert abs(float(ends[1]) / float(sound["final_value"]) - 1) < 0.03
    assert mentions(bare(*words).out, "probably wrong", "Without them the portfolio ends at")


def test_two_wrong_closes_and_a_crash_are_told_apart(tmp_path: Path, bare: Bare) -> None:
    closes = walk(4)
    closes[50:52] = [close * 100 for close in closes[50:52]]
    words = ("backtest", "--prices", prices(tmp_path, closes), *PORTFOLIO, *SETTINGS["backtest"], "--json")
    assert "2 closes are probably wrong" in bare(*words).json["notes"][0]
    crashed = [*walk(4)[:100], *(close / 50 for close in walk(4)[100:])]
    prices(tmp_path, crashed)
    assert not [note for note in bare(*words).json["notes"] if "probably wrong" in note]


def test_a_search_says_its_choice_without_a_wrong_close(tmp_path: Path, bare: Bare) -> None:
    closes = walk(4, 400)
    closes[90] = 1.0
    closes[350] = 4_000_000.0
    words = ("tune", "--prices", prices(tmp_path, closes), *PORTFOLIO, *SETTINGS["tune"], "--out", str(tmp_path / "out"))
    document = bare(*words, "--json").json
    assert mentions(document["notes"][0], "2 closes are probably wrong", "Without them the best setting is", "ends the last quarter at")
    assert bare(*words, "--json").json["notes"] == document["notes"]
    assert mentions(bare(*words).out, "probably wrong", "Without them the best setting")


@pytest.mark.parametrize(("index", "wrong"), [(90, 1.0), *slow([(0, 1.0), (0, 3_000_000.0), (199, 1.0), (199, 3_000_000.0)])])
def test_a_stress_test_says_the_shortfalls_without_wrong_closes(index: int, wrong: float, tmp_path: Path, bare: Bare) -> None:
    closes = walk(4, 200)
    words = ("stress", "--prices", prices(tmp_path, closes), *PORTFOLIO, *SETTINGS["stress"])
    prices(tmp_path, [*closes[:index], math.nan, *closes[index + 1 :]])
    without_close = shortfalls(bare(*words, "--json").json)
    prices(tmp_path, [*closes[:index], wrong, *closes[index + 1 :]])
    document = bare(*words, "--json").json
    (note,) = [note for note in document["notes"] if "probably wrong" in note]
    assert f"1 close is probably wrong: BTC is {wrong:.8g} at 2021-" in note
    named = {
        name: (float(without), float(with_)) for without, with_, name in re.findall(r"([-\d.]+) % instead of ([-\d.]+) % \(([^)]+)\)", note)
    }
    assert {name: with_ for name, (_, with_) in named.items()} == pytest.approx(shortfalls(document), abs=0.006)
    assert {name: without for name, (without, _) in named.items()} == pytest.approx(without_close, abs=0.006)
    assert max(abs(with_ - without) for without, with_ in named.values()) > 3
    assert mentions(bare(*words).out, "probably wrong", "Without them the expected shortfall")


@pytest.mark.parametrize(
    ("command", "bars", "reason"),
    [
        (("backtest", *SETTINGS["backtest"], "--flow", "2021-01-02=100"), 120, "2021-01-02"),
        (("tune", *SETTINGS["tune"]), 11, "the first three quarters of 10 bars are 7 periods"),
        (("stress", *SETTINGS["stress"][:2], "--paths", "10,step-paths=1,bars=20"), 31, "29 moves"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_result_that_needs_a_wrong_close_stays_with_a_note(
    command: tuple[str, ...], bars: int, reason: str, tmp_path: Path, bare: Bare
) -> None:
    closes = walk(4, bars)
    closes[0] = 3_000_000.0
    words = (command[0], "--prices", prices(tmp_path, closes), *PORTFOLIO, *command[1:], "--json")
    assert mentions(bare(*words).json["notes"][0], "1 close is probably wrong", "There is no result without them: ", reason)


def test_a_search_with_wrong_closes_is_confirmed_for_both_runs(tmp_path: Path, bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run would take 200 s; more than 300 s need --yes."""
    monkeypatch.setattr("agent.app.research.trials.estimate_work", lambda *_: WorkEstimate(10, 300, 200.0, 1, 3))
    closes = walk(4, 400)
    words = ("tune", "--prices", prices(tmp_path, closes), *PORTFOLIO, *SETTINGS["tune"], "--json")
    assert "not started" not in bare(*words).err
    closes[90] = 1.0
    prices(tmp_path, closes)
    assert "not started: 20 runs over 300 bars: about 6 min 40 s of one core" in bare(*words).err


def shortfalls(document: dict[str, Any]) -> dict[str, float]:
    """Return the expected shortfall of each case of a stress test, in percent."""
    return {case["name"]: 100 * float(case["loss"]["expected_shortfall"]) for case in document["cases"]}


def test_futures_name_wrong_closes(tmp_path: Path, bare: Bare) -> None:
    closes = walk(4)
    closes[90] = closes[90] / 1.5
    words = ("backtest", "--prices", prices(tmp_path, closes), "--futures", "BTC=100,leverage=1x", "--json")
    assert "1 close is probably wrong" in " ".join(bare(*words).json["futures"]["notes"])
