"""Through whom the wallet trades and provides, what each may take, and how that is said."""

from __future__ import annotations

from agent.chain import approvals
from agent.errors import Refused
from agent.model import Collect, Execution, LpAction, Provide, StepInput, Withdraw
from agent.ports import Approval
from agent.units import decimal_text, safe_label

ROLES = {"uniswap_v2": "V2 router", "uniswap_v3": "position manager"}


def spenders(execution: Execution) -> dict[str, str]:
    """Every contract that may ever hold an allowance of ours, with its role in words."""
    return {contract: ROLES.get(venue, venue) for venue, contract in execution.liquidity} | {execution.router: "router"}


def counterpart(step: StepInput, action: LpAction) -> str:
    """The contract that an action calls. Raises Refused when the config names none, or another position manager than the action."""
    found = dict(step.execution.liquidity).get(action.venue)
    if found is None or (action.venue == "uniswap_v3" and action.contract != found):
        raise Refused(f"{action.name}: the config names no {ROLES.get(action.venue, action.venue)} for it", remedy="see [venues]")
    return found


def approval(step: StepInput, token: str, spender: str, raw: int, action: LpAction | None = None) -> Approval:
    """An approval with its words; a token that is none of the portfolio's is a pair's LP token."""
    return Approval(token, spender, raw, label(step, token), spenders(step.execution).get(spender, spender), action)


def left_over(step: StepInput) -> list[Approval]:
    """Approvals to zero of every allowance above zero of what the config trades and provides through."""
    ours = spenders(step.execution)
    return [approval(step, token, spender, 0) for token, spender in approvals.left_over(step.snapshot) if spender in ours]


def label(step: StepInput, token: str) -> str:
    """What a token is called, LP tokens too."""
    return _known(step, token)[0]


def note(step: StepInput, approved: Approval) -> str:
    """What an approval does."""
    if approved.raw == 0:
        return f"set the {approved.holder}'s allowance of {approved.label} to zero"
    amount = decimal_text(approved.raw, _known(step, approved.token)[1])
    return f"approve the {approved.holder} for {amount} {approved.label}"


def action_note(step: StepInput, action: LpAction) -> str:
    """What an action does, with the amounts that are expected."""
    match action:
        case Withdraw():
            return f"take {_pair(step, action, action.amounts_raw)} out of {action.name}"
        case Collect():
            return f"collect {_pair(step, action, action.fees_raw)} from {action.name}"
        case Provide():
            return f"provide {_pair(step, action, action.amounts_raw)} to {action.name}"


def _pair(step: StepInput, action: LpAction, raw: tuple[int, int]) -> str:
    parts = []
    for token, amount in zip((action.token0, action.token1), raw, strict=True):
        named, decimals = _known(step, token)
        parts.append(f"{decimal_text(amount, decimals)} {named}")
    return " and ".join(parts)


def _known(step: StepInput, token: str) -> tuple[str, int]:
    """Label and decimals; LP tokens of Uniswap V2 have 18."""
    try:
        found = step.portfolio.token(token)
    except KeyError:
        return f"LP tokens of {safe_label('', token)}", 18
    return found.label, found.decimals
