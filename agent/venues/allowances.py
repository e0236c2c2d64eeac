"""Spenders of the wallet's tokens, their approvals, and notes on transactions."""

from __future__ import annotations

from agent.chain import tokens
from agent.errors import Refused
from agent.model import (
    Collect,
    DelegateChange,
    ExecutionConfig,
    FuturesAction,
    FuturesPolicy,
    LpAction,
    MarginDeposit,
    MarginWithdrawal,
    OrderCancel,
    PerpOrder,
    Portfolio,
    Provide,
    RestingAction,
    Snapshot,
    StepInput,
    StopOrder,
    Withdraw,
)
from agent.ports import Approval
from agent.units import decimal_text, safe_label

ROLES = {"uniswap_v2": "V2 router", "uniswap_v3": "position manager"}


def allowed_spenders(
    execution: ExecutionConfig, futures: FuturesPolicy | None = None
) -> dict[str, str]:
    """Return every contract that may ever hold an allowance of the wallet, with its role."""
    vault = {futures.vault: "futures vault"} if futures is not None and futures.vault else {}
    return (
        {contract: ROLES.get(venue, venue) for venue, contract in execution.liquidity}
        | {execution.router: "router"}
        | vault
    )


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
        allowed_spenders(step.execution, step.futures).get(spender, spender),
        action,
    )


def revocations(step: StepInput) -> list[Approval]:
    """Return approvals that set every open allowance of the config's spenders to zero."""
    spenders = allowed_spenders(step.execution, step.futures)
    return [
        build_approval(step, token, spender, 0)
        for token, spender in tokens.open_allowances(step.snapshot)
        if spender in spenders
    ]


def token_label(portfolio: Portfolio, token: str) -> str:
    """Return a token's display name, LP tokens included."""
    return _label_and_decimals(portfolio, token)[0]


def approval_note(portfolio: Portfolio, approved: Approval) -> str:
    """Describe an approval."""
    if approved.raw == 0:
        return f"set the {approved.holder}'s allowance of {approved.label} to zero"
    amount = decimal_text(approved.raw, _label_and_decimals(portfolio, approved.token)[1])
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


def futures_note(step: StepInput, futures: FuturesAction) -> str:
    """Describe a futures action."""
    collateral = step.collateral
    match futures:
        case PerpOrder():
            return order_note(step.snapshot, futures)
        case MarginDeposit(raw):
            label, decimals = _label_and_decimals(step.portfolio, collateral)
            return f"deposit {decimal_text(raw, decimals)} {label} as margin"
        case MarginWithdrawal(raw):
            label, decimals = _label_and_decimals(step.portfolio, collateral)
            return f"withdraw {decimal_text(raw, decimals)} {label} of margin"
        case DelegateChange(delegate, is_allowed):
            verb = "allow" if is_allowed else "no longer allow"
            return f"{verb} {delegate} to trade futures for this account"
        case StopOrder() | OrderCancel():
            return stop_note(step.snapshot, futures)


def _six_places(raw: int, decimals: int, *, up: bool = False) -> str:
    """Format an amount to six places; all of it if that would be zero."""
    cut = 10 ** max(0, decimals - 6)
    whole = -(-raw // cut) if up else raw // cut
    return decimal_text(whole, min(decimals, 6)) if whole else decimal_text(raw, decimals)


def stop_note(snapshot: Snapshot, change: RestingAction) -> str:
    """Describe a change of a resting stop."""
    account = snapshot.futures
    if account is None:
        return f"change the resting stop of {change.market}"
    market, quote = account.market(change.market), account.quote
    name = safe_label(market.symbol, market.market)
    if isinstance(change, OrderCancel):
        return f"cancel a resting stop of {name}"
    size = _six_places(abs(change.size_raw), market.size_decimals)
    side = "sells" if change.size_raw < 0 else "buys"
    worth = _six_places(change.trigger_raw, quote.decimals)
    return (
        f"place a resting stop of {name} that {side} {size} once it is worth {worth} {quote.label}"
    )


def order_note(snapshot: Snapshot, order: PerpOrder) -> str:
    """Describe a futures order, with its bound in quote coins; both to six places, the bound
    rounded so that it holds.
    """
    account = snapshot.futures
    verb = "sell" if order.size_raw < 0 else "buy"
    limit = "at least" if order.size_raw < 0 else "at most"
    purpose = "reduce" if order.is_reduce_only else "open"
    if account is None:
        return f"{purpose} futures: {verb} {abs(order.size_raw)} base units of {order.market}"
    market, quote = account.market(order.market), account.quote
    size = _six_places(abs(order.size_raw), market.size_decimals)
    bound = _six_places(order.bound_raw, quote.decimals, up=order.size_raw > 0)
    return (
        f"{purpose} futures: {verb} {size} {safe_label(market.symbol, market.market)} for {limit}"
        f" {bound} {quote.label}"
    )


def _pair(portfolio: Portfolio, action: LpAction, raw: tuple[int, int]) -> str:
    parts = []
    for token, amount in zip((action.token0, action.token1), raw, strict=True):
        label, decimals = _label_and_decimals(portfolio, token)
        parts.append(f"{decimal_text(amount, decimals)} {label}")
    return " and ".join(parts)


def _label_and_decimals(portfolio: Portfolio, address: str) -> tuple[str, int]:
    try:
        token = portfolio.token(address)
    except KeyError:  # LP tokens of Uniswap V2 have 18 decimals
        return f"LP tokens of {safe_label('', address)}", 18
    return token.label, token.decimals
