"""The benchmark of quotes runs and prints what its users parse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.amm import pools

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_quotes.py"
CASES = {"v2", "v3_within_one_tick", "v3_over_5_ticks", "v3_over_50_ticks"}


def run(*options: str) -> str:
    done = subprocess.run([sys.executable, SCRIPT, "--seconds", "0.02", *options], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_the_benchmark_prints_one_json_document_with_a_figure_per_case():
    printed = json.loads(run("--json"))
    assert set(printed) == {"machine", "ours", "peers", "ratios"}
    assert set(printed["ours"]) == CASES
    assert all(figure > 100 for figure in printed["ours"].values())
    assert printed["peers"] == printed["ratios"] == {}


def test_the_benchmark_prints_a_line_per_case_for_people():
    assert {line.split()[0] for line in run().splitlines()} == CASES


@pytest.mark.parametrize(("case", "crossed"), [("v3_within_one_tick", 0), ("v3_over_5_ticks", 5), ("v3_over_50_ticks", 50)])
def test_the_cases_cross_as_many_ticks_as_they_say(case, crossed):
    import importlib.util

    spec = importlib.util.spec_from_file_location("bench_quotes", SCRIPT)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    state, amount = bench.workload()[case]
    assert pools.swap_exact_in(state, bench.TOKEN0, amount).ticks_crossed == crossed
