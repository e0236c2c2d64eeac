"""Backtest every template on every network on the packaged prices, for agent/backtest/sample/baskets.json, and on a folder of Binance's
prices, which carry no licence to be packaged, for other_years.json beside it: daily_2017_2023.parquet and hourly_2021-04_2022-12.parquet,
bars with columns `time`, `symbol` and `open`.

.venv/bin/python scripts/make/past_results.py                           compares; exit code 1 if a result differs
.venv/bin/python scripts/make/past_results.py --prices FOLDER           compares the other years too
.venv/bin/python scripts/make/past_results.py --prices FOLDER --write   rewrites the files
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import polars

from agent.app.research.past_results import computed_template_result
from agent.app.start.past_results import OTHER_YEARS_BASIS, OTHER_YEARS_FILE, TEMPLATE_RESULTS_FILE
from agent.backtest.data import PriceTable
from agent.config.networks.presets import PRESETS
from agent.config.writing.portfolio_templates import PORTFOLIO_TEMPLATES
from agent.errors import ConfigError

if TYPE_CHECKING:
    from agent.app.documents.owner import PastResultDocument

OTHER_YEARS = (2018, 2019, 2020, 2022, 2023)
"""Years, besides that of the packaged prices, of which the folder has each day of ETH and BTC."""
SOURCES = ("daily_2017_2023.parquet", "hourly_2021-04_2022-12.parquet")


@cache
def year_closes(folder: Path, year: int) -> PriceTable:
    """Return the prices at 00:00 UTC of each day of a year, in USDT, of the coins that have one on each day; USDC is 1."""
    days = np.arange(f"{year}-01-01", f"{year + 1}-01-01", dtype="datetime64[D]")
    closes: dict[str, Any] = {"USDC": np.ones(len(days))}
    for source in SOURCES:
        frame = polars.read_parquet(folder / source, columns=["time", "symbol", "open"])
        midnights = frame.filter(
            (polars.col("time").dt.hour() == 0) & (polars.col("time").dt.year() == year)
        ).sort("time")
        for (coin,), opens in midnights.group_by("symbol", maintain_order=True):
            if coin not in closes and len(opens) == len(days):
                closes[str(coin)] = opens["open"].to_numpy()
    times_s = days.astype("datetime64[s]").astype(np.int64)
    return PriceTable(tuple(closes), times_s, np.column_stack(list(closes.values())))


def result_or_none(
    network: str, template: str, year: int | None = None, folder: Path | None = None
) -> PastResultDocument | None:
    """Return the result of a template on a network, on the packaged prices or those of a year; None if the prices lack a token."""
    basket = (PORTFOLIO_TEMPLATES[template], PRESETS[network])
    try:
        if year is None or folder is None:
            return computed_template_result(*basket)
        return computed_template_result(*basket, year_closes(folder, year), OTHER_YEARS_BASIS)
    except ConfigError:
        return None


def packaged_results(pool: ProcessPoolExecutor) -> dict[str, dict[str, PastResultDocument]]:
    """Return the results on the packaged prices by network and template."""
    answers = {
        (network, template): pool.submit(result_or_none, network, template)
        for network in PRESETS
        for template in PORTFOLIO_TEMPLATES
    }
    return {
        network: {
            template: result
            for template in PORTFOLIO_TEMPLATES
            if (result := answers[network, template].result())
        }
        for network in PRESETS
    }


def other_results(
    pool: ProcessPoolExecutor, folder: Path
) -> dict[str, dict[str, list[PastResultDocument]]]:
    """Return the results of the other years by network and template, oldest first."""
    answers = {
        (network, template): [
            pool.submit(result_or_none, network, template, year, folder) for year in OTHER_YEARS
        ]
        for network in PRESETS
        for template in PORTFOLIO_TEMPLATES
    }
    return {
        network: {
            template: results
            for template in PORTFOLIO_TEMPLATES
            if (
                results := [
                    result for answer in answers[network, template] if (result := answer.result())
                ]
            )
        }
        for network in PRESETS
    }


def main() -> int:
    """Compare or write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prices", type=Path, metavar="FOLDER")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        results: dict[Path, object] = {TEMPLATE_RESULTS_FILE: packaged_results(pool)}
        if options.prices is not None:
            results[OTHER_YEARS_FILE] = other_results(pool, options.prices)
    texts = {file: json.dumps(documents, indent=1) + "\n" for file, documents in results.items()}
    if options.write:
        for file, text in texts.items():
            file.write_text(text, encoding="utf-8")
        return 0
    return int(any(file.read_text(encoding="utf-8") != text for file, text in texts.items()))


if __name__ == "__main__":
    sys.exit(main())
