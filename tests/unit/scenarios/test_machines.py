"""The same step gives the same decision and plan to the bit under other BLAS kernels, threads, SIMD levels and variants of glibc."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from agent.model import AllocationMethod, StepInput
from tests.support.builders import zoned
from tests.support.decisions.exits import MARKET, OFF, step_with_stops
from tests.support.decisions.tracking import balance_changes, tracking_step
from tests.support.lp_worlds import lp_target, ranged, world
from tests.support.machines import MACHINES, ROOT, end_output, lacking, start_on, suite_runs, write_steps
from tests.support.planning_worlds import allocator, any_problem, any_problem_with_gas, limit, moves, recorded, weighed
from tests.support.stores import STEPS

PLANS = 200
SAMPLE = 24
LARGE = 4
SMALL = (4, 8)
"""Problems planned on each machine; where there is no time for all: how many, how many of these are of any size, and tokens and pools of
the others."""
UNIT = ROOT / "tests" / "unit"
BROKE = (
    *(f"policy/orders/test_{name}" for name in ("blocked_exits", "beside_features", "by_tables")),
    "execution/test_exits_of_a_step",
)
"""Orders whose exits once hung on the last bits of a solve."""


def steps(whole: bool) -> Iterator[StepInput]:
    """Steps that decide by all that is worked out in floats: plans, exits, zones, the tracking rule, liquidity, weights from data."""
    yield from STEPS
    yield from (any_problem_with_gas(number, *(() if whole or number < 3 else SMALL)) for number in range(12))
    yield step_with_stops("LINK", "WBTC", pools=(*MARKET, OFF))
    yield from (zoned({"WETH": 5_000, "USDC": 3_000, "WBTC": 2_000}, {"WETH": 5_000 + 900 * n, "USDC": 3_000}) for n in range(4))
    yield from (
        tracking_step(balance_changes(**dollars))
        for dollars in ({"WETH": 6_000}, {"WETH": 4_000, "LINK": 3_000}, {"WBTC": 9_000, "WETH": -6_000})
    )
    yield from (world([ranged(1_500, 1_800, 2_200)], [lp_target(share)]) for share in (1_500, 1_800, 2_500))
    bounds = {"limits": (limit("WETH", 1_000, 2_500), limit("UNI", 3_000, 6_000))}
    for number, method in enumerate(AllocationMethod):
        if method not in (AllocationMethod.FIXED, AllocationMethod.EQUAL, AllocationMethod.MARKET_CAP):
            yield from (weighed(allocator(method, **more), recorded(moves(seed=number))) for more in ({}, bounds))


def here() -> list[str]:
    """Machines that this processor can answer like; the test is skipped where there is nothing to compare."""
    why = {machine: lacking(machine) for machine in MACHINES}
    machines = [machine for machine, reason in why.items() if not reason]
    if len(machines) < 2:
        pytest.skip("; ".join(reason for reason in why.values() if reason))
    return machines


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_plans_replays_and_orders_are_the_same_on_every_machine(tmp_path: Path, whole: bool) -> None:
    """One process a machine: it plans, decides, runs the orders' tests; the first records its steps, which the others replay.

    A machine with the kernel of this process leaves the orders' tests to the suite, which runs them under it. Where there is no time
    for all, it and the last one answer.
    """
    machines = sorted(here(), key=lambda machine: not suite_runs(machine))
    if not whole:
        machines = [machines[0], machines[-1]]
    problems = [any_problem(number, *(() if whole or number < LARGE else SMALL)) for number in range(PLANS if whole else SAMPLE)]
    paths = write_steps(tmp_path / "plans", problems), write_steps(tmp_path / "whole", steps(whole)), tmp_path
    orders = [UNIT / f"{name}.py" for name in (BROKE if whole else BROKE[:1])]
    under_way = [
        start_on(
            machine, "-m", "tests.support.machines", "replay" if number else "record", *paths,
            *(() if suite_runs(machine) else orders),
        )
        for number, machine in enumerate(machines)
    ]  # fmt: skip
    documents = [json.loads(end_output(process).splitlines()[-1]) for process in under_way]
    for document, other in pairwise(documents):
        assert len(document["plans"]) == len(problems)
        assert document["plans"] == other["plans"]
        assert document["steps"] == other["steps"]
        assert document["differs"] != other["differs"], "nothing differs at all: no environment took"
    for document in documents[1:]:
        replayed = document["replayed"]
        assert replayed["different"] == replayed["unreadable"] == 0
        assert replayed["same"] > 20


@pytest.mark.parametrize("machine", MACHINES)
def test_a_machine_that_is_left_out_is_named(machine: str) -> None:
    if why := lacking(machine):
        pytest.skip(why)
