"""What asked for a step, with all that it is proposed from beside its StepInput, so that it can be proposed again."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.gradual_execution import LimitOrder


@dataclass(frozen=True, slots=True)
class AgentCycle:
    """The agent itself, at a look: its strategy, and before it the `orders` at a price that were open."""

    orders: tuple[LimitOrder, ...] = ()


@dataclass(frozen=True, slots=True)
class Swap:
    """One swap by hand; the amount is in base units of `token_in`."""

    token_in: str
    token_out: str
    amount_in_raw: int


@dataclass(frozen=True, slots=True)
class SwapAtPrice:
    """One swap by hand that waits for its price."""

    order: LimitOrder


@dataclass(frozen=True, slots=True)
class Invest:
    """What `came` (token, base units) spread over what lacks, with what is left of the purchase `before` (its id; "" for none)."""

    came: tuple[tuple[str, int], ...]
    before: str = ""


@dataclass(frozen=True, slots=True)
class RaiseForWithdrawal:
    """What lacks of `token` for a withdrawal."""

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
    """One `token` that leaves the config, sold to the last base unit."""

    token: str


@dataclass(frozen=True, slots=True)
class ManualAction:
    """An act that nothing is proposed for: a payout, or allowances taken back by the command that is named."""

    what: str


PlanRequest = AgentCycle | Swap | SwapAtPrice | Invest | RaiseForWithdrawal | Unwrap | SellEverything | SellEntireBalance
"""What a plan is made for."""
StepRequest = PlanRequest | ManualAction
