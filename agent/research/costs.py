"""What trading costs in a backtest, a search and a stress test."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from agent.backtest.settings import SimulationSettings
from agent.errors import ConfigError
from agent.research.arguments import Number, exact_amount, research_call
from agent.units import PIPS

ROUNDING_PIPS = Fraction(1, 10**6)
"""More than the rounding of a float that is meant as whole pips."""


@research_call.methods
@dataclass(frozen=True, slots=True)
class Costs:
    """The market of a simulation: `fee` of every pool as a share, `depth` of one side of a pool in
    the numeraire, and `latency`, the bars between sending and execution. Raises ConfigError.

    >>> Costs(fee=0.003)
    Costs(fee=0.003, depth=1000000000, latency=0)
    """

    fee: Number = 0.001
    depth: Number = 10**9
    latency: int = 0

    def __post_init__(self) -> None:
        self.settings(Fraction(1))

    def settings(self, start_value: Fraction) -> SimulationSettings:
        """Return the settings of a simulation that starts with this value."""
        exact_pips = exact_amount(self.fee, "fee") * PIPS
        fee_pips = round(exact_pips)
        if abs(exact_pips - fee_pips) > ROUNDING_PIPS:
            raise ConfigError(f"fee: {self.fee} is finer than 0.000001", "round it")
        return SimulationSettings(
            depth=exact_amount(self.depth, "depth"),
            fee_pips=fee_pips,
            start_value=start_value,
            latency_bars=int(self.latency),
        )


USUAL_COSTS = Costs()
