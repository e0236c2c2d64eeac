"""The benchmark of plans runs, holds ours against the others, says what is missing, and prints what its users parse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.bench import bench_planner, planner_peers

SCRIPT = Path(bench_planner.__file__)
SPREAD = {"median", "p90", "p99", "p99.9", "max"}


def run(*options: str, **environment: str) -> str:
    command = [sys.executable, SCRIPT, "--problems", "2", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env={**os.environ, **environment})
    return done.stdout


def printed_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What the script prints, with fewer pools in its large plans."""
    monkeypatch.setattr(sys, "argv", ["bench_planner.py", "--problems", "2", *options])
    monkeypatch.setattr(bench_planner, "LARGE_SIZES", ((20, 40), (40, 60)))
    bench_planner.main()
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("with_solvers", [False, True])
def test_bench__prints_one_json_and_names_a_missing_solver(monkeypatch, capsys, with_solvers):
    printed = json.loads(run("--json", "--peers", PIP_NO_INDEX="1") if with_solvers else printed_here(monkeypatch, capsys, "--json"))
    assert set(printed) == {"machine", "ours", "peers", "ratios"}
    gaps = {"gap_bps", "gap_with_gas_bps", "gap_coarse_units_bps"}
    times = {"continuous_ms", "plan_ms", "mixed_plan_ms", "rule_look_ms", "band_look_ms", "rule_ms"}
    assert set(printed["ours"]) == {"problems", "not_worth_a_trade", "large_plan_ms", *gaps, *times}
    assert all(set(printed["ours"][name]) == SPREAD for name in times)
    assert all(set(printed["ours"][name]) == {*SPREAD, "above_3_bps"} for name in gaps)
    assert all(set(values) == SPREAD for values in printed["ours"]["large_plan_ms"].values())
    assert 0 <= printed["ours"]["gap_bps"]["max"] < 1
    assert printed["ours"]["plan_ms"]["median"] > printed["ours"]["continuous_ms"]["median"] > 0
    peers = printed["peers"]
    solvers = {planner_peers.SLSQP, bench_planner.CVXPY} if with_solvers else set()
    assert set(peers) == {"sequential swaps", "grid of 5 %"} | solvers
    assert peers["sequential swaps"]["ours_is_worse"] == peers["grid of 5 %"]["ours_is_worse"] == 0
    assert all(peers[name]["with_gas"]["ours_is_worse"] == 0 for name in ("sequential swaps", "grid of 5 %"))
    assert not with_solvers or "fail" in peers[bench_planner.CVXPY]["missing"]
    assert set(printed["ratios"]) == solvers - {bench_planner.CVXPY}


@pytest.mark.slow
def test_the_benchmark_prints_a_line_per_figure_for_people(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    lines = printed_here(monkeypatch, capsys).splitlines()
    assert [line.split()[0] for line in lines] == [
        "2", "gap_bps", "gap_with_gas_bps", "gap_coarse_units_bps", "continuous_ms", "plan_ms", "mixed_plan_ms",
        "rule_look_ms", "band_look_ms", "rule_ms", "20", "40", "sequential", "grid",
    ]  # fmt: skip


def test_slsqp__gets_the_same_problem_and_finds_no_better():
    for seed in range(3):
        problem = planner_peers.continuous_problem(seed)
        ours = planner_peers.solve_ours(problem)
        theirs = planner_peers.solve_by_slsqp(problem)
        assert theirs.worth <= ours.worth + 1e-9
        assert theirs.worth == pytest.approx(ours.worth, abs=2e-6)


def test_another_process_gets_every_range_of_every_pool():
    problem = planner_peers.continuous_problem(0)
    document = json.loads(json.dumps(problem.as_json()))
    assert len(document["arcs"]) == len(problem.pool_graph.pool_edges) > 30
    for (source, target, keep, roots, depths), pool_edge in zip(document["arcs"], problem.pool_graph.pool_edges, strict=True):
        assert (source, target) == (pool_edge.token_in_index, pool_edge.token_out_index)
        taken = sum(depth * (1 / end - 1 / top) for top, end, depth in zip(roots[:-1], roots[1:], depths, strict=True))
        assert taken / keep == pytest.approx(pool_edge.curves.real_curve.capacity)


def test_a_percentile_is_a_value_that_so_many_do_not_exceed():
    summary = bench_planner.summarise([float(number) for number in range(1_000)])
    assert summary == {"median": 499.5, "p90": 899.0, "p99": 989.0, "p99.9": 998.0, "max": 999.0}
