"""Whether the figures of a simulation agree with each other where two of them give the same value."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

from agent.backtest.result import SimulationResult
from agent.errors import Refused, Verdict

TOLERANCE = 1e-6
"""Largest relative difference of two figures that give the same value. Floats differ by less."""


def require_agreement(
    simulation_result: SimulationResult, unit_growth: float, hold_unit_growth: float
) -> None:
    """Raise Refused if two figures of a result contradict each other. A series that ends in NaN is
    shown as unknown, and nothing is compared with it. `unit_growth` and `hold_unit_growth` are the growth of one
    unit of each portfolio over the whole run.
    """
    verdicts = [
        Verdict(name, f"{first_value:.9g}", f"{second_value:.9g}", passed=False)
        for name, first_value, second_value in _figure_pairs(
            simulation_result, unit_growth, hold_unit_growth
        )
        if not math.isclose(first_value, second_value, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    ]
    if verdicts:
        differences = "; ".join(
            f"{verdict.guard}: {verdict.measured_text} and {verdict.limit}" for verdict in verdicts
        )
        raise Refused(
            f"the figures of this backtest contradict each other: {differences}",
            verdicts,
            "do not use them; report the command and its files as a defect of trimtab",
        )


def _figure_pairs(
    simulation_result: SimulationResult, unit_growth: float, hold_unit_growth: float
) -> Iterator[tuple[str, float, float]]:
    """Yield the name of a figure, and its value in two computations. Money is in shares of the
    start value.
    """

    def share(value_raw: Fraction) -> float:
        return float(value_raw / simulation_result.start_value)

    start_coins = float(simulation_result.start_value) / 10.0**simulation_result.decimals
    rebalances = simulation_result.rebalances
    final_coins = float(simulation_result.equity[-1])
    if not math.isnan(final_coins):
        yield "growth and time-weighted return", unit_growth - 1, simulation_result.twr
        yield (
            "final value and its series",
            share(simulation_result.final_value),
            final_coins / start_coins,
        )
    hold_coins = float(simulation_result.hold_equity[-1])
    if not math.isnan(hold_coins):
        yield "growth and return of holding", hold_unit_growth - 1, simulation_result.hold_twr
        yield (
            "value of holding and its series",
            share(simulation_result.hold_value),
            hold_coins / start_coins,
        )
    yield (
        "fees and those of each rebalance",
        share(simulation_result.fees),
        share(sum((rebalance.fees for rebalance in rebalances), Fraction(0))),
    )
    yield (
        "impact and that of each rebalance",
        share(simulation_result.impact),
        share(sum((rebalance.impact for rebalance in rebalances), Fraction(0))),
    )
    if (premium := simulation_result.premium) is not None:
        yield (
            "excess return and its parts",
            premium.advantage,
            premium.excess_growth + premium.off_target - premium.dispersion - premium.costs,
        )
