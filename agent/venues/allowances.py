"""Spenders of the wallet's tokens, their approvals, and notes on transactions."""

from __future__ import annotations

from collections.abc import Mapping

from agent.chain import tokens
from agent.layers import questions
from agent.model import (
    ExecutionConfig,
    LayerAction,
    Portfolio,
    StepInput,
    UnreadableItem,
)
from agent.ports import Approval
from agent.units import decimal_text, safe_label


def allowed_spenders(
    execution: ExecutionConfig, role_by_layer_spender: Mapping[str, str]
) -> dict[str, str]:
    """Return every contract that may ever hold an allowance of the wallet, with its role."""
    return {**role_by_layer_spender, execution.router: "router"}


def _role_by_spender(step: StepInput) -> dict[str, str]:
    """Return the allowed spenders of a step, each with its role."""
    layer_spenders = {
        contract: role
        for layer in questions.LAYERS
        for contract, role in layer.spenders(step).items()
    }
    return allowed_spenders(step.execution, layer_spenders)


def build_approval(
    step: StepInput, token: str, spender: str, approved_raw: int, action: LayerAction | None = None
) -> Approval:
    """Return an approval with its labels; a token outside the portfolio is an LP token of a
    pair.
    """
    return Approval(
        token,
        spender,
        approved_raw,
        token_label(step.portfolio, token),
        _role_by_spender(step).get(spender, spender),
        action,
    )


def revocations(step: StepInput) -> list[Approval]:
    """Return approvals that set every open allowance of the config's spenders to zero."""
    role_by_spender = _role_by_spender(step)
    return [
        build_approval(step, token, spender, 0)
        for token, spender in tokens.nonzero_allowances(step.snapshot)
        if spender in role_by_spender
    ]


def unread_allowances(step: StepInput) -> list[str]:
    """Return which allowances could not be read, each with the reason; unknown is not zero."""
    return [
        f"the {unreadable_item.subject} cannot be read: {unreadable_item.why}"
        for unreadable_item in unread_allowance_items(step)
    ]


def unread_allowance_items(step: StepInput) -> list[UnreadableItem]:
    """Return the allowances that could not be read."""
    return [
        unreadable_item
        for unreadable_item in step.snapshot.unreadable_items
        if unreadable_item.is_allowance
    ]


def token_label(portfolio: Portfolio, token: str) -> str:
    """Return a token's display name, LP tokens included."""
    return label_and_decimals(portfolio, token)[0]


def approval_note(portfolio: Portfolio, approval: Approval) -> str:
    """Describe an approval."""
    if approval.raw == 0:
        return f"set the {approval.spender_role}'s allowance of {approval.token_label} to zero"
    amount = decimal_text(approval.raw, label_and_decimals(portfolio, approval.token)[1])
    return f"approve the {approval.spender_role} for {amount} {approval.token_label}"


def label_and_decimals(portfolio: Portfolio, address: str) -> tuple[str, int]:
    """Return display name and decimals of a token, LP tokens included."""
    token = portfolio.find_token(address)
    if token is None:  # LP tokens of Uniswap V2 have 18 decimals
        return f"LP tokens of {safe_label('', address)}", 18
    return token.label, token.decimals
