"""The owner's margin moves, and changes of the delegate."""

from __future__ import annotations

from agent.app.agent import Agent
from agent.app.cycles import Confirm, Progress
from agent.config.tables.futures import HyperliquidTable
from agent.errors import ConfigError, Refused
from agent.execution.step_context import StepOutcome
from agent.layers.futures.planning.requests import require_account
from agent.layers.futures.requests import MarginAccountRequest
from agent.layers.futures.state import futures_policy
from agent.margin import account as margin
from agent.model import DelegateChange, MarginDeposit, MarginWithdrawal
from agent.units import parse_raw

ALL = "all"
"""Amount of a margin withdrawal: the whole free margin."""


def move_margin(
    agent: Agent, amount: str, *, is_deposit: bool, send: bool, confirm: Confirm, progress: Progress
) -> StepOutcome:
    """Deposit or withdraw whole coins of the collateral; the amount "all" withdraws the free
    margin. Raises ConfigError, Refused without free margin.
    """
    collateral_token = agent.portfolio.token(agent.futures_policy().collateral)
    option, move_type = (
        ("--deposit", MarginDeposit) if is_deposit else ("--withdraw", MarginWithdrawal)
    )
    if isinstance(agent.context.config.futures, HyperliquidTable):
        raise ConfigError(
            f"{option}: trimtab moves no margin at Hyperliquid", "use the venue's own site"
        )
    if amount == ALL and not is_deposit:
        amount_raw = _free_margin_raw(agent)
    else:
        amount_raw = parse_raw(amount, collateral_token.decimals, option)
    if amount_raw == 0:
        raise ConfigError(f"{option}: must be above 0", f"for example {option} 100")
    return agent.adjust_futures(
        MarginAccountRequest(move_type(amount_raw)), send=send, confirm=confirm, progress=progress
    )


def _free_margin_raw(agent: Agent) -> int:
    step = agent.step_input()
    account = require_account(step.snapshot, futures_policy(step))
    if (free_raw := margin.free_margin_raw(account) // account.collateral_unit_raw) > 0:
        return free_raw
    raise Refused(
        "no margin is free: positions or losses use all of it",
        remedy="trimtab deleverage --to 0x --send closes every position",
    )


def change_delegate(
    agent: Agent, *, is_revoked: bool, send: bool, confirm: Confirm, progress: Progress
) -> StepOutcome:
    """Allow or revoke trading by the configured delegate. Raises ConfigError."""
    delegate = agent.futures_policy().delegate
    if not delegate:
        raise ConfigError(
            "futures.delegate: is missing", "set it to the address that may trade for the account"
        )
    delegate_change = MarginAccountRequest(DelegateChange(delegate, is_allowed=not is_revoked))
    return agent.adjust_futures(delegate_change, send=send, confirm=confirm, progress=progress)
