"""What trading costs in a backtest, a search and a stress test."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TypeVar

from agent.backtest.settings import SimulationSettings
from agent.calls import checked_call
from agent.errors import ConfigError
from agent.research.arguments import Number, by_argument, check_kinds, exact_amount
from agent.units import PIPS

Kind = TypeVar("Kind")
ROUNDING_PIPS = Fraction(1, 10**6)
"""More than the rounding of a float that is meant as whole pips."""


def _checked_keys(costs_class: type[Kind]) -> type[Kind]:
    """Return the class, which names keys that it does not have."""
    initialize = checked_call(costs_class.__init__)
    setattr(costs_class, "__init__", initialize)  # noqa: B010
    return costs_class


@_checked_keys
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
        check_kinds(asdict(self))
        try:
            self.settings(Fraction(1))
        except ConfigError as error:
            raise by_argument(error) from None

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
