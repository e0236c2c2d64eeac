"""Spenders of the wallet's tokens, their approvals, and notes on transactions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent.chain import tokens
from agent.errors import Refused
from agent.layers.questions import SPENDERS
from agent.model import (
    Collect,
    ExecutionConfig,
    LpAction,
    Portfolio,
    Provide,
    StepInput,
    Withdraw,
)
from agent.ports import Approval
from agent.units import decimal_text, safe_label

ROLES = {"uniswap_v2": "V2 router", "uniswap_v3": "position manager"}


def allowed_spenders(
    execution: ExecutionConfig, of_layers: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Return every contract that may ever hold an allowance of the wallet, with its role."""
    return (
        {contract: ROLES.get(venue, venue) for venue, contract in execution.liquidity}
        | {execution.router: "router"}
        | dict(of_layers)
    )


def _spenders(step: StepInput) -> dict[str, str]:
    """Return the same of a step."""
    of_layers = {
        contract: role for spenders in SPENDERS for contract, role in spenders(step).items()
    }
    return allowed_spenders(step.execution, of_layers)


def liquidity_contract(execution: ExecutionConfig, action: LpAction) -> str:
    """Return the contract that an action calls. Raises Refused if the config names none, or another
    position manager.
    """
    contract = dict(execution.liquidity).get(action.venue)
    if contract is None or (action.venue == "uniswap_v3" and action.contract != contract):
        raise Refused(
            f"{action.name}: the config has no {ROLES.get(action.venue, action.venue)} for it",
            remedy="see [venues]",
        )
    return contract


def build_approval(
    step: StepInput, token: str, spender: str, raw: int, action: LpAction | None = None
) -> Approval:
    """Return an approval with its labels; a token outside the portfolio is an LP token of a
    pair.
    """
    return Approval(
        token,
        spender,
        raw,
        token_label(step.portfolio, token),
        _spenders(step).get(spender, spender),
        action,
    )


def revocations(step: StepInput) -> list[Approval]:
    """Return approvals that set every open allowance of the config's spenders to zero."""
    spenders = _spenders(step)
    return [
        build_approval(step, token, spender, 0)
        for token, spender in tokens.open_allowances(step.snapshot)
        if spender in spenders
    ]


def token_label(portfolio: Portfolio, token: str) -> str:
    """Return a token's display name, LP tokens included."""
    return label_and_decimals(portfolio, token)[0]


def approval_note(portfolio: Portfolio, approved: Approval) -> str:
    """Describe an approval."""
    if approved.raw == 0:
        return f"set the {approved.holder}'s allowance of {approved.label} to zero"
    amount = decimal_text(approved.raw, label_and_decimals(portfolio, approved.token)[1])
    return f"approve the {approved.holder} for {amount} {approved.label}"


def action_note(portfolio: Portfolio, action: LpAction) -> str:
    """Describe an action, with its expected amounts."""
    match action:
        case Withdraw():
            return f"withdraw {_pair(portfolio, action, action.amounts_raw)} from {action.name}"
        case Collect():
            return f"collect {_pair(portfolio, action, action.fees_raw)} from {action.name}"
        case Provide():
            return f"provide {_pair(portfolio, action, action.amounts_raw)} to {action.name}"


def _pair(portfolio: Portfolio, action: LpAction, raw: tuple[int, int]) -> str:
    parts = []
    for token, amount in zip((action.token0, action.token1), raw, strict=True):
        label, decimals = label_and_decimals(portfolio, token)
        parts.append(f"{decimal_text(amount, decimals)} {label}")
    return " and ".join(parts)


def label_and_decimals(portfolio: Portfolio, address: str) -> tuple[str, int]:
    """Return display name and decimals of a token, LP tokens included."""
    try:
        token = portfolio.token(address)
    except KeyError:  # LP tokens of Uniswap V2 have 18 decimals
        return f"LP tokens of {safe_label('', address)}", 18
    return token.label, token.decimals
