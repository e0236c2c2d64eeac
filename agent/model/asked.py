"""Requests that start a step, with every input beside StepInput that replaying the plan needs."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.gradual_execution import LimitOrder


@dataclass(frozen=True, slots=True)
class AgentCycle:
    """A cycle of the agent: first the open limit `orders`, then its strategy."""

    orders: tuple[LimitOrder, ...] = ()


@dataclass(frozen=True, slots=True)
class Swap:
    """One manual swap; the amount is in base units of `token_in`."""

    token_in: str
    token_out: str
    amount_in_raw: int


@dataclass(frozen=True, slots=True)
class SwapAtPrice:
    """One manual swap that waits for its price."""

    order: LimitOrder


@dataclass(frozen=True, slots=True)
class Invest:
    """Invest `came` (token, base units) in the underweight assets; `before` is the id of a purchase under way, "" for none."""

    came: tuple[tuple[str, int], ...]
    before: str = ""


@dataclass(frozen=True, slots=True)
class RaiseForWithdrawal:
    """Raise the shortfall of `token` for a withdrawal."""

    token: str


@dataclass(frozen=True, slots=True)
class Unwrap:
    """So many base units of the wrapped native coin turned into native coin for a withdrawal."""

    raw: int


@dataclass(frozen=True, slots=True)
class SellEverything:
    """The end of the bot: everything into the numeraire."""


@dataclass(frozen=True, slots=True)
class SellEntireBalance:
    """Sell the whole balance of a `token` removed from the config, to the last base unit."""

    token: str


@dataclass(frozen=True, slots=True)
class ManualAction:
    """An action without a plan: a payout, or allowances revoked by the command named in `what`."""

    what: str


PlanRequest = AgentCycle | Swap | SwapAtPrice | Invest | RaiseForWithdrawal | Unwrap | SellEverything | SellEntireBalance
"""Request that a plan is made for."""
StepRequest = PlanRequest | ManualAction
