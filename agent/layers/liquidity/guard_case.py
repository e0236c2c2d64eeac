"""What the guards ask of a plan of liquidity actions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from agent.errors import Refused
from agent.layers.liquidity.policy.book import (
    LiquidityExposure,
    PositionBook,
    liquidity_limits,
    open_position_book,
)
from agent.layers.liquidity.policy.replay import (
    LpReplay,
    SimulatedAction,
    replay_actions,
    worst_overpayment_share,
)
from agent.model import LayerGuardAnswers, Plan, Provide, StepInput, as_lp_action
from agent.reference import reference_prices
from agent.units import Value


@dataclass(frozen=True)
class LiquidityCase(LayerGuardAnswers):
    """A plan of liquidity actions with its step, replayed once for all guards."""

    step: StepInput
    plan: Plan

    @cached_property
    def book(self) -> PositionBook:
        """Wallet and positions of the snapshot. Raises Refused if a position is unknown."""
        return open_position_book(self.step, reference_prices(self.step).price_by_token)

    @cached_property
    def replay(self) -> LpReplay:
        """Simulated actions, maybe with the fault that ends them. Raises Refused as `book`."""
        return replay_actions(self.book, tuple(map(as_lp_action, self.plan.layer_actions)))

    def simulated_actions(self) -> tuple[SimulatedAction, ...]:
        """Return the simulated actions. Raises Refused if one fails."""
        if self.replay.fault is not None:
            raise Refused(self.replay.fault)
        return self.replay.simulations

    def exposures(self) -> tuple[LiquidityExposure, LiquidityExposure]:
        """Return the exposure before and after the actions. Raises Refused if one fails."""
        self.simulated_actions()
        return self.book.exposure(), self.replay.book_after.exposure()

    def only_withdraws(self) -> bool:
        """True if the plan only withdraws liquidity."""
        return not self.plan.legs and not any(
            isinstance(action, Provide) for action in self.plan.layer_actions
        )

    def is_required(self) -> bool:
        """True if the plan only withdraws liquidity while a liquidity limit is exceeded."""
        return self.only_withdraws() and not self.exposures()[0].is_within(
            liquidity_limits(self.step.limits)
        )

    def cost(self) -> Value:
        """Return the cost of provided liquidity above its value at reference prices."""
        return sum(map(_overpayment, self._provisions()), Fraction(0))

    def worst_cost(self) -> Value:
        """Return the largest such cost within the band of prices that the limits accept, or of each
        provision the simulated one if it is larger.
        """
        limits = self.step.limits
        overpayments = (
            max(
                _overpayment(simulation),
                simulation.value * worst_overpayment_share(simulation, limits),
            )
            for simulation in self._provisions()
        )
        return sum(overpayments, Fraction(0))

    def pool_deviations(self) -> list[tuple[Fraction, str]]:
        """Return the deviation of each action's pool from the reference, with the pool's name.
        Raises Refused for a pool without a price.
        """
        deviations = []
        for simulation in self.simulated_actions():
            pool_name = f"pool {simulation.action.pool}"
            if simulation.pool_deviation is None:
                raise Refused(f"{pool_name} has no price")
            deviations.append((simulation.pool_deviation, pool_name))
        return deviations

    def _provisions(self) -> list[SimulatedAction]:
        return [
            simulation
            for simulation in self.simulated_actions()
            if isinstance(simulation.action, Provide)
        ]


def _overpayment(simulation: SimulatedAction) -> Value:
    return simulation.book_before.overpayment(
        simulation.action, simulation.amounts, simulation.book_after
    )


def build_liquidity_case(step: StepInput, plan: Plan) -> LiquidityCase | None:
    """Return the answers on a plan of liquidity actions; None for any other plan."""
    return LiquidityCase(step, plan) if plan.layer_actions else None
