"""Requests that start a step: every input beyond StepInput that replaying the plan needs."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.gradual_execution import LimitOrder


@dataclass(frozen=True, slots=True)
class AgentCycle:
    """A cycle of the agent: open limit `orders` first, then its strategy."""

    orders: tuple[LimitOrder, ...] = ()


@dataclass(frozen=True, slots=True)
class Swap:
    """One manual swap; the amount is in base units of `token_in`."""

    token_in: str
    token_out: str
    amount_in_raw: int


@dataclass(frozen=True, slots=True)
class SwapAtPrice:
    """One manual swap at a limit price."""

    order: LimitOrder


@dataclass(frozen=True, slots=True)
class Invest:
    """Invest new deposits `came` (token, base units) in the underweight assets.

    `before` is the id of a purchase under way, or "".
    """

    came: tuple[tuple[str, int], ...]
    before: str = ""


@dataclass(frozen=True, slots=True)
class RaiseForWithdrawal:
    """Raise the shortfall of `token` for a withdrawal."""

    token: str


@dataclass(frozen=True, slots=True)
class Unwrap:
    """Unwrap native coin, in base units, for a withdrawal."""

    raw: int


@dataclass(frozen=True, slots=True)
class SellEverything:
    """Sell everything for the numeraire, at the end of the bot."""


@dataclass(frozen=True, slots=True)
class SellEntireBalance:
    """Sell the whole balance of a `token` removed from the config, to the last base unit."""

    token: str


@dataclass(frozen=True, slots=True)
class ManualAction:
    """An action without a plan: a payout, or allowances revoked by the command named in `what`."""

    what: str


PlanRequest = (
    AgentCycle
    | Swap
    | SwapAtPrice
    | Invest
    | RaiseForWithdrawal
    | Unwrap
    | SellEverything
    | SellEntireBalance
)
"""Request that a plan is made for."""
StepRequest = PlanRequest | ManualAction
