"""`trimtab stress`, as it is typed: its document, its words, its report, and what it refuses before it begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.app.research.kept_reports import list_reports, read_report
from tests.cli.tools import CommandResult
from tests.support import agents

pytest.importorskip("polars")
pytest.importorskip("numba")

Bare = Callable[..., CommandResult]
WEEKLY = Path(__file__).parent.parent / "data" / "weekly_2021.csv"
POLICY = ("--target", "WBTC=50,USD=50", "--band", "10%abs")
FEW = ("--paths", "30,step-paths=1,bars=20", "--scenarios", "crash-bars=2")


def test_its_document_says_all_and_its_report_is_written(bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = agents.config(tmp_path, "trimtab")
    page = tmp_path / "stress.html"
    result = bare("stress", "--prices", str(WEEKLY), *POLICY, *FEW, "--scenarios", "crash,depeg", "--html", str(page), "--keep", "--json")
    assert result.code == 0, result.why
    document = result.json
    cases = {case["name"]: case for case in document["cases"]}
    assert list(cases) == ["resampled blocks", "jump diffusion", "calm", "crash", "depeg"]
    assert (cases["jump diffusion"]["paths"], cases["crash"]["paths"]) == (30, 1)
    assert float(cases["crash"]["loss"]["worst"]) > float(cases["calm"]["loss"]["worst"])
    assert cases["depeg"]["halted_bars"] == 13 - 6  # the middle third of twenty, by the limit that init writes
    for case in cases.values():
        texts = case["loss"]["quantiles"]
        assert [level for level in texts if texts[level] is not None] == (
            ["50%"] if case["paths"] == 1 else ["5%", "25%", "50%", "75%", "95%"]
        )
        marks = [float(text) for text in texts.values() if text is not None]
        assert marks == sorted(marks)
        assert float(case["loss"]["mean"]) <= float(case["loss"]["expected_shortfall"]) <= float(case["loss"]["worst"])
    assert (document["seed"], document["bars"], document["interval_s"]) == (0, 20, 7 * 86_400)
    assert len(document["config_hash"]) == len(document["data_hash"]) == 64
    assert document["report"][:2] == [str(page), str(page.with_suffix(".json"))]
    assert "<html" in page.read_text().lower()
    assert json.loads(page.with_suffix(".json").read_text())["kind"] == "Stress"
    (reports,) = list_reports(config)["reports"]
    assert reports["name"].endswith("-stress.html")
    assert reports["kind"] == "Stress"
    assert reports["figures"]
    assert b"<html" in read_report(config, reports["name"]).lower()


def test_its_words_name_each_case_and_what_was_left_out(bare: Bare) -> None:
    result = bare("stress", "--prices", str(WEEKLY), *POLICY, *FEW, "--paths", "step-paths=1", "--limits", "off")
    assert result.code == 0, result.why
    for word in (
        "resampled blocks",
        "crash",
        "shortfall",
        "skipped: gas-spike: the native coin has no price",
        "A percentile needs",
        "seed 0",
    ):
        assert word in result.out


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--paths", "0"), "--paths: 0"),
        (("--paths", "900000"), "this may take"),
        (("--paths", "block=500"), "--paths block: 500 of 52 moves"),
        (("--paths", "block=1e9"), "--paths block"),
        (("--scenarios", "flood"), "--scenarios: 'flood'"),
        (("--sample",), "--prices or --sample: exactly one is needed"),
        (("--paths", "drift=up"), "--paths drift"),
        (("--limits", "mine"), "--limits"),
        (("--html", "report.txt"), "--html"),
        (("--config", "trimtab.toml"), "the config sets it"),
        (("--futures", "leverage=3x"), "--futures: no weights are given"),
        (("--paths", "seeds=3"), "--paths seeds: only a futures book has them"),
    ],
)
def test_a_mistake_is_named_by_its_option(bare: Bare, more: tuple[str, ...], named: str) -> None:
    result = bare("stress", "--prices", str(WEEKLY), *POLICY, *more, "--json")
    assert result.code == 2
    assert named in result.json["error"]["message"]


@pytest.mark.parametrize("more", [("--limits", "off"), ("--scenarios", "crash"), ("--paths", "drift=none"), ("--destination", "halfway")])
def test_an_option_of_a_portfolio_is_refused_without_one(bare: Bare, more: tuple[str, ...]) -> None:
    result = bare("stress", "--prices", str(WEEKLY), "--futures", "WBTC=60,WETH=-40", *more, "--json")
    assert result.code == 2
    assert result.json["error"]["message"].startswith(f"{more[0]}: a futures book alone")


def test_too_few_prices_are_named(bare: Bare, tmp_path: Path) -> None:
    short = tmp_path / "short.csv"
    short.write_text("".join(WEEKLY.read_text().splitlines(keepends=True)[:20]))
    result = bare("stress", "--prices", str(short), *POLICY, "--json")
    assert result.code == 2
    assert "18 moves" in result.json["error"]["message"]


def test_it_tries_the_sample(bare: Bare) -> None:
    more = (
        "--paths",
        "20,step-paths=1,bars=20",
        "--scenarios",
        "crash,crash-bars=2",
        "--json",
    )
    result = bare("stress", "--sample", "--target", "BTC=50,USD=50", "--band", "10%abs", *more)
    assert result.code == 0, result.why
    assert result.json["interval_s"] == 86_400
