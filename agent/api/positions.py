"""Liquidity positions: what each holds, cost and brought, what it stands to lose, and what the wallet holds besides that does not count."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from agent.api.agent import Agent
from agent.chain.strays import Strays, find_strays
from agent.errors import Refused
from agent.model import StepInput
from agent.policy import liquidity as rules
from agent.policy.drift import drift, total
from agent.policy.liquidity import PositionReport
from agent.policy.lp_report import TargetReport, target_reports
from agent.reference import reference_prices
from agent.units import BPS, Value


@dataclass(frozen=True, slots=True)
class Bounded:
    """A sum over all positions against its limit, in shares of the portfolio; None where it is unknown or off."""

    value: Value | None
    share: Fraction | None
    limit_bps: int | None

    @property
    def within(self) -> bool | None:
        """Whether it keeps to its limit; None when that cannot be said."""
        if self.limit_bps is None:
            return True
        return None if self.share is None else self.share * BPS <= self.limit_bps


@dataclass(frozen=True, slots=True)
class Liquidity:
    """All of it. `portfolio_value` is None while something in the portfolio is unknown; `unreadable` says which positions and why.

    `targets` is empty then too.
    """

    step_input: StepInput
    reports: tuple[PositionReport, ...]
    unreadable: tuple[str, ...]
    warnings: tuple[str, ...]
    ignored: Strays
    portfolio_value: Value | None
    expected_loss: Bounded
    weight: Bounded
    targets: tuple[TargetReport, ...]


def liquidity(agent: Agent) -> Liquidity:
    """Reads the wallet's positions, the confirmed ones and the others. Nothing is written or sent."""
    step = agent.step_input()
    prices = {token: found.price for token, found in reference_prices(step).prices.items()}
    venue = agent.desk.config.venues.uniswap_v3
    head = {"blockHash": step.snapshot.head.hash, "requireCanonical": True}
    manager = None if venue is None else venue.position_manager
    ignored = find_strays(agent.desk.line, step.snapshot.owner, manager, agent.desk.pools, step.portfolio.positions, head)
    try:
        whole: Value | None = total(drift(step, prices))
        lost: Value | None = rules.expected_loss(step, prices)
        worth: Value | None = rules.worth(step, prices)
        targets = target_reports(step, prices)
    except Refused:
        whole, lost, worth, targets = None, None, None, ()
    limits = step.limits
    return Liquidity(
        step_input=step,
        reports=rules.reports(step, prices),
        unreadable=rules.faults(step),
        warnings=rules.warnings(step),
        ignored=ignored,
        portfolio_value=whole,
        expected_loss=_bounded(lost, whole, limits.impermanent_loss_bps),
        weight=_bounded(worth, whole, limits.lp_max_weight_bps),
        targets=targets,
    )


def _bounded(value: Value | None, whole: Value | None, limit_bps: int | None) -> Bounded:
    share = value / whole if value is not None and whole else None
    return Bounded(value, share, limit_bps)
